"""Whether an engine decides as the reference does, and keeps the same faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.parity.tolerances import StageTolerances
from fmmt_deploy.rounding import TIE_MARGIN
from fmmt_deploy.types import BoolArray, FloatArray

__all__ = ["DecisionComparison", "compare_decisions"]


@dataclass(frozen=True, slots=True)
class DecisionComparison:
    """Decisions and kept faces against the reference's.

    Attributes:
        utterances: How many were compared.
        changed: Rows decided differently, ties left out.
        ties: Rows decided differently where the reference's two logits are at most `TIE_MARGIN` apart.
        kept_changed: Rows whose kept faces differ; None if the model keeps no faces.
        failures: What is wrong; empty if all is as it should be.
    """

    utterances: int
    changed: tuple[int, ...]
    ties: tuple[int, ...]
    kept_changed: tuple[int, ...] | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.failures


def compare_decisions(
    reference_logits: FloatArray,
    logits: FloatArray,
    tolerances: StageTolerances,
    reference_kept: BoolArray | None = None,
    kept: BoolArray | None = None,
) -> DecisionComparison:
    """Compares decisions (the first of the largest logits) and kept faces, utterance by utterance.

    Args:
        reference_logits: `(U, 7)`.
        logits: `(U, 7)`.
        tolerances: How many must agree: its `decisions` and `kept`.
        reference_kept: `(U, V)`, which faces the reference keeps, if the model has faces.
        kept: `(U, V)`, which faces the engine keeps.
    """
    problem = _problem(reference_logits, logits, reference_kept, kept)
    if problem:
        return DecisionComparison(0, (), (), None, (problem,))
    reference, decisions = reference_logits.argmax(axis=1), logits.argmax(axis=1)
    rows = np.arange(len(logits))
    margins = reference_logits[rows, reference].astype(np.float64) - reference_logits[rows, decisions]
    different, close = reference != decisions, margins <= TIE_MARGIN
    changed = _rows(different & ~close)
    kept_changed = None if reference_kept is None or kept is None else _rows((reference_kept != kept).any(axis=1))
    failures = (
        _too_many("decisions", changed, len(logits), tolerances.decisions.min_share),
        _too_many("kept faces", kept_changed or (), len(logits), tolerances.kept.min_share),
    )
    return DecisionComparison(
        len(logits), changed, _rows(different & close), kept_changed, tuple(failure for failure in failures if failure)
    )


def _problem(
    reference_logits: FloatArray, logits: FloatArray, reference_kept: BoolArray | None, kept: BoolArray | None
) -> str:
    """Why nothing can be compared, or nothing."""
    if reference_logits.shape != logits.shape:
        return f"expected logits {reference_logits.shape}, found {logits.shape}"
    if not len(logits):
        return "nothing to compare: there is no utterance"
    if not (np.isfinite(reference_logits).all() and np.isfinite(logits).all()):
        return "logits that are NaN or infinite decide nothing"
    shapes = [None if array is None else array.shape for array in (reference_kept, kept)]
    if shapes[0] != shapes[1] or (shapes[0] is not None and shapes[0][0] != len(logits)):
        return f"expected kept faces {shapes[0]} for {len(logits)} utterances, found {shapes[1]}"
    return ""


def _rows(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _too_many(what: str, changed: tuple[int, ...], total: int, min_share: float) -> str:
    if len(changed) <= (1 - min_share) * total:
        return ""
    shown = ", ".join(str(row) for row in changed[:5]) + (" …" if len(changed) > 5 else "")
    return f"{what} of {len(changed)} in {total} utterances differ (at least {min_share:.1%} must agree): rows {shown}"
