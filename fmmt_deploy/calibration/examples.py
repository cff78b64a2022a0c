"""A few batches of calibration data with the float32 graphs' answers: what a new graph is held against at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.observing import CaseInputs, Inputs, observe_graphs
from fmmt_deploy.calibration.quantisers import sqnr_db
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import HOST_FACE_BATCH, Array, Engine
from fmmt_deploy.errors import ParityError
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MIN_SQNR_DB", "Example", "check_sqnr", "examples_from_cases", "sqnr_of_engine"]

MIN_SQNR_DB = 10.0
"""A graph whose own answers have more noise is refused: it is wrong all over. Sane ones were measured to have 14 dB (a
Swin of random weights in fp8) to 68 dB, those with every range four times too narrow 2 to 33 dB. One range that is off
costs less (4 times: at most 28 of 50 dB in the demo's fusion, 10 of 33 in its Swin): the audit tells that, not this."""


@dataclass(frozen=True, slots=True)
class Example:
    """One batch of one graph: what it was given, and its floating-point answers in float32."""

    inputs: Inputs
    outputs: Inputs


class _Recorder:
    """Keeps batches of one graph."""

    def __init__(self, outputs: Iterable[str]) -> None:
        self._outputs = tuple(outputs)
        self._seen: list[tuple[Inputs, dict[str, list[Array]]]] = []

    def begin(self, inputs: Inputs) -> None:
        """A batch begins."""
        self._seen.append((dict(inputs), {name: [] for name in self._outputs}))

    def observe(self, name: str, tensor: Tensor) -> None:
        """Faces come some at a time."""
        if name in self._outputs and tensor.is_floating_point():
            self._seen[-1][1][name].append(tensor.numpy().copy())

    @property
    def count(self) -> int:
        """How many batches were seen."""
        return len(self._seen)

    def examples(self) -> tuple[Example, ...]:
        """All that was seen."""
        return tuple(
            Example(inputs, {name: np.concatenate(parts) for name, parts in outputs.items() if parts})
            for inputs, outputs in self._seen
        )


def examples_from_cases(
    bundle: Bundle, graphs: Iterable[GraphName], cases: Iterable[CaseInputs], threads: int, count: int = 4
) -> dict[GraphName, tuple[Example, ...]]:
    """The first batches of each graph, with float32's answers; see `observe_graphs`.

    Some batches have no faces: then others with faces are looked for, as many as for the other graphs.
    """
    recorders: dict[GraphName, _Recorder] = {}
    for graph in graphs:
        model = onnx.load(bundle.graph(graph), load_external_data=False)
        recorders[graph] = _Recorder(value.name for value in model.graph.output)
    observe_graphs(bundle, recorders, _needed(cases, recorders, count), threads)
    return {graph: recorder.examples() for graph, recorder in recorders.items()}


def _needed(cases: Iterable[CaseInputs], recorders: Mapping[GraphName, _Recorder], count: int) -> Iterator[CaseInputs]:
    """The cases with something of a graph that has not seen enough yet; none is read when all have."""
    cases = iter(cases)
    while lacking := [graph for graph, recorder in recorders.items() if recorder.count < count]:
        case = next((case for case in cases if any(graph in case for graph in lacking)), None)
        if case is None:
            return
        yield case


def sqnr_of_engine(engine: Engine, examples: Iterable[Example]) -> dict[str, float]:
    """Of each floating-point output over all examples, in dB; padded tokens are left out.

    Args:
        engine: Of the graph that the examples are of.
        examples: At least one.
    """
    right: dict[str, list[Array]] = {}
    found: dict[str, list[Array]] = {}
    for example in examples:
        rows = HOST_FACE_BATCH if "faces" in example.inputs else None
        outputs = arrays_from_values(engine.start(example.inputs, rows))
        for name, expected in example.outputs.items():
            real = _real(example.inputs, expected)
            right.setdefault(name, []).append(expected[real].ravel())
            found.setdefault(name, []).append(outputs[name][real].ravel())
    return {name: sqnr_db(np.concatenate(right[name]), np.concatenate(found[name])) for name in right}


def check_sqnr(graph: GraphName, what: str, sqnr: Mapping[str, float], least_db: float = MIN_SQNR_DB) -> None:
    """Refuses a graph whose answers are mostly noise.

    Args:
        graph: Which.
        what: Its precision, for the message.
        sqnr: By output, in dB.
        least_db: What each must have.

    Raises:
        ParityError: One has less; or there is none, so that nothing was compared.
    """
    if not sqnr:
        raise ParityError(
            f"{graph} in {what} was held against nothing: no batch of the data reaches it.",
            fix="Calibrate on more or other data.",
        )
    for name, db in sqnr.items():
        if not db >= least_db:
            raise ParityError(
                f"{graph} in {what} answers with too much noise: {name} has {db:.1f} dB, at least {least_db:g} dB are "
                "needed.",
                why="Ranges don't fit, or the graph has a product that 8 bits are not enough for.",
                fix="Look at the audit with --dry-run; try another --method or --smooth, or --keep-back for the worst "
                "products: `fmmt triage` finds them in a graph that a lower --min-sqnr lets through.",
                tensor=name,
            )


def _real(inputs: Inputs, output: Array) -> Array:
    mask = inputs.get("attention_mask")
    return np.ones(output.shape[:1], bool) if mask is None else np.asarray(mask, bool)
