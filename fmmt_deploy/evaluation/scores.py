"""Classification scores from confusion matrices: weighted F1, and precision, recall, F1 and support of each class.

Those functions take matrices with any leading axes `(…, 7, 7)`, rows the true class and columns the decision, so that a
bootstrap is one call. The definitions are scikit-learn's with `zero_division=0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.types import EMOTIONS, IntArray

__all__ = [
    "ClassScores",
    "DoubleArray",
    "accuracy",
    "class_scores",
    "confusion_matrix",
    "leads",
    "macro_f1",
    "probabilities",
    "weighted_f1",
]

DoubleArray: TypeAlias = NDArray[np.float64]
CLASSES = len(EMOTIONS)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of each class, arrays `(…, 7)`; `support` is the number of utterances of that true class."""

    precision: DoubleArray
    recall: DoubleArray
    f1: DoubleArray
    support: IntArray


def probabilities(logits: NDArray[np.floating]) -> DoubleArray:
    """Softmax over the last axis, in float64, `(…, 7)`."""
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    shares: DoubleArray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def leads(logits: NDArray[np.floating], chosen: IntArray) -> DoubleArray:
    """By how much a class's logit exceeds the largest of the others, `(N,)`; negative where one of them is larger.

    Args:
        logits: `(N, 7)`.
        chosen: `(N,)`, the class.
    """
    exact, rows = logits.astype(np.float64), np.arange(len(logits))
    own = exact[rows, chosen]
    exact[rows, chosen] = -np.inf
    lead: DoubleArray = own - exact.max(axis=1)
    return lead


def confusion_matrix(labels: IntArray, decisions: IntArray) -> IntArray:
    """Counts `(7, 7)`: row the true class, column the decision.

    Args:
        labels: `(U,)`, each 0 to 6.
        decisions: `(U,)`, each 0 to 6.
    """
    counts = np.bincount(labels * CLASSES + decisions, minlength=CLASSES**2)
    return counts.astype(np.int64).reshape(CLASSES, CLASSES)


def class_scores(confusion: IntArray) -> ClassScores:
    """Scores of each class from counts `(…, 7, 7)`; a score without any case is 0."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, decided = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return ClassScores(
        _ratio(right, decided), _ratio(right, support), _ratio(2 * right, support + decided), support.astype(np.int64)
    )


def weighted_f1(confusion: IntArray) -> DoubleArray:
    """Mean of the classes' F1 weighted by support, for counts `(…, 7, 7)`: MELD's own measure. 0 to 1."""
    scores = class_scores(confusion)
    return _ratio((scores.f1 * scores.support).sum(axis=-1), scores.support.sum(axis=-1))


def macro_f1(confusion: IntArray) -> DoubleArray:
    """Plain mean of the seven classes' F1, for counts `(…, 7, 7)`; a class that never occurs counts as 0."""
    mean: DoubleArray = class_scores(confusion).f1.mean(axis=-1)
    return mean


def accuracy(confusion: IntArray) -> DoubleArray:
    """Share of right decisions, for counts `(…, 7, 7)`."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def _ratio(numerator: NDArray[np.int64] | DoubleArray, denominator: NDArray[np.int64]) -> DoubleArray:
    """Quotient, 0 where the denominator is 0."""
    quotient = np.zeros(np.shape(numerator))
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)
