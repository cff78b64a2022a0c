"""The face gate in float64: how sure it is of each face, and which faces passed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmmt_deploy.evaluation.scores import DoubleArray, probabilities
from fmmt_deploy.types import BoolArray, FloatArray

__all__ = ["confidences", "exact_threshold", "passed_faces"]


def confidences(face_logits: FloatArray, tau: float, noise: FloatArray | None = None) -> DoubleArray:
    """Σp² of every face, (N,), p = softmax((logits + noise) / tau): what the gate compares with its threshold.

    Args:
        face_logits: (N, 7).
        tau: Temperature.
        noise: (N, 7); default none.
    """
    noisy = face_logits.astype(np.float64) + (0.0 if noise is None else noise)
    squared: DoubleArray = np.square(probabilities(noisy / tau)).sum(axis=1)
    return squared


def exact_threshold(threshold: float) -> float:
    """The threshold as the graph holds it: rounded to float32."""
    return float(np.float32(threshold))


def passed_faces(margins: DoubleArray, kept: Sequence[int]) -> BoolArray:
    """Which faces of an utterance passed the gate, (F,).

    The faces that were kept say so, but where all were, either all passed or none: then the margins decide, as a whole.
    So a face that lies within float32's rounding of the threshold is told as the graph decided it.

    Args:
        margins: Σp² − threshold of its faces, (F,).
        kept: Which faces it was answered with.
    """
    passed = np.zeros(len(margins), np.bool_)
    if len(kept) < len(margins):
        passed[list(kept)] = True
    else:
        passed[:] = (-margins).max(initial=0.0) < margins.max(initial=0.0)
    return passed
