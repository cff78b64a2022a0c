"""The pass that gives products operands of 8 bits: explicit Quantize and Dequantize, as engines want to see them.

Before: a graph of ours in float32, without any, and a threshold for each tensor that such a product reads. After: the
same nodes under the same names, and before each product, the Gemm `n` that reads `x`:

    x → [Mul x/smooth] → QuantizeLinear x/quantize → DequantizeLinear n/input ─┐
                              weights (K, N) of 8 bits → DequantizeLinear n/weight ─ Gemm n

`x` is quantised once, however many products read it: so fused queries, keys and values have one scale. Symmetric, no
zero points but 0; one scale a column of int8 weights, one in all for fp8, whose numbers have exponents of their own;
biases stay floating-point (TensorRT refuses others); nothing else has 8 bits, so that a residual sum has neither or
both of its branches in them: neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.quantisers import quantised
from fmmt_deploy.calibration.scales import Calibration, InputScale, rounded_scale
from fmmt_deploy.calibration.sites import Site, sites_of
from fmmt_deploy.calibration.weights import Weight
from fmmt_deploy.errors import PrecisionError

__all__ = ["PASS", "check_quantised_graph", "quantised_graph", "weight_scale"]

PASS = "quantised graph"
"""This pass's name, for its errors."""

_KINDS: dict[EightBits, int] = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
Floats = NDArray[np.float32]

_LARGEST_THRESHOLD = 65504.0 * 127
"""Scales are float16 numbers."""


def quantised_graph(draft: Draft, calibration: Calibration, operands: EightBits, keep: Sequence[str] = ()) -> Draft:
    """Runs the pass; weights are read for their scales, and read again when they are written.

    Args:
        draft: The graph in float32.
        calibration: Its thresholds.
        operands: The type of the operands.
        keep: Patterns of the names of products that are kept out, as in a shell.

    Raises:
        PrecisionError: The graph has operands of 8 bits already, a threshold is missing, or a weight is not finite.
        UsageError: A pattern fits no product.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in draft.model.graph.node):
        raise PrecisionError(
            f"The pass '{PASS}' takes float32 graphs; {draft.graph} is quantised already.",
            fix="Give it the float32 graph that `fmmt export` wrote.",
        )
    sites = sites_of(GraphView(draft.model), keep)
    _check_thresholds(sites, calibration)
    quantising = _Quantising(draft, {site.node: site for site in sites}, calibration, operands)
    nodes = list(quantising.nodes())
    read = {name for node in nodes for name in node.input}
    old = draft.model.graph
    constants = [tensor for tensor in old.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, old.name, old.input, old.output, [*constants, *quantising.constants.values()])
    model = onnx.ModelProto()
    model.CopyFrom(draft.model)
    model.graph.CopyFrom(graph)
    weights = {name: weight for name, weight in draft.weights.items() if name in read} | quantising.weights
    check_quantised_graph(model, sites, operands)
    return replace(draft, model=model, weights=weights)


class _Quantising:
    """The nodes of a graph, one after the other; collects the constants that they need."""

    def __init__(self, draft: Draft, sites: dict[str, Site], calibration: Calibration, operands: EightBits) -> None:
        self._draft, self._sites, self._calibration, self._operands = draft, sites, calibration, operands
        self._kind = _KINDS[operands]
        self._quantised: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}
        self.weights: dict[str, Weight] = {}

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """All of them."""
        for node in self._draft.model.graph.node:
            if node.name in self._sites:
                yield from self._product(self._sites[node.name])
            else:
                yield node

    def _product(self, site: Site) -> Iterator[onnx.NodeProto]:
        found = self._calibration.inputs[site.input]
        scale = self._constant(f"{site.input}/scale", rounded_scale(found.threshold, self._operands))
        zero = self._zero(())
        if site.input not in self._quantised:
            self._quantised.add(site.input)
            source = site.input
            if found.smoothing is not None:
                by = self._constant(f"{site.input}/smoothing", _divisor(found.smoothing))
                yield helper.make_node("Mul", [source, by], [f"{source}/smooth"], name=f"{source}/smooth")
                source = f"{source}/smooth"
            name = f"{site.input}/quantize"
            yield helper.make_node("QuantizeLinear", [source, scale, zero], [name], name=name)
        operands = [f"{site.node}/input", f"{site.node}/weight"]
        yield helper.make_node(
            "DequantizeLinear", [f"{site.input}/quantize", scale, zero], operands[:1], name=operands[0]
        )
        yield self._dequantised_weight(site, found, operands[1])
        bias = [] if site.bias is None else [site.bias]
        yield helper.make_node("Gemm", [*operands, *bias], [site.output], name=site.node)

    def _dequantised_weight(self, site: Site, found: InputScale, name: str) -> onnx.NodeProto:
        stored = site.weight if found.smoothing is None else f"{site.weight} for {site.input}"
        stored = f"{stored}/{self._operands}"
        if stored not in self.weights:
            values = _smoothed(self._draft.weights[site.weight], found)
            scale = weight_scale(values(), self._operands, site.weight)
            self._constant(f"{stored}/scale", scale)
            shape, operands = (site.rows, site.columns), self._operands
            self.weights[stored] = Weight(stored, self._kind, shape, lambda: quantised(values(), scale, operands))
            empty = TensorProto(name=stored, data_type=self._kind, dims=shape, data_location=TensorProto.EXTERNAL)
            self.constants[stored] = empty
        scales = self.constants[f"{stored}/scale"]
        inputs = [stored, scales.name, self._zero(tuple(scales.dims))]
        node = helper.make_node("DequantizeLinear", inputs, [name], name=name)
        if scales.dims:
            node.attribute.append(helper.make_attribute("axis", 1))
        return node

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(values, np.float32), name)
        return name

    def _zero(self, shape: tuple[int, ...]) -> str:
        name = "/".join(("zero", *(str(size) for size in shape)))
        if name not in self.constants:
            count = int(np.prod(shape, dtype=np.int64))
            self.constants[name] = helper.make_tensor(name, self._kind, shape, bytes(count), raw=True)
        return name


def weight_scale(values: Floats, operands: EightBits, name: str) -> Floats:
    """The scales of weights (K, N): (N,) for int8, () for fp8.

    Raises:
        PrecisionError: A weight is not finite.
    """
    if not np.isfinite(values).all():
        raise PrecisionError(f"The weight {name} has values that are not finite.", tensor=name)
    return rounded_scale(np.abs(values).max(axis=0 if operands == "int8" else None), operands)


def _smoothed(weight: Weight, found: InputScale) -> Callable[[], Floats]:
    """Reads weights as (K, N), each row times what its column of the input is divided by."""

    def read() -> Floats:
        values: Floats = np.ascontiguousarray(weight.read().T)
        return values if found.smoothing is None else values / _divisor(found.smoothing)[:, None]

    return read


def _divisor(smoothing: Floats) -> Floats:
    """What the input is multiplied with, and the weights divided by: a float16 number, the same in every type."""
    return (1 / smoothing).astype(np.float16).astype(np.float32)


def _check_thresholds(sites: Sequence[Site], calibration: Calibration) -> None:
    for site in sites:
        found = calibration.inputs.get(site.input)
        if found is None or not 0 < found.threshold <= _LARGEST_THRESHOLD:
            what = "has no threshold" if found is None else f"has the threshold {found.threshold}"
            raise PrecisionError(
                f"The pass '{PASS}' needs one from 0 to 8e6 for all that products read: {site.input} {what}.",
                fix="Calibrate again.",
                tensor=site.input,
            )
        if found.smoothing is not None and found.smoothing.shape != (site.rows,):
            raise PrecisionError(
                f"{site.input} has {site.rows} columns, its smoothing {found.smoothing.shape}.",
                fix="Calibrate again.",
                tensor=site.input,
            )


def check_quantised_graph(model: onnx.ModelProto, sites: Sequence[Site], operands: EightBits) -> None:
    """The pass's postconditions, by type inference on what it made.

    Raises:
        PrecisionError: Types clash; a product lacks an operand of 8 bits; or something else reads one.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise PrecisionError(f"The pass '{PASS}' made a graph whose types clash.", why=str(error)) from error
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    makers = {name: node for node in inferred.node for name in node.output}
    wanted = {site.node for site in sites}
    for node in inferred.node:
        read = [makers[name] for name in node.input if name in makers]
        eight = [maker for maker in read if maker.op_type == "DequantizeLinear"]
        if (node.name in wanted) != bool(eight) or (eight and (len(eight) != 2 or node.op_type != "Gemm")):
            raise PrecisionError(f"The pass '{PASS}' left {node.name} half done.", tensor=node.output[0])
        if any(kinds[maker.input[0]] != _KINDS[operands] for maker in eight):
            raise PrecisionError(f"The pass '{PASS}' gave {node.name} other operands.", tensor=node.output[0])
