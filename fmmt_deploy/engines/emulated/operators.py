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

__all__ = ["OPERATORS", "STORED", "TYPES", "Attributes", "Operator"]

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
"""The types of our graphs' tensors, but for those that are quantised."""

STORED: Mapping[int, torch.dtype] = {
    **TYPES,
    TensorProto.INT8: torch.int8,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
}
"""The types that constants may have; only (de)quantising makes or reads those beyond `TYPES`."""


_E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
"""The number of every byte."""


def _cast(attributes: Attributes, x: Tensor) -> Tensor:
    return x.to(TYPES[attributes["to"]])


def _concat(attributes: Attributes, *parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=attributes["axis"])


def _dequantize(attributes: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """In float32, rounded once to the type of the scale."""
    if x.dtype == torch.float8_e4m3fn:  # its zero point can only be 0; looked up, as PyTorch converts it slowly
        wide = torch.index_select(_E4M3, 0, x.view(torch.uint8).reshape(-1).int()).reshape(x.shape)
    else:
        wide = x.float() if zero is None else x.float().sub_(_along(zero.float(), x, attributes))
    return wide.mul_(_along(scale.float(), x, attributes)).to(scale.dtype)


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


def _quantize(attributes: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Rounds the quotient, which has the type of `x`, half to even, and saturates; what is not a number becomes 0.

    E4M3 keeps what is not a number; of integers ONNX does not say.
    """
    if not attributes.get("saturate", 1):
        raise RuntimeError("only quantising that saturates is known")
    kind = torch.uint8 if zero is None else zero.dtype
    quotient = x / _along(scale, x, attributes)
    if kind == torch.float8_e4m3fn:
        largest = torch.finfo(kind).max
        return quotient.clamp_(-largest, largest).to(kind)  # PyTorch's own conversion saturates in some versions only
    whole = quotient.nan_to_num_(0.0, float("inf"), float("-inf")).round_()
    if zero is not None:
        whole += _along(zero, x, attributes)
    limits = torch.iinfo(kind)
    return whole.clamp_(limits.min, limits.max).to(kind)


def _along(values: Tensor, x: Tensor, attributes: Attributes) -> Tensor:
    """One value, or one for each place along an axis, in a shape that meets x's."""
    if values.numel() == 1:
        return values.reshape(())
    axis = attributes.get("axis", 1) % x.ndim
    return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


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
    "DequantizeLinear": _dequantize,
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
    "QuantizeLinear": _quantize,
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
