"""Two runs' difference of weighted F1 over resampled dialogues: weights drawn, counts multiplied, scores read off.

The bootstrap is the Bayesian one (Rubin 1981): a resample gives each dialogue a share of the whole that is drawn at
random, instead of drawing whole dialogues several times or not at all. Means and spreads are those of the usual
bootstrap; what is gained is a share for a dialogue that was not seen, see `equivalence`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.evaluation.scores import CLASSES, DoubleArray
from fmmt_deploy.types import IntArray

__all__ = ["Resamples", "f1_of_tallies", "resampled", "tallies"]

_BLOCK = 2**21
"""Weights that are held at a time: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Resamples:
    """What each of R resamples says. Differences are second half of the runs minus first half, means over the draws.

    A resample has one dialogue more than was seen, as long as the mean one. In the differences it makes none.

    Attributes:
        differences: (R,), of weighted F1.
        classes: (R, 7), of each class's F1.
        unseen: (R,), what one decision of the dialogue that was not seen is worth in weighted F1.
        unseen_classes: (R, 7), the same in the F1 of its class, of which it has one; 0 for a class that never occurs.
    """

    differences: DoubleArray
    classes: DoubleArray
    unseen: DoubleArray
    unseen_classes: DoubleArray


def tallies(labels: IntArray, runs: IntArray, dialogues: IntArray) -> DoubleArray:
    """All that weighted F1 needs of each dialogue: (D, 7 + 14 N), sums over its utterances.

    Columns: how many there are of each class; then for each run, how many it decides for each class, and how many of
    these rightly.

    Args:
        labels: (U,).
        runs: (N, U), decisions.
        dialogues: (U,), numbers from 0.
    """
    count = int(dialogues.max()) + 1

    def counted(classes: IntArray, weights: DoubleArray | None = None) -> DoubleArray:
        found = np.bincount(dialogues * CLASSES + classes, weights, count * CLASSES)
        return found.reshape(count, CLASSES).astype(np.float64)

    parts = [counted(labels)]
    for decisions in runs:
        parts += [counted(decisions), counted(decisions, (decisions == labels).astype(np.float64))]
    return np.concatenate(parts, axis=1)


def f1_of_tallies(totals: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Each run's F1: of each class (…, N, 7), and weighted (…, N).

    Args:
        totals: (…, 7 + 14 N), weighted sums of `tallies`.
    """
    support = totals[..., None, :CLASSES]
    runs = totals[..., CLASSES:].reshape(*totals.shape[:-1], -1, 2, CLASSES)
    either = support + runs[..., 0, :]
    classes = np.divide(2 * runs[..., 1, :], either, out=np.zeros_like(either), where=either > 0)
    weighted: DoubleArray = (classes * support).sum(axis=-1) / support.sum(axis=-1)
    return classes, weighted


def resampled(held: DoubleArray, *, seed: int, resamples: int) -> Resamples:
    """Draws resamples.

    Args:
        held: (D, 7 + 28 K), `tallies` of K runs of the reference and then K of the engine.
        seed: The same seed gives the same resamples.
        resamples: How many.
    """
    blocks = [_scored(weights, held) for weights in _weights(len(held), seed, resamples)]
    return Resamples(*(np.concatenate(part) for part in zip(*blocks, strict=True)))


def _weights(dialogues: int, seed: int, resamples: int) -> Iterator[DoubleArray]:
    """(B, D + 1) at a time: the shares, up to a factor; the last is of the dialogue that was not seen."""
    random, block = np.random.default_rng(seed), max(1, _BLOCK // (dialogues + 1))
    for first in range(0, resamples, block):
        yield random.standard_exponential((min(block, resamples - first), dialogues + 1))


def _scored(weights: DoubleArray, held: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray, DoubleArray]:
    """As in `Resamples`."""
    totals = weights[:, :-1] @ held
    classes, weighted = f1_of_tallies(totals)
    half = weighted.shape[1] // 2
    support, share = totals[:, :CLASSES], weights[:, -1]
    length = held[:, :CLASSES].sum() / len(held)
    unseen = share / (support.sum(axis=1) + share * length)
    unseen_classes = np.divide(share[:, None], support + share[:, None], out=np.zeros_like(support), where=support > 0)
    return (
        (weighted[:, half:].mean(axis=1) - weighted[:, :half].mean(axis=1)) * (1 - unseen * length),
        (classes[:, half:].mean(axis=1) - classes[:, :half].mean(axis=1)) * (1 - unseen_classes),
        unseen,
        unseen_classes,
    )
