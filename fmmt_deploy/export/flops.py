"""Counts the work of a graph from the graph itself: matrix-product FLOPs and bytes of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

__all__ = ["TYPICAL", "matmul_flops", "weight_bytes"]

TYPICAL = {"dialogues": 1, "tokens": 134, "utterances": 1, "faces": 10}
"""One utterance of MELD's test set: its dialogue has 134 tokens on average; ten faces is a choice."""


def matmul_flops(path: Path, dims: Mapping[str, int]) -> int:
    """FLOPs of all matrix products (2 × multiply-adds) of an ONNX graph, by shape inference.

    Args:
        path: The ONNX file; its weights are not read.
        dims: A number for each named dimension of the graph's inputs.

    Raises:
        ValueError: The shape of a product can't be inferred.
    """
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = dims[axis.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
    return sum(_node_flops(node, shapes) for node in graph.node if node.op_type in ("MatMul", "Gemm"))


def weight_bytes(path: Path) -> int:
    """Bytes of a graph's constants and weights; each is counted once, however often it is used."""
    model = onnx.load(path, load_external_data=False)
    return sum(4 * int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer)


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    left, right, out = (shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0]))
    if not out or not all((*left, *right, *out)):
        raise ValueError(f"the shape of {node.name} is unknown: {left} · {right} = {out}")
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2 * int(np.prod(out, dtype=np.int64)) * left[0 if transposed else -1]
