"""TensorRT and TensorRT-RTX: one code path, two packages."""
