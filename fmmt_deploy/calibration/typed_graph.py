"""The pass that turns a float32 graph into a typed one.

Before: a graph of ours in float32, its large weights in the safetensors file beside it. After: the same nodes under the
same names, each in the type that `decisions` gives it; casts where the types of a tensor's maker and reader differ, one
for each tensor and type; inputs and outputs as before, so that engines stay exchangeable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.decisions import PASS, Decision, GraphView, Held, decide
from fmmt_deploy.calibration.weights import ELEMENT_TYPES, WeightPlan, lowered, plan_weights
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.export.builder import WeightFile
from fmmt_deploy.types import GraphName

__all__ = ["TypedGraph", "check_typed_graph", "typed_graph"]


@dataclass(frozen=True)
class TypedGraph:
    """A graph in lower precision, before it is written.

    Attributes:
        graph: Its name.
        precision: The type of what is low in it.
        model: It; external data refer to `<graph>.safetensors` beside it.
        weights: What that file will hold.
        decisions: What became of each node of the float32 graph.
        held: For each floating-point tensor of the float32 graph that is computed or given, the types it is held in.
    """

    graph: GraphName
    precision: Precision
    model: onnx.ModelProto
    weights: WeightPlan
    decisions: tuple[Decision, ...]
    held: Mapping[str, frozenset[Precision]]

    @property
    def casts(self) -> int:
        """How many casts were added."""
        return len(self.model.graph.node) - len(self.decisions)


def typed_graph(graph: GraphName, path: Path, precision: Precision, keep: Sequence[str] = ()) -> TypedGraph:
    """Runs the pass; no weight is read but those in the graph itself.

    Args:
        graph: The graph's name.
        path: Its float32 ONNX file, with its weights beside it.
        precision: `fp16` or `bf16`.
        keep: Patterns of names of nodes that are to stay in float32, as in a shell.

    Raises:
        PrecisionError: It is not a float32 graph of ours, a node has no rule, or a constant overflows.
        ValueError: The precision is another.
    """
    if precision not in ("fp16", "bf16"):
        raise ValueError(f"the pass '{PASS}' makes fp16 and bf16 graphs, not {precision}")
    model = onnx.load(path, load_external_data=False)
    view = GraphView(model)
    decisions = decide(view, keep)
    rewriting = _Rewriting(view, decisions, precision)
    nodes = rewriting.nodes()
    weights = plan_weights(WeightFile.open(path.with_suffix(".safetensors")), rewriting.external_uses())
    old = model.graph
    new = helper.make_graph(nodes, old.name, old.input, old.output, rewriting.initializers(weights, graph))
    opsets = [helper.make_opsetid(opset.domain, opset.version) for opset in model.opset_import]
    typed = helper.make_model(new, opset_imports=opsets, ir_version=model.ir_version, producer_name=model.producer_name)
    check_typed_graph(typed, model)
    return TypedGraph(graph, precision, typed, weights, decisions, rewriting.held())


class _Rewriting:
    """The nodes of a graph, one after the other, each reading its inputs in its own type."""

    def __init__(self, view: GraphView, decisions: Sequence[Decision], precision: Precision) -> None:
        self._view, self._precision = view, precision
        types: dict[Held, Precision | None] = {"low": precision, "fp32": "fp32", "exact": None}
        self._wanted = {d.node: types[d.held] for d in decisions}
        self._made: dict[str, Precision] = {name: "fp32" for name in view.inputs if view.is_float(name)}
        self._casts: set[tuple[str, Precision]] = set()
        self._uses: dict[str, set[Precision]] = {}
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

    def initializers(self, weights: WeightPlan, graph: GraphName) -> list[onnx.TensorProto]:
        """Every constant in the types it is read in; those that nobody reads are left out."""
        found = []
        for name, tensor in self._view.constants.items():
            if not self._view.is_float(name):
                found.append(tensor)
            for precision in sorted(self._uses.get(name, ())):
                new = self._name(name, precision)
                if tensor.data_location == TensorProto.EXTERNAL:
                    found.append(_moved(tensor, new, weights, precision, f"{graph}.safetensors"))
                else:
                    found.append(_converted(tensor, new, precision))
        return found

    def external_uses(self) -> list[tuple[int, Precision]]:
        """Offset in the float32 file, and type, of every weight."""
        return [
            (_external(self._view.constants[name])[0], precision)
            for name, precisions in self._uses.items()
            if self._view.constants[name].data_location == TensorProto.EXTERNAL
            for precision in sorted(precisions)
        ]

    def held(self) -> dict[str, frozenset[Precision]]:
        """See `TypedGraph.held`."""
        types = {name: {precision} for name, precision in self._made.items()}
        for name, precision in self._casts:
            types[name].add(precision)
        return {name: frozenset(found) for name, found in types.items()}

    def _read(self, name: str, wanted: Precision, nodes: list[onnx.NodeProto]) -> str:
        if name in self._view.constants:
            return self._name(name, wanted)
        if self._made[name] == wanted:
            return name
        cast = f"{name}/to_{wanted}"
        if (name, wanted) not in self._casts:
            self._casts.add((name, wanted))
            nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=ELEMENT_TYPES[wanted]))
        return cast

    def _name(self, constant: str, precision: Precision) -> str:
        return constant if precision == "fp32" or len(self._uses[constant]) == 1 else f"{constant}/{precision}"


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


def _external(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Offset and length in its file."""
    entry = {item.key: item.value for item in tensor.external_data}
    return int(entry["offset"]), int(entry["length"])


def _moved(
    old: onnx.TensorProto, name: str, weights: WeightPlan, precision: Precision, location: str
) -> onnx.TensorProto:
    offset, length = weights.place(*_external(old), precision)
    tensor = TensorProto(name=name, data_type=ELEMENT_TYPES[precision], dims=old.dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _converted(old: onnx.TensorProto, name: str, precision: Precision) -> onnx.TensorProto:
    values = lowered(numpy_helper.to_array(old), precision, old.name)
    return helper.make_tensor(name, ELEMENT_TYPES[precision], old.dims, values.tobytes(), raw=True)
