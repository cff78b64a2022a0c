"""What an engine will need, told before it is built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from fmmt_deploy.engines.tensorrt.profiles import Profile

__all__ = ["Estimate", "estimate_from_onnx"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of an engine, by the graph.

    Attributes:
        weight_bytes: Of its weights and constants; the plan is about as large.
        activation_bytes: Of the inputs and outputs of its largest node, at the largest sizes of any profile; TensorRT
            needs no less unless it fuses that node, and often more.
    """

    weight_bytes: int
    activation_bytes: int


def estimate_from_onnx(path: Path, profiles: Iterable[Profile]) -> Estimate:
    """Estimates an engine's memory.

    Args:
        path: The ONNX file; its weights are not read.
        profiles: The engine's.
    """
    model = onnx.load(path, load_external_data=False)
    weights = sum(_bytes(tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer)
    return Estimate(weights, max(_largest_node_bytes(path, profile) for profile in profiles))


def _largest_node_bytes(path: Path, profile: Profile) -> int:
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in profile:
                axis.dim_value = profile[axis.dim_param].max
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {value.name: _value_bytes(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    return max((_node_bytes(node, sizes) for node in graph.node), default=0)


def _node_bytes(node: onnx.NodeProto, sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in {*node.input, *node.output})


def _value_bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    return _bytes(kind.elem_type, tuple(axis.dim_value for axis in kind.shape.dim))


def _bytes(kind: int, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if kind else 0
