"""ONNX Runtime on the CPU, and on its GPU providers."""
