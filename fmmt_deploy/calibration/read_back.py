"""Calibration read back from a graph that has it: its scales are all that there is to know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.errors import BundleError
from fmmt_deploy.types import GraphName

__all__ = ["calibration_from_graph"]

_OPERANDS: dict[int, EightBits] = {TensorProto.INT8: "int8", TensorProto.FLOAT8E4M3FN: "fp8"}


def calibration_from_graph(graph: GraphName, path: Path) -> Calibration:
    """What a graph with 8-bit operands was calibrated to; the pass makes the same graph of it again.

    Args:
        graph: Its name.
        path: Its ONNX file, as `fmmt calibrate` wrote it.

    Raises:
        BundleError: It has no operands of 8 bits.
    """
    proto = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in proto.initializer}
    makers = {node.output[0]: node for node in proto.node}
    inputs = {}
    for node in proto.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.name.removesuffix("/quantize")
            scale = float(numpy_helper.to_array(constants[node.input[1]]))
            smoothing = None
            if (before := makers.get(node.input[0])) is not None and before.name == f"{tensor}/smooth":
                smoothing = np.float32(1) / numpy_helper.to_array(constants[before.input[1]]).astype(np.float32)
            largest = LARGEST[_OPERANDS[constants[node.input[2]].data_type]]
            inputs[tensor] = InputScale(tensor, scale * largest, smoothing)
    if not inputs:
        raise BundleError(
            f"{path} has no products with operands of 8 bits.",
            fix="Make such a graph with `fmmt calibrate`.",
            path=path,
        )
    return Calibration(graph, inputs, _wide(proto, constants))


def _wide(proto: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> frozenset[str]:
    """Products in float32 whose neighbours are in another type."""
    operands = {n.output[0]: constants[n.input[1]].data_type for n in proto.node if n.op_type == "DequantizeLinear"}
    if set(operands.values()) == {TensorProto.FLOAT}:
        return frozenset()
    gemms = [node for node in proto.node if node.op_type == "Gemm" and node.input[0] in operands]
    return frozenset(node.name for node in gemms if operands[node.input[0]] == TensorProto.FLOAT)
