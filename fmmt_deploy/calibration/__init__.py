"""Graphs in lower precision: which node computes in which type, the weights to go with it, and what it does to values.

Precision is a property of the graph and never a builder's flag, so that what is asked for is what is computed.
"""
