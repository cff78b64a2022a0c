"""Turns a trained FacialMMT model into graphs and engines for production, and proves that they still answer alike."""
