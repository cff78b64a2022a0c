"""A graph's nodes as people speak of them: layers, and the single nodes within; and what it costs to keep some back.

Nodes are named `<scope>/<operator>_<number>` (see `export.builder`), and a scope is a layer, as
`backbone.layers.2.blocks.3`, `plm.encoder.layer.17`, `CrossModalTrans_TA.layers.0`. A node without a scope is a layer
of its own. Only nodes that the precision touches count: those that it has no say in can't be to blame, and keeping them
back would change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import TYPICAL, products_of
from fmmt_deploy.calibration.decisions import MOVE, GraphView, decide
from fmmt_deploy.calibration.formats import FORMATS
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.types import GraphName

__all__ = ["BYTES", "Cost", "Layer", "LayeredGraph", "layered_graph", "quantised_products"]

BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8-fp32": 1, "int8": 1, "fp8": 1}
"""Of a weight that a product reads, in each precision."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What keeping nodes back costs.

    Attributes:
        flops_share: The share of the graph's matrix-product FLOPs that stay in the wider type, 0 to 1.
        weight_bytes: How many bytes of weights more there are.
    """

    flops_share: float = 0.0
    weight_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops_share + other.flops_share, self.weight_bytes + other.weight_bytes)


@dataclass(frozen=True, slots=True)
class Layer:
    """Nodes that are kept back together: those of a scope, or a single one.

    Attributes:
        name: The scope, or the node.
        nodes: Those that the precision touches, in the graph's order.
        patterns: What names them to `--keep-float32` and `--keep-back`.
        cost: Of keeping them back.
    """

    name: str
    nodes: tuple[str, ...]
    patterns: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class LayeredGraph:
    """A float32 graph, seen from a precision that it could have.

    Attributes:
        graph: Its name.
        precision: What it could be computed in.
        layers: All that the precision touches, in the graph's order.
        flops: Of all its matrix products, at the sizes that were asked about.
        low_flops: Of those that the precision touches.
        constant_bytes: Of its weights and constants in float32.
        costs: Of keeping back each node.
        kept: Nodes that the precision would touch, but that are kept back in any case.
    """

    graph: GraphName
    precision: Precision
    layers: tuple[Layer, ...]
    flops: int
    low_flops: int
    constant_bytes: int
    costs: Mapping[str, Cost]
    kept: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node that the precision touches."""
        return tuple(node for layer in self.layers for node in layer.nodes)

    @property
    def wide(self) -> Precision:
        """What products compute in that are kept back."""
        around = FORMATS[self.precision].around
        return "fp32" if around == self.precision else around

    def within(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """Each node of some layers, as a layer of its own."""
        return tuple(_layer(node, [node], self.costs) for layer in layers for node in layer.nodes)

    def keep(self, layers: Sequence[Layer]) -> tuple[str, ...]:
        """What names layers, or single nodes of them, shortest, besides those that are kept back in any case.

        A pattern for each layer of which all nodes are among them, and the nodes' names of other layers.
        """
        names = {node for layer in layers for node in layer.nodes}
        patterns = list(self.kept)
        for layer in self.layers:
            mine = [node for node in layer.nodes if node in names]
            patterns += layer.patterns if len(mine) == len(layer.nodes) else mine
        return tuple(patterns)

    def cost_of(self, layers: Iterable[Layer]) -> Cost:
        """Of keeping all of them back."""
        return sum((layer.cost for layer in layers), Cost())


def layered_graph(
    graph: GraphName,
    path: Path,
    precision: Precision,
    dims: Mapping[str, int] = TYPICAL,
    only: Collection[str] | None = None,
) -> LayeredGraph:
    """Groups a graph's nodes; no weight is read.

    Args:
        graph: The graph's name.
        path: Its float32 ONNX file.
        precision: What it is to be computed in; in 8 bits only products of weights count, because only they can be
            kept back.
        dims: A number for each named dimension of its inputs, to count FLOPs with.
        only: Nodes that may be low; others are kept back in any case. Default all.

    Raises:
        PrecisionError: It is not a float32 graph of ours.
        BundleError: Its work can't be told.
        ValueError: The precision is float32, in which nothing is low.
    """
    if precision == "fp32":
        raise ValueError("float32 touches no node")
    model = onnx.load(path, load_external_data=False)
    view = GraphView(model)
    flops = {product.node: product.flops for product in products_of(model, dims)}
    could = _touched(view, precision)
    touched = could if only is None else could & set(only)
    total = sum(flops.values())
    costs = {node.name: _cost(node, view, flops, total, precision) for node in view.nodes if node.name in touched}
    scopes: dict[str, list[str]] = {}
    for name in costs:
        scopes.setdefault(name.rpartition("/")[0] or name, []).append(name)
    return LayeredGraph(
        graph=graph,
        precision=precision,
        layers=tuple(_layer(scope, names, costs) for scope, names in scopes.items()),
        flops=total,
        low_flops=sum(count for name, count in flops.items() if name in touched),
        constant_bytes=sum(4 * prod(t.dims) for name, t in view.constants.items() if view.is_float(name)),
        costs=costs,
        kept=tuple(node.name for node in view.nodes if node.name in could - touched),
    )


def quantised_products(path: Path) -> frozenset[str]:
    """Names of the products of a graph that have operands of 8 bits."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    weights = [n.name for n in nodes if n.op_type == "DequantizeLinear" and n.name.endswith("/weight")]
    return frozenset(name.removesuffix("/weight") for name in weights)


def _touched(view: GraphView, precision: Precision) -> set[str]:
    """Nodes that would be low. Moves compute nothing, and are in whatever type they get."""
    if FORMATS[precision].operands is not None:
        return {site.node for site in sites_of(view)}
    return {decision.node for decision in decide(view) if decision.held == "low" and decision.reason != MOVE}


def _cost(node: onnx.NodeProto, view: GraphView, flops: Mapping[str, int], total: int, precision: Precision) -> Cost:
    form = FORMATS[precision]
    wide = BYTES["fp32" if form.operands is None else form.around]
    inputs = set(node.input if form.operands is None else node.input[1:2])  # biases never have 8 bits
    numbers = sum(prod(view.constants[name].dims) for name in inputs & view.constants.keys() if view.is_float(name))
    return Cost(flops.get(node.name, 0) / (total or 1), numbers * (wide - BYTES[precision]))


def _layer(name: str, nodes: Sequence[str], costs: Mapping[str, Cost]) -> Layer:
    patterns = (name,) if name in nodes else (f"{name}/*",)
    return Layer(name, tuple(nodes), patterns, sum((costs[node] for node in nodes), Cost()))
