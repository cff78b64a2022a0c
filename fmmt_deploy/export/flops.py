"""Counts the work of a graph from the graph itself: matrix-product FLOPs by precision, and bytes of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from fmmt_deploy.bundle.manifest import Precision

__all__ = ["TYPICAL", "constant_bytes", "flops_by_precision", "matmul_flops", "shares_of_flops", "weight_bytes"]

TYPICAL = {"dialogues": 1, "tokens": 134, "utterances": 1, "faces": 10}
"""One utterance of MELD's test set: its dialogue has 134 tokens on average; ten faces is a choice."""

_PRECISIONS: Mapping[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}


def matmul_flops(path: Path, dims: Mapping[str, int]) -> int:
    """FLOPs of all matrix products (2 × multiply-adds) of an ONNX graph; see `flops_by_precision`."""
    return sum(flops_by_precision(onnx.load(path, load_external_data=False), dims).values())


def flops_by_precision(model: onnx.ModelProto, dims: Mapping[str, int] = TYPICAL) -> dict[Precision, int]:
    """FLOPs of the matrix products (2 × multiply-adds) in each precision, by shape and type inference.

    Args:
        model: The graph; its weights need not be loaded.
        dims: A number for each named dimension of the graph's inputs.

    Raises:
        ValueError: The shape or the type of a product can't be inferred.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = dims[axis.dim_param]
    for value in sized.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    kinds = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        kinds[value.name] = value.type.tensor_type.elem_type
    found: dict[Precision, int] = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            precision = _precision(node, kinds)
            found[precision] = found.get(precision, 0) + _node_flops(node, shapes)
    return found


def shares_of_flops(model: onnx.ModelProto, dims: Mapping[str, int] = TYPICAL) -> dict[Precision, float]:
    """The share of the matrix-product FLOPs in each precision, from 0 to 1; see `flops_by_precision`."""
    flops = flops_by_precision(model, dims)
    total = sum(flops.values())
    return {precision: count / total for precision, count in sorted(flops.items(), key=lambda item: -item[1])}


def weight_bytes(path: Path) -> int:
    """Bytes of the constants and weights of a graph's file; see `constant_bytes`."""
    return constant_bytes(onnx.load(path, load_external_data=False))


def constant_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a graph's constants and weights in their types; each is counted once, however often it is used."""
    return sum(
        helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * int(np.prod(tensor.dims, dtype=np.int64))
        for tensor in model.graph.initializer
    )


def _precision(node: onnx.NodeProto, kinds: Mapping[str, int]) -> Precision:
    found = {kinds.get(name, TensorProto.UNDEFINED) for name in node.input if name}
    if len(found) != 1 or not found <= _PRECISIONS.keys():
        names = ", ".join(sorted(TensorProto.DataType.Name(kind) for kind in found))
        raise ValueError(f"{node.name} should multiply numbers of one floating-point type, found {names}")
    return _PRECISIONS[found.pop()]


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    left, right, out = (shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0]))
    if not out or not all((*left, *right, *out)):
        raise ValueError(f"the shape of {node.name} is unknown: {left} · {right} = {out}")
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * int(np.prod(out, dtype=np.int64)) * left[0 if transposed else -1]
