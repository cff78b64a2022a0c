"""The decisions that two runs make differently: which, between which classes, and whether rounding alone can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.evaluation.scores import CLASSES, DoubleArray, probabilities
from fmmt_deploy.rounding import TIE_MARGIN
from fmmt_deploy.types import EMOTIONS, IntArray

__all__ = ["ChangedDecision", "changed_decisions", "flip_counts"]


@dataclass(frozen=True, slots=True)
class ChangedDecision:
    """An utterance that the two runs decide differently.

    Attributes:
        utterance: Its id.
        label: Its true emotion.
        reference: The reference's decision.
        decision: The other run's decision.
        reference_probability: What the reference gives its own decision.
        probability: What the other run gives its own decision.
        margin: By how much the reference's logit of its decision exceeds that of the other run's decision.
        tie: Whether that is so little that rounding can turn it.
        draw: In which draw of the noise, from 0.
    """

    utterance: str
    label: str
    reference: str
    decision: str
    reference_probability: float
    probability: float
    margin: float
    tie: bool
    draw: int


def changed_decisions(
    utterances: Sequence[str], labels: IntArray, reference: DoubleArray, logits: DoubleArray
) -> tuple[ChangedDecision, ...]:
    """Every changed decision, by draw and then in the order of the utterances.

    Args:
        utterances: (U,) ids.
        labels: (U,).
        reference: (K, U, 7), the reference's logits.
        logits: (K, U, 7).
    """
    places = np.argwhere(reference.argmax(axis=2) != logits.argmax(axis=2))
    return tuple(
        _change(utterances[u], int(labels[u]), reference[draw, u], logits[draw, u], draw) for draw, u in places.tolist()
    )


def flip_counts(reference: IntArray, decisions: IntArray) -> tuple[tuple[int, ...], ...]:
    """7 × 7 counts: row the reference's decision, column the other run's.

    Args:
        reference: Any shape.
        decisions: The same shape.
    """
    counts = np.bincount((reference * CLASSES + decisions).ravel(), minlength=CLASSES**2)
    return tuple(tuple(row) for row in counts.reshape(CLASSES, CLASSES).tolist())


def _change(utterance: str, label: int, reference: DoubleArray, logits: DoubleArray, draw: int) -> ChangedDecision:
    before, after = int(reference.argmax()), int(logits.argmax())
    margin = float(reference[before] - reference[after])
    return ChangedDecision(
        utterance,
        EMOTIONS[label],
        EMOTIONS[before],
        EMOTIONS[after],
        float(probabilities(reference).max()),
        float(probabilities(logits).max()),
        margin,
        margin <= TIE_MARGIN,
        draw,
    )
