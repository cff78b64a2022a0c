"""What judging an engine finds: decisions, noise of the logits, F1 with its uncertainty, and kept faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.evaluation.scores import DoubleArray, confusion_matrix, weighted_f1
from fmmt_deploy.evaluation.significance import Interval, clustered_bootstrap_interval
from fmmt_deploy.selection.rules import EquivalenceRule
from fmmt_deploy.types import GraphName, IntArray

__all__ = ["F1Change", "Judgement", "KeptFaces", "NoiseSum", "f1_change", "kept_faces"]


@dataclass(frozen=True, slots=True)
class F1Change:
    """Weighted F1 against the reference's, 0 to 1. Differences are run minus reference: negative is worse.

    Attributes:
        reference: The reference's F1.
        f1: The run's, as it decided.
        difference: Their difference.
        judged_difference: The difference if ties are decided as the reference did; this is what rules are about.
        interval: Of the difference, by a bootstrap over dialogues; None where all utterances are of one dialogue.
    """

    reference: float
    f1: float
    difference: float
    judged_difference: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class KeptFaces:
    """The gate's decisions against the reference's.

    Attributes:
        faces: How many went through the gate.
        changed: Of how many the decision changed.
        near: How many lie so near the threshold that the largest error seen could change them.
        largest_error: Of Σp², the confidence that the threshold is compared with.
    """

    faces: int
    changed: int
    near: int
    largest_error: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Engines of some graphs against the reference.

    Attributes:
        graphs: Those that were judged; all others answered as the reference did.
        utterances: How many were compared.
        changed: Ids of those that are decided differently, or not at all; ties are left out.
        ties: How many are decided differently where the reference's two logits are as good as equal.
        sqnr_db: Of the logits, end to end: 10·log10(Σ reference² / Σ error²). Infinite if equal, NaN if not finite.
        outputs_sqnr_db: Likewise of what `swin` and `plm` themselves answer (of states of padding nothing), if judged.
        f1: None where a label is missing, or the answers are not finite.
        kept: None if the model has no gate or the data no faces, or the answers are not finite.
        not_finite: What is NaN or infinite; empty if nothing is.
    """

    graphs: tuple[GraphName, ...]
    utterances: int
    changed: tuple[str, ...]
    ties: int
    sqnr_db: float
    outputs_sqnr_db: Mapping[GraphName, float]
    f1: F1Change | None
    kept: KeptFaces | None
    not_finite: str

    @property
    def agreement(self) -> float:
        """Share of decisions that are the reference's, ties included: 0 to 1."""
        return 1 - len(self.changed) / self.utterances

    def problems(self, rule: EquivalenceRule) -> tuple[str, ...]:
        """Why a rule is not held; empty if it is.

        What the rule says about F1 counts only where labels are known.
        """
        if self.not_finite:
            return (self.not_finite,)
        found = []
        if len(self.changed) > rule.max_changed_share * self.utterances:
            share, allowed = 1 - self.agreement, rule.max_changed_share
            found.append(f"{len(self.changed)} of {self.utterances} decisions changed ({share:.2%} > {allowed:.2%})")
        if self.f1 is not None and -self.f1.judged_difference > rule.max_f1_drop:
            points, most = -100 * self.f1.judged_difference, 100 * rule.max_f1_drop
            found.append(f"F1 drops by {points:.2f} points (allowed {most:.2f})")
        return tuple(found)

    def to_json(self) -> dict[str, object]:
        """Plain values for a report; an SQNR that is infinite or NaN is null there, and `not_finite` tells which."""
        return asdict(self) | {"agreement": self.agreement}


@dataclass(slots=True)
class NoiseSum:
    """Signal and noise, added up part by part in float64."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: Array, actual: Array) -> None:
        """Adds values of any shape."""
        exact = reference.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite makes the sum so, and is reported
            self.signal += float(np.square(exact).sum())
            self.noise += float(np.square(actual - exact).sum())

    @property
    def db(self) -> float:
        """10·log10(signal / noise): infinite without noise, NaN if the noise is not finite."""
        if not np.isfinite(self.noise):
            return float("nan")
        if self.noise == 0:
            return float("inf")
        return float(10 * np.log10(self.signal / self.noise)) if self.signal else float("-inf")


def f1_change(
    labels: IntArray, reference: IntArray, decisions: IntArray, tied: Array, dialogues: IntArray, resamples: int
) -> F1Change:
    """Weighted F1 of two runs on the same utterances.

    Args:
        labels: `(U,)`.
        reference: `(U,)`, the reference's decisions.
        decisions: `(U,)`.
        tied: `(U,)`, which of them are ties.
        dialogues: `(U,)`, a number for each utterance's dialogue, from 0.
        resamples: Of the bootstrap.
    """
    judged = np.where(tied, reference, decisions)
    scores = [float(weighted_f1(confusion_matrix(labels, run))) for run in (reference, decisions, judged)]
    interval = None
    if len(np.unique(dialogues)) > 1:
        interval = clustered_bootstrap_interval(labels, reference, decisions, dialogues, resamples=resamples)
    return F1Change(scores[0], scores[1], scores[1] - scores[0], scores[2] - scores[0], interval)


def kept_faces(reference: DoubleArray, actual: DoubleArray, changed: int, threshold: float) -> KeptFaces:
    """The gate's decisions, from both runs' `confidences` (N,), and how many faces were kept in one run only."""
    error = float(np.abs(actual - reference).max(initial=0.0))
    near = int((np.abs(reference - threshold) <= error).sum()) if error else 0
    return KeptFaces(len(reference), changed, near, error)
