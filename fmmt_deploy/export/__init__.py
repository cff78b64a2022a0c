"""Writes a model as ONNX graphs that ONNX Runtime and TensorRT both run well.

The graphs are built node by node instead of traced: every operator, name and type in them is there on purpose, and
their weights are the checkpoint's own tensors, bit for bit, in the safetensors file the PyTorch reference reads too.
"""
