"""A data set answered by every mixture of two bundles of engines: each graph the reference's or the engine's.

What `swin` and `plm` answer is computed once a side; only the last graph runs for every mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Array, Engines, Value
from fmmt_deploy.pipeline.noise import Noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction, Served
from fmmt_deploy.types import DataSet, FloatArray, GraphName

__all__ = ["SIDES", "Side", "SwappedRuns", "swapped_runs"]

Side: TypeAlias = Literal["reference", "engine"]
SIDES: tuple[Side, Side] = ("reference", "engine")
_GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion")


@dataclass(frozen=True, slots=True)
class SwappedRuns:
    """The answers of all mixtures, R of them.

    Attributes:
        graphs: What is mixed.
        rows: (R,), the side of each graph; the first row is the reference throughout, the last the engine.
        answers: (R, U), in the data set's order. The first and last row are what each side answers by itself.
    """

    graphs: tuple[GraphName, ...]
    rows: tuple[tuple[Side, ...], ...]
    answers: tuple[tuple[Prediction, ...], ...]

    @property
    def utterances(self) -> tuple[str, ...]:
        """(U,) ids."""
        return tuple(answer.utterance for answer in self.answers[0])

    @property
    def joined(self) -> tuple[tuple[bool, ...], ...]:
        """(R, graphs): which graphs are the engine's."""
        return tuple(tuple(side == "engine" for side in row) for row in self.rows)

    @property
    def logits(self) -> FloatArray:
        """(R, U, 7)."""
        return np.stack([[answer.logits for answer in row] for row in self.answers])


def swapped_runs(
    model: Served,
    reference: Engines,
    engines: Engines,
    dataset: DataSet,
    *,
    noise: Noise = no_noise,
    batch_size: int = 8,
    threads: int = 2,
    advance: Callable[[int], None] = lambda _: None,
) -> SwappedRuns:
    """Answers a data set with every mixture.

    Args:
        model: The bundle of both sides.
        reference: Its float32 graphs, opened.
        engines: Its graphs, opened; stays open, as the reference does.
        dataset: The utterances.
        noise: The same draws for every mixture.
        batch_size: Utterances that are fused together.
        threads: Threads that read faces.
        advance: Told of so many utterances that all mixtures have answered.

    Raises:
        DataError: The data lack what the model needs.
        FmmtError: A mixture answers NaN.
    """
    sides = [Pipeline(model, of, batch_size=batch_size, threads=threads) for of in (reference, engines)]
    if model.architecture.unimodal is not None:
        runs = tuple(tuple(side.in_order(dataset, noise)) for side in sides)
        advance(len(dataset.order))
        return SwappedRuns(("unimodal",), tuple((side,) for side in SIDES), runs)
    rows = tuple(product(SIDES, repeat=len(_GRAPHS)))
    found: list[dict[str, Prediction]] = [{} for _ in rows]
    for group in sides[0].plan(dataset):
        texts = [_Output(side.encode(group)) for side in sides]
        for members in sides[0].steps(group):
            step = sides[0].read(members)
            faces = [_Output(side.look(step)) for side in sides]
            for row, answers in zip(rows, found, strict=True):
                swin, plm, fusion = (SIDES.index(side) for side in row)
                states, logits = _states(texts, plm, fusion), faces[swin].seen_by(swin == fusion)
                pending = sides[fusion].join(members, states, logits, noise)
                answers.update((answer.utterance, answer) for answer in pending.predictions())
            advance(len(members))
    return SwappedRuns(_GRAPHS, rows, tuple(tuple(row[u] for u in dataset.order) for row in found))


class _Output:
    """What one side computed, where it lies; on the host once the other side asks for it."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._array: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = arrays_from_values({"": self._value})[""]
        return self._array

    def seen_by(self, own: bool) -> Value:
        """As it is for the side that computed it, else an array: the two may be on different devices."""
        return self._value if own else self.array


def _states(texts: Sequence[_Output], source: int, reader: int) -> Value:
    """Token states of one side for the fusion of one side, (D, T, H), padded as that side pads its own.

    An engine may take no other T than those it was built for. What padding holds is never read.
    """
    states = texts[source].seen_by(source == reader)
    wanted, found = texts[reader].shape[1], states.shape[1]
    if found == wanted:
        return states
    array = texts[source].array[:, :wanted]
    return np.pad(array, ((0, 0), (0, wanted - array.shape[1]), (0, 0)))
