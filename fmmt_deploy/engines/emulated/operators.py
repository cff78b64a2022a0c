"""The operators of our graphs, one function each, on PyTorch tensors.

A tensor has the type that the graph gives it. Products of half precision are accumulated in float32 and rounded once,
with the bias inside, as tensor cores do; an element-wise operation computes in float32 and rounds its answer once
(PyTorch's own rule for halves on the CPU). Semantics are those of ONNX at opset 20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OPERATORS", "TYPES", "Attributes", "Operator"]

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor]
"""Called with the node's attributes and its inputs."""

TYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}
"""The types of our graphs."""


def _cast(attributes: Attributes, x: Tensor) -> Tensor:
    return x.to(TYPES[attributes["to"]])


def _concat(attributes: Attributes, *parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=attributes["axis"])


def _gather(attributes: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = attributes.get("axis", 0) % x.ndim
    index = torch.where(index < 0, index + x.shape[axis], index)
    taken = torch.index_select(x, axis, index.reshape(-1))
    return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_nd(attributes: Attributes, x: Tensor, index: Tensor) -> Tensor:
    batch = attributes.get("batch_dims", 0)
    lead = index.shape[:-1]
    places = [torch.arange(n).reshape([-1 if i == j else 1 for j in range(len(lead))]) for i, n in enumerate(lead)]
    return x[(*places[:batch], *index.unbind(-1))]


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    approximate: bytes = attributes.get("approximate", b"none")
    return F.gelu(x, approximate=approximate.decode())


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    left, right = a.float(), b.float()
    if attributes.get("transA", 0):
        left = left.T
    if attributes.get("transB", 0):
        right = right.T
    alpha: float = attributes.get("alpha", 1.0)
    beta: float = attributes.get("beta", 1.0)
    product = left @ right if c is None else torch.addmm(c.float(), left, right, beta=beta, alpha=alpha)
    return product.to(a.dtype)


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = attributes.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5))


def _matmul(_: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return (a.float() @ b.float()).to(a.dtype)


def _reduce_max(attributes: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    return torch.amax(x, axes.tolist(), keepdim=bool(attributes.get("keepdims", 1)))


def _reduce_sum(attributes: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    return torch.sum(x, axes.tolist(), keepdim=bool(attributes.get("keepdims", 1)))


def _reshape(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def _shape(_: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int64)


def _slice(_: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor | None = None) -> Tensor:
    every = [1] * len(starts) if steps is None else steps.tolist()
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), every, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _softmax(attributes: Attributes, x: Tensor) -> Tensor:
    return torch.softmax(x, attributes.get("axis", -1))


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    return x.permute(*attributes["perm"])


def _unsqueeze(_: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda _, a, b: a + b,
    "Cast": _cast,
    "Concat": _concat,
    "Equal": lambda _, a, b: a == b,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": lambda _, a, b: a > b,
    "Identity": lambda _, x: x,
    "LayerNormalization": _layer_norm,
    "Less": lambda _, a, b: a < b,
    "MatMul": _matmul,
    "Mul": lambda _, a, b: a * b,
    "ReduceMax": _reduce_max,
    "ReduceSum": _reduce_sum,
    "Relu": lambda _, x: torch.relu(x),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Sub": lambda _, a, b: a - b,
    "Tanh": lambda _, x: torch.tanh(x),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By ONNX name."""
