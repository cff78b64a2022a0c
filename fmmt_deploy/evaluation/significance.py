"""Is a difference between two runs more than chance? McNemar's exact test and a paired bootstrap of weighted F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.evaluation.scores import CLASSES, weighted_f1
from fmmt_deploy.types import BoolArray, IntArray

__all__ = ["Interval", "McNemar", "clustered_bootstrap_interval", "mcnemar"]


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test that neither run is right more often than the other; two-sided."""

    only_reference_right: int
    only_candidate_right: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    confidence: float


def mcnemar(reference_right: BoolArray, right: BoolArray) -> McNemar:
    """McNemar's exact test (binomial with p = ½ on the utterances that only one run has right).

    Args:
        reference_right: `(U,)`, which the reference has right.
        right: `(U,)`, which the other run has right.
    """
    only_reference = int(np.sum(reference_right & ~right))
    only_candidate = int(np.sum(~reference_right & right))
    n, fewer = only_reference + only_candidate, min(only_reference, only_candidate)
    term = total = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)  # the next binomial coefficient: exact, and fast where `comb` anew is not
        total += term
    return McNemar(only_reference, only_candidate, min(1.0, 2 * total / 2**n))


def clustered_bootstrap_interval(
    labels: IntArray,
    reference: IntArray,
    decisions: IntArray,
    clusters: IntArray,
    *,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the difference of weighted F1 (run minus reference) over resampled clusters.

    Whole clusters are drawn with replacement, as many as there are: utterances of one dialogue share its speakers,
    its words and its mood, so they say less than as many of different dialogues. A resample has as many utterances as
    its clusters have.

    Args:
        labels: `(U,)`, 0 to 6.
        reference: `(U,)`, the reference's decisions.
        decisions: `(U,)`, the run's decisions.
        clusters: `(U,)`, a number for each utterance's cluster. Of a single cluster, the interval has no width.
        seed: The same seed gives the same interval.
        resamples: How many.
        confidence: 0 to 1.
    """
    seen, cell = np.unique(_cells(labels, reference, decisions), return_inverse=True)
    numbers, cluster = np.unique(clusters, return_inverse=True)
    held = np.bincount(cluster * len(seen) + cell, minlength=len(numbers) * len(seen))
    times = np.random.default_rng(seed).multinomial(
        len(numbers), np.full(len(numbers), 1 / len(numbers)), size=resamples
    )
    # the product in float64, which is exact for counts and has a fast matrix product
    counts = times.astype(np.float64) @ held.reshape(len(numbers), len(seen)).astype(np.float64)
    return _interval(seen, counts.astype(np.int64), confidence)


def _cells(labels: IntArray, reference: IntArray, decisions: IntArray) -> IntArray:
    """One number for each (label, reference, decision)."""
    return (labels * CLASSES + reference) * CLASSES + decisions


def _interval(seen: IntArray, draws: NDArray[np.int64], confidence: float) -> Interval:
    """Percentiles of the difference of F1, from how often each resample drew each cell, `(resamples, seen)`."""
    counts = np.zeros((len(draws), CLASSES, CLASSES, CLASSES), np.int64)
    counts.reshape(len(draws), -1)[:, seen] = draws
    differences = weighted_f1(counts.sum(axis=2)) - weighted_f1(counts.sum(axis=3))
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), confidence)
