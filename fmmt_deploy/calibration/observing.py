"""Runs a bundle's float32 graphs over cases, while observers see every tensor; nothing of a case is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import HOST_FACE_BATCH, Array, Engine
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CaseInputs", "Inputs", "Observer", "observe_graphs"]

Inputs = Mapping[str, Array]
CaseInputs: TypeAlias = Mapping[GraphName, Inputs]
"""For each graph its inputs, without those that other graphs compute (`token_states`, `face_logits`): these are
computed. A case may lack graphs, and then what they would compute must be given."""


class Observer(Protocol):
    """Sees one graph's tensors."""

    def begin(self, inputs: Inputs) -> None:
        """Called before each case, with the graph's inputs."""
        ...

    def observe(self, name: str, tensor: Tensor) -> None:
        """Called with each tensor of the graph, as soon as it is there."""
        ...


def observe_graphs(
    bundle: Bundle,
    observers: Mapping[GraphName, Observer],
    cases: Iterable[CaseInputs],
    threads: int,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Runs the float32 graphs on cases; each is read once and forgotten.

    Cases that follow each other with the same text, as those of a long dialogue have, are encoded once, and `plm` is
    observed once: or a dialogue's words would count as often as its utterances come in batches.

    Args:
        bundle: The bundle.
        observers: One for each graph that is of interest; others run only where their outputs are needed.
        cases: See `CaseInputs`.
        threads: To compute with.
        done: Called after each case.

    Raises:
        DataError: An observer refuses an input.
        PrecisionError: An observer refuses what a graph computes.
    """
    with ExitStack() as stack:
        engines: dict[GraphName, Engine] = {}
        for graph in graphs_of(bundle.manifest.architecture):
            observe = observers[graph].observe if graph in observers else None
            engines[graph] = engine_from_onnx(graph, bundle.graph(graph), threads, observe)
            stack.callback(engines[graph].close)
        text = _LastText()
        for case in cases:
            _run_case(engines, case, observers, text)
            done()


class _LastText:
    """The last text that was encoded, and its token states."""

    def __init__(self) -> None:
        self._inputs: Inputs = {}
        self._outputs: dict[str, Array] = {}

    def keep(self, inputs: Inputs, outputs: dict[str, Array]) -> None:
        self._inputs, self._outputs = inputs, outputs

    def outputs_of(self, inputs: Inputs) -> dict[str, Array]:
        """Nothing, if it was another text."""
        same = self._inputs.keys() == inputs.keys()
        return self._outputs if same and all(np.array_equal(inputs[n], self._inputs[n]) for n in inputs) else {}


def _run_case(
    engines: Mapping[GraphName, Engine], case: CaseInputs, observers: Mapping[GraphName, Observer], text: _LastText
) -> None:
    computed: dict[str, Array] = {}
    for graph in engines:  # those that compute others' inputs come first
        if graph in case and (graph in observers or "fusion" in observers):
            if graph == "plm" and (known := text.outputs_of(case[graph])):
                computed |= known
                continue
            given = case[graph]
            lacking = engines[graph].inputs.keys() - given.keys()
            inputs = {**given, **{name: computed[name] for name in lacking}}
            if graph in observers:
                observers[graph].begin(inputs)
            outputs = engines[graph].start(inputs, HOST_FACE_BATCH if graph == "swin" else None)
            computed |= arrays_from_values(outputs)
            if graph == "plm":
                text.keep(given, arrays_from_values(outputs))
