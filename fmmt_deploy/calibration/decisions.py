"""Which node of a float32 graph computes in the low type and which stays in float32, and why: decided node by node.

Three kinds of rules, in this order. By what a node is: products low; LayerNorm, Softmax, what is added to scores, the
gate and the heads float32. By what it gets and gives, for element-wise operations: those on float32 values stay there,
because rounding first would save no cast and lose digits. And moves, which compute nothing: they move the fewest bytes.

Residual sums are low, as everybody's half-precision BERT has them: in float32 the residual stream would be written and
read twice as wide between all the products, for an error that rounding of the products' inputs dominates anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import onnx
from onnx import TensorProto

from fmmt_deploy.errors import PrecisionError

__all__ = ["ASKED", "MOVE", "OPERAND", "PASS", "Decision", "GraphView", "Held", "decide"]

PASS = "typed graph"
"""This pass's name, for its errors."""

Held: TypeAlias = Literal["low", "fp32", "exact"]
"""What a node computes in: the type asked for, float32, or integers and booleans that no precision touches."""

PRODUCTS = ("Gemm", "MatMul")
MOVES = ("Concat", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Transpose", "Unsqueeze")
ELEMENTWISE = ("Add", "Gelu", "Mul", "Relu", "Sub", "Tanh")
HEADS = ("attention.value.weight", "classifier.weight", "linear.weight")
"""Weights of the last Linears, which make logits, and of the one that makes the scores of pooling. Not `output_layer.2`
of a Swin: its 37632 × 512 weights are most of what a face's head reads, and it makes features, not logits."""

VOICE = "audio_linear.weight"
"""Of the Linear that audio enters by. Where audio is short nearly all of its rows are padding, each the same bias, and
rounded alike: such errors don't cancel out over rows. In float16 a trained model's logits were off 5 times as far."""

ASKED, MOVE, OPERAND = "asked for", "moves values", "operand of 8 bits"
"""Reasons that others ask for."""

_ALLOWED = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.BOOL,
    TensorProto.INT8,
    TensorProto.FLOAT8E4M3FN,
)
"""The last two: operands of 8 bits."""

_FIXED: Mapping[str, str] = {
    "LayerNormalization": "LayerNorm: squares overflow float16, and its epsilon may be 0 there",
    "Softmax": "softmax: sums of exponentials",
    "ReduceMax": "masks: sums and comparisons of small integers",
    "ReduceSum": "sums of many numbers",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one node.

    Attributes:
        node: Its name.
        operator: Its ONNX operator.
        held: What it computes in.
        reason: Why it stayed in float32, or what it is.
    """

    node: str
    operator: str
    held: Held
    reason: str


class GraphView:
    """A float32 graph with its types, and who makes and who reads each tensor.

    Args:
        model: It; its weights need not be loaded.

    Raises:
        PrecisionError: It is not a float32 graph of ours: a type is unknown, or of a low precision already.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.kinds = {v.name: v.type.tensor_type.elem_type for v in values}
        self.kinds |= {t.name: t.data_type for t in model.graph.initializer}
        self.nodes: Sequence[onnx.NodeProto] = model.graph.node
        self.constants = {t.name: t for t in model.graph.initializer}
        self.inputs = [v.name for v in model.graph.input]
        self.outputs = {v.name for v in model.graph.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in (*node.input, *node.output):
                self._check(node, name)
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        return self.kinds.get(name) == TensorProto.FLOAT

    def float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """A node's floating-point inputs that are computed, without constants."""
        return [name for name in node.input if self.is_float(name) and name not in self.constants]

    def _check(self, node: onnx.NodeProto, name: str) -> None:
        if name and (kind := self.kinds.get(name, TensorProto.UNDEFINED)) not in _ALLOWED:
            raise PrecisionError(
                f"The pass '{PASS}' takes float32 graphs, but {name} of {node.name} is "
                f"{TensorProto.DataType.Name(kind).lower()}.",
                fix="Give it the float32 graph that `fmmt export` wrote.",
                tensor=name,
            )


def decide(view: GraphView, keep: Sequence[str] = ()) -> tuple[Decision, ...]:
    """Decides every node.

    Args:
        view: The graph.
        keep: Patterns of node names that are to stay in float32, as in a shell.

    Raises:
        PrecisionError: There is no rule for a node.
    """
    decisions: dict[str, Decision] = {}
    sources: dict[str, Held] = dict.fromkeys(view.inputs, "fp32")
    masks = {name for name in view.inputs if name.endswith("mask")}
    for node in view.nodes:
        held, reason = _decided(node, view, sources, masks, keep)
        decisions[node.name] = Decision(node.name, node.op_type, held, reason)
        sources |= dict.fromkeys(node.output, held)
        if _is_made_of(node, masks, view):
            masks |= set(node.output)
    for node in reversed(view.nodes):
        decisions[node.name] = _reconsidered(node, decisions, view)
    return tuple(decisions[node.name] for node in view.nodes)


def _decided(
    node: onnx.NodeProto, view: GraphView, sources: Mapping[str, Held], masks: set[str], keep: Sequence[str]
) -> tuple[Held, str]:
    kind, scope = node.op_type, node.name.split("/")[0]
    if not any(view.is_float(name) for name in (*node.input, *node.output)) or kind == "Shape":
        return "exact", "integers, booleans and shapes"
    if any(fnmatchcase(node.name, pattern) for pattern in keep):
        return "fp32", ASKED
    if scope == "gate":
        return "fp32", "the gate: which faces count must not depend on rounding"
    if kind in _FIXED:
        return "fp32", _FIXED[kind]
    if kind == "Add" and any(c.op_type == "Softmax" for c in view.consumers.get(node.output[0], ())):
        return "fp32", "masks and biases added to scores: −10000 leaves float16 no digits"
    if kind in PRODUCTS:
        return _product(node, scope)
    if kind == "DequantizeLinear":  # an operand: in the type of its product, or no engine would see the two as one
        return _decided(view.consumers[node.output[0]][0], view, sources, masks, keep)[0], OPERAND
    if kind == "QuantizeLinear":
        return _source(node, view, sources), OPERAND
    if kind == "Cast" or not view.is_float(node.output[0]):
        return "fp32", "between floats and integers: masks, pixels, comparisons"
    if node.output[0] in view.outputs:
        return "fp32", "an output: engines stay exchangeable"
    if kind == "Gather" and node.input[0] in view.constants:
        return "low", "look-up: its rows are weights"
    if kind in ELEMENTWISE:
        return _elementwise(node, view, sources, masks)
    if kind in MOVES:
        return _source(node, view, sources), MOVE
    raise PrecisionError(
        f"The pass '{PASS}' has no rule for {kind} {node.name!r}.",
        why="Nothing is silently left in a precision or taken out of it.",
        fix="Please report it; or keep the graph in float32.",
        tensor=node.output[0],
    )


def _product(node: onnx.NodeProto, scope: str) -> tuple[Held, str]:
    if any(name in HEADS for name in node.input):
        return "fp32", "a head: logits, and the scores of pooling"
    if VOICE in node.input:
        return "fp32", "where audio enters: rows of padding are all alike, and so are their errors"
    if node.op_type == "MatMul" and scope == "attention":
        return "fp32", "the pooled sum: of hundreds of rows"
    return "low", "matrix product"


def _elementwise(
    node: onnx.NodeProto, view: GraphView, sources: Mapping[str, Held], masks: set[str]
) -> tuple[Held, str]:
    if _is_made_of(node, masks, view):
        return "fp32", "masks: from integers, up to −10000"
    if node.name.split("/")[0].endswith("embeddings"):
        return "fp32", "the embedding sum: before any LayerNorm"
    if _source(node, view, sources) == "fp32":
        return "fp32", "on float32 values: pixels, words, positions"
    return "low", "activation, scale or sum of products"


def _source(node: onnx.NodeProto, view: GraphView, sources: Mapping[str, Held]) -> Held:
    """Low if any of what it reads is."""
    return "low" if any(sources[name] == "low" for name in view.float_inputs(node)) else "fp32"


def _is_made_of(node: onnx.NodeProto, masks: set[str], view: GraphView) -> bool:
    """Whether a node computes with masks, and constants, alone."""
    if node.op_type == "Cast" and view.is_float(node.output[0]):
        return view.kinds[node.input[0]] in (TensorProto.INT64, TensorProto.BOOL)
    inputs = view.float_inputs(node)
    return bool(inputs) and all(name in masks for name in inputs)


def _reconsidered(node: onnx.NodeProto, decisions: Mapping[str, Decision], view: GraphView) -> Decision:
    """With all that reads it decided: a float32 move that only feeds low nodes, a low operation that feeds a head."""
    decision = decisions[node.name]
    readers = {decisions[c.name].held for c in view.consumers.get(node.output[0], ())} - {"exact"}
    if decision.reason == MOVE and decision.held == "fp32" and readers == {"low"}:
        return Decision(decision.node, decision.operator, "low", decision.reason)
    alone = node.op_type in ELEMENTWISE and len(view.float_inputs(node)) == 1
    if alone and decision.held == "low" and readers == {"fp32"}:
        return Decision(decision.node, decision.operator, "fp32", "right before a float32 head")
    return decision
