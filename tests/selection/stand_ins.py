"""Graphs whose noise is known because it is planted: a maker and a judge that compute nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.protocol import Array, Engine, Tensor, Value
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.selection.judgement import F1Change, Judgement
from fmmt_deploy.selection.layers import LayeredGraph
from fmmt_deploy.types import GraphName


@dataclass(frozen=True)
class StandIn:
    """An engine that only knows what it would be."""

    graph: GraphName
    precision: Precision
    keep: tuple[str, ...]
    inputs: Mapping[str, np.dtype[np.float32]] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        raise AssertionError(f"nothing is computed here, of {len(inputs)} inputs")

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        raise AssertionError(f"nothing is computed here, of {len(inputs)} inputs and {rows} rows")

    def close(self) -> None:
        pass


@dataclass
class Planted:
    """Noise by precision and layer; all that is low adds up, and 1 % of noise costs a point of F1 and 1 % of decisions.

    Attributes:
        layers: For each graph and precision, its layers.
        noise: For some precisions and layers of it, the share of the logits' power; others make `background`.
        background: Of a layer that is not named.
        judged: What was judged, in order.
        overflows: A layer whose weights don't fit the precision.
    """

    layers: Mapping[tuple[GraphName, Precision], LayeredGraph]
    noise: Mapping[tuple[Precision, str], float]
    background: float = 0.0
    judged: list[dict[GraphName, tuple[Precision, tuple[str, ...]]]] = field(default_factory=list)
    overflows: tuple[Precision, str] | None = None
    killed_after: float = math.inf

    def make(self, graph: GraphName, precision: Precision, keep: Sequence[str] = ()) -> Engine:
        if self.overflows is not None and self.overflows[0] == precision:
            low = self._low(graph, precision, keep)
            if self.overflows[1] in low:
                raise PrecisionError(f"The weight of {self.overflows[1]} overflows {precision}.")
        return StandIn(graph, precision, tuple(keep))

    def judge(self, engines: Mapping[GraphName, Engine]) -> Judgement:
        if len(self.judged) >= self.killed_after:
            raise KeyboardInterrupt
        noise, seen = 0.0, {}
        for graph, engine in engines.items():
            assert isinstance(engine, StandIn)
            assert engine.graph == graph
            seen[graph] = (engine.precision, engine.keep)
            low = self._low(graph, engine.precision, engine.keep)
            noise += sum(self.noise.get((engine.precision, layer), self.background) for layer in low)
        self.judged.append(seen)
        return planted_judgement(tuple(engines), noise)

    def _low(self, graph: GraphName, precision: Precision, keep: Sequence[str]) -> set[str]:
        """Layers of which a node is low."""
        return {
            layer.name
            for layer in self.layers[graph, precision].layers
            if not all(any(fnmatchcase(node, pattern) for pattern in keep) for node in layer.nodes)
        }


def planted_judgement(graphs: tuple[GraphName, ...], noise: float, utterances: int = 1000) -> Judgement:
    """The judgement of so much noise."""
    if not math.isfinite(noise):
        return Judgement(graphs, utterances, (), 0, math.nan, {}, None, None, "logits are NaN")
    changed = tuple(f"u{i}" for i in range(min(utterances, round(noise * utterances))))
    f1 = F1Change(0.7, 0.7 - noise, -noise, -noise, Interval(-2 * noise - 0.01, 0.01, 0.95))
    sqnr = -10 * math.log10(noise) if noise else math.inf
    return Judgement(graphs, utterances, changed, 0, sqnr, dict.fromkeys(graphs, sqnr), f1, None, "")
