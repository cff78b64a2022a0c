"""The calls of engines that answering a dialogue makes: recorded once, to be made again without anything around them.

So the same work is timed at three boundaries: the calls with their inputs on the device, the calls with copies, and all
of the pipeline from files to labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.placing import placed
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.types import GraphName

__all__ = ["Call", "Replay", "moved_bytes", "recorded", "size_bytes"]

Answer = Callable[[Engines], object]
"""Answers something with engines."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an engine.

    Attributes:
        graph: Which.
        arrays: All of its inputs as arrays.
        links: Those that were another call's outputs: its number, and the output's name.
        rows: See `Engine.start`.
    """

    graph: GraphName
    arrays: Mapping[str, Array]
    links: Mapping[str, tuple[int, str]]
    rows: int | None


def recorded(engines: Engines, graphs: Sequence[GraphName], answer: Answer) -> tuple[Call, ...]:
    """The calls that answering makes, in their order.

    Args:
        engines: What computes.
        graphs: Its graphs.
        answer: Answers with the engines it is given.
    """
    calls: list[Call] = []
    made: dict[int, tuple[int, str]] = {}
    kept: list[Tensor] = []  # or another tensor might get the id of one that is gone
    recording = {graph: _Recording(graph, engines[graph], calls, made, kept) for graph in graphs}
    answer(Engines(engines.kind, recording, engines.precisions, engines.face_batch, engines.token_multiple))
    return tuple(calls)


def size_bytes(calls: Sequence[Call]) -> int:
    """Memory of all inputs."""
    return sum(array.nbytes for call in calls for array in call.arrays.values())


def moved_bytes(calls: Sequence[Call], weights: int) -> int:
    """What calls must read at least: those weights once a call, and their inputs."""
    return weights * len(calls) + size_bytes(calls)


class Replay:
    """Makes recorded calls again.

    Args:
        engines: What computes.
        calls: In their order.
        wait: Waits for all that was begun.
        on_device: Whether inputs are put where they are needed beforehand, and outputs stay there.
    """

    def __init__(self, engines: Engines, calls: Sequence[Call], wait: Callable[[], None], on_device: bool) -> None:
        self._engines, self._calls, self._wait, self._on_device = engines, tuple(calls), wait, on_device
        self._inputs = [self._placed(call) for call in self._calls] if on_device else [c.arrays for c in self._calls]

    def graph_ms(self, graph: GraphName) -> float:
        """Milliseconds of all calls of one graph, one after the other, each with all of its inputs given."""
        start = self._begin()
        for call, inputs in zip(self._calls, self._inputs, strict=True):
            if call.graph == graph:
                self._finish(self._engines[graph].start(inputs, call.rows))
        self._wait()
        return 1000 * (perf_counter() - start)

    def all_ms(self) -> float:
        """Milliseconds of all calls, what passes between graphs staying where it is computed, to the last answers."""
        start, outputs = self._begin(), list[Mapping[str, Tensor]]()
        for call, inputs in zip(self._calls, self._inputs, strict=True):
            linked = {name: outputs[number][output] for name, (number, output) in call.links.items()}
            outputs.append(self._engines[call.graph].start({**inputs, **linked}, call.rows))
            if call.graph in _LAST:
                self._finish(outputs[-1])
        self._wait()
        return 1000 * (perf_counter() - start)

    def _begin(self) -> float:
        self._wait()
        return perf_counter()

    def _finish(self, outputs: Mapping[str, Tensor]) -> None:
        if not self._on_device:
            arrays_from_values(outputs)

    def _placed(self, call: Call) -> Mapping[str, Value]:
        return placed(self._engines[call.graph], call.arrays)


_LAST = ("fusion", "unimodal")


class _Recording:
    """Passes calls on, and writes them down."""

    def __init__(
        self,
        graph: GraphName,
        engine: Engine,
        calls: list[Call],
        made: dict[int, tuple[int, str]],
        kept: list[Tensor],
    ) -> None:
        self._graph, self._engine, self._calls, self._made, self._kept = graph, engine, calls, made, kept

    @property
    def inputs(self) -> Mapping[str, np.dtype[np.generic]]:
        return self._engine.inputs

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)  # what some engines have besides, as their ranges of shapes

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        return arrays_from_values(self.start(inputs))

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        links = {name: self._made[id(value)] for name, value in inputs.items() if id(value) in self._made}
        outputs = self._engine.start(inputs, rows)
        number = len(self._calls)
        self._calls.append(Call(self._graph, arrays_from_values(inputs), links, rows))
        for name, tensor in outputs.items():
            self._made[id(tensor)] = number, name
            self._kept.append(tensor)
        return outputs

    def close(self) -> None: ...
