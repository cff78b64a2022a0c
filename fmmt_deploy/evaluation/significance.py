"""Is a difference between two runs more than chance? McNemar's exact test and a paired bootstrap of weighted F1."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from fmmt_deploy.evaluation.scores import CLASSES, weighted_f1
from fmmt_deploy.types import BoolArray, IntArray

__all__ = ["Interval", "McNemar", "bootstrap_interval", "mcnemar"]


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
    p_value = min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)
    return McNemar(only_reference, only_candidate, p_value)


def bootstrap_interval(
    labels: IntArray,
    reference: IntArray,
    decisions: IntArray,
    *,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the difference of weighted F1 (run minus reference) over resampled utterances.

    Utterances are resampled with both runs' decisions. Only how often each (label, reference, decision) occurs matters,
    so a resample is one multinomial draw of those counts. Utterances count as independent, although those of a dialogue
    are not quite.

    Args:
        labels: `(U,)`, 0 to 6.
        reference: `(U,)`, the reference's decisions.
        decisions: `(U,)`, the run's decisions.
        seed: The same seed gives the same interval.
        resamples: How many.
        confidence: 0 to 1.
    """
    cells = np.bincount((labels * CLASSES + reference) * CLASSES + decisions, minlength=CLASSES**3)
    seen = np.nonzero(cells)[0]
    draws = np.random.default_rng(seed).multinomial(len(labels), cells[seen] / len(labels), size=resamples)
    counts = np.zeros((resamples, CLASSES, CLASSES, CLASSES), np.int64)
    counts.reshape(resamples, -1)[:, seen] = draws
    differences = weighted_f1(counts.sum(axis=2)) - weighted_f1(counts.sum(axis=3))
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), confidence)
