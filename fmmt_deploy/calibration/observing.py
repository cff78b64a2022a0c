"""Runs a bundle's float32 graphs over cases, while observers see every tensor; nothing of a case is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeAlias

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
        for case in cases:
            _run_case(engines, case, observers)
            done()


def _run_case(engines: Mapping[GraphName, Engine], case: CaseInputs, observers: Mapping[GraphName, Observer]) -> None:
    computed: dict[str, Array] = {}
    for graph in engines:  # those that compute others' inputs come first
        if graph in case and (graph in observers or "fusion" in observers):
            given = case[graph]
            lacking = engines[graph].inputs.keys() - given.keys()
            inputs = {**given, **{name: computed[name] for name in lacking}}
            if graph in observers:
                observers[graph].begin(inputs)
            outputs = engines[graph].start(inputs, HOST_FACE_BATCH if graph == "swin" else None)
            computed |= arrays_from_values(outputs)
