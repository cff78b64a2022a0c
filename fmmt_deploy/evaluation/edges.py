"""A hard decision, made many times: how far from its edge the reference is, and what an engine's error does there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from fmmt_deploy.evaluation.scores import DoubleArray
from fmmt_deploy.types import BoolArray

__all__ = ["NEIGHBOURS", "Crossing", "Edge", "ErrorSize", "Histogram", "edge_from_margins"]

NEIGHBOURS = 200
"""Errors of so many decisions, those nearest the edge, stand for the error at the edge."""

SMALLEST = 1e-8
"""Margins below this share the first bin: float32 says nothing about them."""


@dataclass(frozen=True, slots=True)
class ErrorSize:
    """Percentiles of |margin of the engine − margin of the reference|."""

    p50: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of |margin|; bin i holds `edges[i]` ≤ |margin| < `edges[i + 1]`, and all bins together hold all."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A decision that the engine takes otherwise.

    Attributes:
        utterance: Its id.
        face: Which of its faces, from 0; None where the decision is about the utterance.
        reference_margin: The reference's.
        margin: The engine's, on the same scale: on the other side of 0.
    """

    utterance: str
    face: int | None
    reference_margin: float
    margin: float


@dataclass(frozen=True, slots=True)
class Edge:
    """One kind of hard decision, of all faces or utterances.

    Attributes:
        name: `gate` or `decision`.
        count: How many decisions.
        error: How far the engine's margins are from the reference's.
        near: How many lie no further from the edge than the engine's own error at that very decision.
        within_largest: How many lie no further from it than the largest error seen at any.
        crossed: How many the engine takes otherwise.
        expected: How many crossings these margins and errors make likely. The errors of the `NEIGHBOURS` decisions
            nearest the edge are taken as equally likely at each: where luck let none cross, this still says what
            another data set of this kind would show. It holds as far as the error does not depend on the margin there.
        histogram: Of the reference's |margin|, in half decades.
        items: Those that crossed, the nearest to the edge first.
    """

    name: str
    count: int
    error: ErrorSize
    near: int
    within_largest: int
    crossed: int
    expected: float
    histogram: Histogram
    items: tuple[Crossing, ...]


def edge_from_margins(
    name: str,
    places: Sequence[tuple[str, int | None]],
    reference: DoubleArray,
    margins: DoubleArray,
    sides: BoolArray,
    crossed: BoolArray,
) -> Edge:
    """What an engine's error does to a hard decision.

    Args:
        name: Of the decision.
        places: (n,), the utterance and face of each.
        reference: (n,), the reference's margins: signed distances to the edge.
        margins: (n,), the engine's.
        sides: (n,), on which side the reference decided: True above the edge.
        crossed: (n,), where the engine decided otherwise.
    """
    errors = margins - reference
    sizes, distances = np.abs(errors), np.abs(reference)
    largest = float(sizes.max(initial=0.0))
    p50, p99 = np.quantile(sizes, [0.5, 0.99]) if len(sizes) else (0.0, 0.0)
    order = sorted(np.flatnonzero(crossed).tolist(), key=lambda i: (distances[i], i))
    return Edge(
        name=name,
        count=len(reference),
        error=ErrorSize(float(p50), float(p99), largest),
        near=int(((distances <= sizes) & (sizes > 0)).sum()),
        within_largest=int((distances <= largest).sum()) if largest else 0,
        crossed=len(order),
        expected=_expected(reference, errors, sides),
        histogram=_histogram(distances),
        items=tuple(Crossing(*places[i], float(reference[i]), float(margins[i])) for i in order),
    )


def _expected(reference: DoubleArray, errors: DoubleArray, sides: BoolArray) -> float:
    """Mean number of crossings if each decision had the error of one of those nearest the edge."""
    if not len(reference):
        return 0.0
    nearest = errors[np.argsort(np.abs(reference), kind="stable")[:NEIGHBOURS]]
    above, below = np.sort(reference[sides]), np.sort(-reference[~sides])
    crossing = np.searchsorted(above, -nearest, "left") + np.searchsorted(below, nearest, "left")
    return float(crossing.mean())


def _histogram(distances: DoubleArray) -> Histogram:
    """Half decades, the same for every engine; below the smallest margin one bin from 0."""
    found = distances[distances >= SMALLEST]
    if not len(found):
        return Histogram((0.0, SMALLEST), (len(distances),))
    first, last = floor(2 * log10(found.min())), ceil(2 * log10(found.max()))
    first -= 10 ** (first / 2) > found.min()  # a logarithm that was rounded up to the power
    last += 10 ** (last / 2) <= found.max()  # a power itself, or rounded to it
    edges = [0.0, *(10 ** (k / 2) for k in range(first, last + 1))]
    counts = np.histogram(distances, edges)[0]
    return Histogram(tuple(edges), tuple(counts.tolist()))
