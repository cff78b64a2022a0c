"""The pass that makes ONNX Runtime's CPU provider multiply the integers of a quantised graph.

Its own passes find a quantised `MatMul`, but not a `Gemm` with a floating-point bias, which they leave to be
dequantised and multiplied in float32; and it is fast with unsigned inputs only. So before it sees the graph:

    x → QuantizeLinear int8 → DequantizeLinear ─┐
              weights int8 → DequantizeLinear ─ Gemm + bias
becomes
    x → QuantizeLinear uint8 ─ MatMulIntegerToFloat (com.microsoft) with the weights' bytes and the bias

An unsigned number is the signed one + 128, which is its zero point: the same numbers, the same exact sums in 32 bits.
Weights stay in their file, and are referred to from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.engines.ort.signedness import Signedness
from fmmt_deploy.errors import BundleError, PrecisionError
from fmmt_deploy.types import GraphName

__all__ = ["PASS", "IntegerGraph", "integer_products"]

PASS = "integer products"
"""This pass's name, for its errors."""

_FIX = "Make the graph again with `fmmt calibrate`."
_OFFSET = "offset/uint8"
_HALF = 128


@dataclass(frozen=True, slots=True)
class IntegerGraph:
    """A graph whose quantised products ONNX Runtime multiplies as integers.

    Attributes:
        model: It; external data are where they were.
        products: How many there are.
    """

    model: onnx.ModelProto
    products: int


def integer_products(graph: GraphName, path: Path, weights: Signedness) -> IntegerGraph:
    """Runs the pass.

    Before: each product with quantised operands is a Gemm whose first operand comes from QuantizeLinear and
    DequantizeLinear, and whose second from weights (K, N) and DequantizeLinear; int8, zero points 0, float32 around.
    After: each of them is a MatMulIntegerToFloat, and nothing else is quantised or dequantised.

    Args:
        graph: Which graph it is, for messages.
        path: Its ONNX file.
        weights: How ONNX Runtime is to see them; see `signedness`.

    Raises:
        PrecisionError: What is around is not float32, or operands are not int8.
        BundleError: The file is not an ONNX graph, or its quantised products are of another form.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX graph.", why=str(error), fix=_FIX, path=path) from error
    rewriting = _Rewriting(graph, path, model, weights)
    nodes = list(rewriting.nodes())
    constants = [*model.graph.initializer, *rewriting.constants.values()]
    read = {name for node in nodes for name in node.input}
    kept = {
        tensor.name: tensor for tensor in constants if tensor.name in read
    }  # of one name the later, the changed one
    made = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, list(kept.values()))
    opsets = [*model.opset_import, helper.make_opsetid("com.microsoft", 1)]
    lowered = helper.make_model(made, opset_imports=opsets, ir_version=model.ir_version)
    _check(path, model, lowered)
    return IntegerGraph(lowered, rewriting.products)


class _Rewriting:
    """The nodes of a graph, one after the other; collects the constants that they need."""

    def __init__(self, graph: GraphName, path: Path, model: onnx.ModelProto, weights: Signedness) -> None:
        self._graph, self._path, self._model, self._weights = graph, path, model, weights
        self._given = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._lowered: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}
        self.products = 0

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """All of them."""
        for node in self._model.graph.node:
            match node.op_type:
                case "QuantizeLinear":
                    self._check_scaling(node)
                    inputs = [*node.input[:2], self._offset()]
                    yield helper.make_node(node.op_type, inputs, list(node.output), name=node.name)
                case "DequantizeLinear":
                    self._check_scaling(node)
                case "Gemm" if any(self._dequantised(name) for name in node.input[:2]):
                    yield from self._product(node)
                case _:
                    yield node

    def _product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        left, right = (self._dequantised(name) for name in node.input[:2])
        if left is None or right is None or left.input[0] not in self._makers or node.attribute:
            raise self._unfit(node, "one operand should be quantised, the other weights (K, N), and neither scaled")
        weight, bias = self._given.get(right.input[0]), node.input[2] if len(node.input) > 2 else ""
        axis = {attribute.name: attribute.i for attribute in right.attribute}.get("axis", 1)
        columns = [] if weight is None else list(weight.dims[1:])
        if weight is None or len(columns) != 1 or axis not in (1, -1):
            raise self._unfit(node, "its weights should be a constant (K, N), with a scale for each of the N columns")
        if bias and (bias not in self._given or list(self._given[bias].dims) != columns):
            raise self._unfit(node, "its bias should be a constant (N,)")
        zero = ""
        if self._weights == "unsigned":
            zero = self._offset()
            yield from self._unsigned(weight)
        self.products += 1
        stored = weight.name if self._weights == "signed" else f"{weight.name}/uint8"
        inputs = [left.input[0], stored, left.input[1], right.input[1], self._offset(), zero, bias]
        yield helper.make_node(
            "MatMulIntegerToFloat", inputs, list(node.output), name=node.name, domain="com.microsoft"
        )

    def _unsigned(self, weight: onnx.TensorProto) -> Iterator[onnx.NodeProto]:
        """Weights + 128: their bytes with the highest bit turned over, which ONNX Runtime does once, when it loads."""
        if weight.name not in self._lowered:
            self._lowered.add(weight.name)
            changed = onnx.TensorProto()
            changed.CopyFrom(weight)
            changed.data_type = TensorProto.UINT8
            if weight.data_location != TensorProto.EXTERNAL and not weight.raw_data:
                changed = numpy_helper.from_array(numpy_helper.to_array(weight).view(np.uint8), weight.name)
            self.constants[weight.name] = changed
            name = f"{weight.name}/uint8"
            yield helper.make_node("BitwiseXor", [weight.name, self._offset()], [name], name=name)

    def _dequantised(self, name: str) -> onnx.NodeProto | None:
        maker = self._makers.get(name)
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None

    def _offset(self) -> str:
        self.constants.setdefault(_OFFSET, numpy_helper.from_array(np.array(_HALF, np.uint8), _OFFSET))
        return _OFFSET

    def _check_scaling(self, node: onnx.NodeProto) -> None:
        """The scale and the zero point that a node quantises or dequantises with."""
        scale, zero = (self._given.get(name) for name in (*node.input[1:], "", "")[:2])
        stored = self._given.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        kinds = {tensor.data_type for tensor in (zero, stored) if tensor is not None}
        if scale is None or not kinds:
            raise self._unfit(node, "it should have a constant scale and a zero point")
        if kinds != {TensorProto.INT8} or scale.data_type != TensorProto.FLOAT:
            names = (TensorProto.DataType.Name(kind) for kind in (*sorted(kinds), scale.data_type))
            raise PrecisionError(
                f"ONNX Runtime can't multiply the operands of {self._graph} ({', '.join(names)}) in 8 bits on the CPU.",
                why="Here it has fast products of int8 with float32 around them only.",
                fix="Use int8-fp32, which has the same integers; or, for this graph's numbers, --engine emulated.",
                path=self._path,
                tensor=node.output[0],
            )
        if zero is not None and self._values(zero).any():
            raise self._unfit(node, "its zero point should be 0")
        if node.op_type == "QuantizeLinear" and math.prod(scale.dims) != 1:
            raise self._unfit(node, "it should have one scale")

    def _values(self, tensor: onnx.TensorProto) -> NDArray[np.int8]:
        return np.asarray(numpy_helper.to_array(tensor, str(self._path.parent)), np.int8)

    def _unfit(self, node: onnx.NodeProto, why: str) -> BundleError:
        return BundleError(
            f"The pass '{PASS}' can't take {node.name} of {self._graph}: {why}.",
            fix=_FIX,
            path=self._path,
            tensor=node.output[0],
        )


def _check(path: Path, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """The pass's postconditions.

    Raises:
        BundleError: What read dequantised tensors is no integer product now, or something else reads quantised ones.
    """
    dequantised = {node.output[0] for node in before.graph.node if node.op_type == "DequantizeLinear"}
    wanted = {node.output[0] for node in before.graph.node if dequantised.intersection(node.input)}
    quantised = {node.output[0] for node in after.graph.node if node.op_type == "QuantizeLinear"}
    made = {node.output[0] for node in after.graph.node if node.op_type == "MatMulIntegerToFloat"}
    other = {n.output[0] for n in after.graph.node if n.output[0] not in made and quantised.intersection(n.input)}
    outputs = {value.name for value in after.graph.output} & (dequantised | quantised)
    for name in sorted((wanted ^ made) | other | outputs):
        raise BundleError(
            f"The pass '{PASS}' finds something quantised in {path.name} that is no operand of a Gemm: see {name}.",
            fix=_FIX,
            path=path,
            tensor=name,
        )
