"""The pass that turns a float32 graph into a typed one.

Before: a graph of ours in float32, its products perhaps with operands of 8 bits. After: the same nodes under the
same names, each in the type that `decisions` gives it; casts where the types of a tensor's maker and reader differ, one
for each tensor and type; inputs and outputs as before, so that engines stay exchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.decisions import PASS, Decision, GraphView, Held, decide
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.formats import FORMATS, Around
from fmmt_deploy.calibration.weights import ELEMENT_TYPES, Weight, lowered
from fmmt_deploy.errors import PrecisionError

__all__ = ["check_typed_graph", "typed_graph"]


def typed_graph(draft: Draft, precision: Precision, keep: Sequence[str] = ()) -> Draft:
    """Runs the pass; no weight is read but those in the graph itself.

    Args:
        draft: The graph, in float32, with or without 8-bit operands.
        precision: The whole graph's from then on. What is low in it gets the type around the products.
        keep: Patterns of names of nodes that are to stay in float32, as in a shell.

    Raises:
        PrecisionError: It is not a float32 graph of ours, a node has no rule, or a constant overflows.
    """
    view = GraphView(draft.model)
    decisions = decide(view, keep)
    rewriting = _Rewriting(draft, view, decisions, FORMATS[precision].around)
    nodes, old = rewriting.nodes(), draft.model
    graph = old.graph
    new = helper.make_graph(nodes, graph.name, graph.input, graph.output, rewriting.initializers())
    opsets = [helper.make_opsetid(opset.domain, opset.version) for opset in old.opset_import]
    typed = helper.make_model(new, opset_imports=opsets, ir_version=old.ir_version, producer_name=old.producer_name)
    check_typed_graph(typed, old)
    held = rewriting.held()
    return replace(draft, precision=precision, model=typed, weights=rewriting.weights, decisions=decisions, held=held)


class _Rewriting:
    """The nodes of a graph, one after the other, each reading its inputs in its own type."""

    def __init__(self, draft: Draft, view: GraphView, decisions: Sequence[Decision], around: Around) -> None:
        self._view, self._old = view, draft.weights
        self.weights: dict[str, Weight] = {}
        types: dict[Held, Around | None] = {"low": around, "fp32": "fp32", "exact": None}
        self._wanted = {d.node: types[d.held] for d in decisions}
        self._made: dict[str, Around] = {name: "fp32" for name in view.inputs if view.is_float(name)}
        self._casts: set[tuple[str, Around]] = set()
        self._uses: dict[str, set[Around]] = {}
        for node in view.nodes:
            for name in node.input:
                if name in view.constants and view.is_float(name) and (wanted := self._wanted[node.name]) is not None:
                    self._uses.setdefault(name, set()).add(wanted)

    def nodes(self) -> list[onnx.NodeProto]:
        """All of them, with casts right before they are first needed."""
        found: list[onnx.NodeProto] = []
        for old in self._view.nodes:
            node = onnx.NodeProto()
            node.CopyFrom(old)
            wanted = self._wanted[node.name]
            for i, name in enumerate(old.input):
                if wanted is not None and self._view.is_float(name):
                    node.input[i] = self._read(name, wanted, found)
            if wanted is not None:
                self._made |= {name: wanted for name in node.output if self._view.is_float(name)}
            found.append(node)
        return found

    def initializers(self) -> list[onnx.TensorProto]:
        """Every constant in the types it is read in; those that nobody reads are left out. Fills `weights`."""
        found = []
        for name, tensor in self._view.constants.items():
            if not self._view.is_float(name):
                found.append(tensor)
                if name in self._old:
                    self.weights[name] = self._old[name]
            for around in sorted(self._uses.get(name, ())):
                new = self._name(name, around)
                if name in self._old:
                    self.weights[new] = self._old[name].lowered(new, around)
                    found.append(_typed(tensor, new, around))
                else:
                    found.append(_converted(tensor, new, around))
        return found

    def held(self) -> dict[str, frozenset[Precision]]:
        """See `TypedGraph.held`."""
        types: dict[str, set[Precision]] = {name: {around} for name, around in self._made.items()}
        for name, around in self._casts:
            types[name].add(around)
        return {name: frozenset(found) for name, found in types.items()}

    def _read(self, name: str, wanted: Around, nodes: list[onnx.NodeProto]) -> str:
        if name in self._view.constants:
            return self._name(name, wanted)
        if self._made[name] == wanted:
            return name
        cast = f"{name}/to_{wanted}"
        if (name, wanted) not in self._casts:
            self._casts.add((name, wanted))
            nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=ELEMENT_TYPES[wanted]))
        return cast

    def _name(self, constant: str, around: Around) -> str:
        return constant if around == "fp32" or len(self._uses[constant]) == 1 else f"{constant}/{around}"


def check_typed_graph(typed: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """The pass's postconditions, by type inference on what it made.

    Raises:
        PrecisionError: An input or output changed, types clash, or a cast changes nothing or undoes another.
    """
    for name, left, right in (
        ("inputs", typed.graph.input, original.graph.input),
        ("outputs", typed.graph.output, original.graph.output),
    ):
        if list(left) != list(right):
            raise PrecisionError(f"The pass '{PASS}' changed the graph's {name}.")
    try:
        inferred = onnx.shape_inference.infer_shapes(typed, check_type=True, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise PrecisionError(f"The pass '{PASS}' made a graph whose types clash.", why=str(error)) from error
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    casts = {node.output[0]: node for node in typed.graph.node if node.op_type == "Cast"}
    floats = set(ELEMENT_TYPES.values())
    for node in casts.values():
        (source,), to = node.input, next(a.i for a in node.attribute if a.name == "to")
        before = casts[source].input[0] if source in casts else source
        if kinds[source] == to or (before != source and {kinds[before], kinds[source], to} <= floats):
            raise PrecisionError(f"The pass '{PASS}' made a needless cast: {node.name}.", tensor=node.output[0])


def _typed(old: onnx.TensorProto, name: str, around: Around) -> onnx.TensorProto:
    """A constant whose data are elsewhere."""
    new = TensorProto(name=name, data_type=ELEMENT_TYPES[around], dims=old.dims)
    new.data_location = TensorProto.EXTERNAL
    return new


def _converted(old: onnx.TensorProto, name: str, around: Around) -> onnx.TensorProto:
    values = lowered(numpy_helper.to_array(old), around, old.name)
    return helper.make_tensor(name, ELEMENT_TYPES[around], old.dims, values.tobytes(), raw=True)
