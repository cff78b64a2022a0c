"""Trains a model from a data set: settings, data loading, both phases of an epoch, checkpoints, and its records."""
