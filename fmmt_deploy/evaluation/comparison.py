"""Are two runs equivalent? Changed decisions, difference of weighted F1 with its uncertainty, and a verdict by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.errors import NotEquivalentError
from fmmt_deploy.evaluation.evaluation import checked_labels, checked_logits
from fmmt_deploy.evaluation.scores import DoubleArray, confusion_matrix, weighted_f1
from fmmt_deploy.evaluation.significance import Interval, McNemar, bootstrap_interval, mcnemar
from fmmt_deploy.types import EMOTIONS, BoolArray, FloatArray, IntArray

__all__ = [
    "EQUIVALENCE_RULES",
    "ChangedDecision",
    "Comparison",
    "EquivalenceRule",
    "compare",
]


@dataclass(frozen=True, slots=True)
class EquivalenceRule:
    """What still counts as equivalent.

    Attributes:
        max_changed_share: Largest share of decisions that may change, ties not counted.
        max_f1_drop: Largest drop of weighted F1, 0 to 1, ties not counted.
        tie_margin: A changed decision is a tie if the reference's two logits lie at most so far apart. Twice the
            tolerance of a float32 logit (2e-5) for every precision: what rounding alone can turn, and no more.
    """

    max_changed_share: float
    max_f1_drop: float
    tie_margin: float = 4e-5


EQUIVALENCE_RULES: Mapping[Precision, EquivalenceRule] = {
    # A changed decision costs about its share in weighted F1 (one of MELD's 2,610: 0.0004). In float32 every allowed
    # change may be for the worse; at lower precision there are enough of them to go both ways, so half may be.
    "fp32": EquivalenceRule(max_changed_share=0.001, max_f1_drop=0.001),
    "fp16": EquivalenceRule(max_changed_share=0.005, max_f1_drop=0.0025),
    "bf16": EquivalenceRule(max_changed_share=0.010, max_f1_drop=0.005),  # 3 bits of mantissa fewer than fp16
    "int8-fp32": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),
    "int8": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),
    "fp8": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),  # as the other 8 bits
}


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
    """

    utterance: str
    label: str
    reference: str
    decision: str
    reference_probability: float
    probability: float
    margin: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against the reference's run on the same utterances. Differences are run minus reference: negative is worse.

    Attributes:
        utterances: How many.
        changed: Decisions that changed, ties left out.
        ties: Decisions that changed where rounding alone can do it.
        reference_f1: The reference's weighted F1.
        f1: The run's weighted F1, as it decided.
        f1_difference: Their difference.
        f1_interval: Paired bootstrap interval of that difference over utterances.
        judged_f1_difference: The difference if ties are decided as the reference did; this the rule judges.
        mcnemar: Test on right and wrong decisions.
        rule: What was allowed.
        reasons: Why the runs are not equivalent; empty if they are.
    """

    utterances: int
    changed: tuple[ChangedDecision, ...]
    ties: tuple[ChangedDecision, ...]
    reference_f1: float
    f1: float
    f1_difference: float
    f1_interval: Interval
    judged_f1_difference: float
    mcnemar: McNemar
    rule: EquivalenceRule
    reasons: tuple[str, ...]

    @property
    def equivalent(self) -> bool:
        """The verdict."""
        return not self.reasons

    @property
    def changed_share(self) -> float:
        """Share of decisions that changed, ties left out."""
        return len(self.changed) / self.utterances

    def raise_unless_equivalent(self) -> None:
        """Turns a negative verdict into an error.

        Raises:
            NotEquivalentError: The runs are not equivalent.
        """
        if self.reasons:
            raise NotEquivalentError(
                f"The run is not equivalent to the reference: {'; '.join(self.reasons)}.",
                fix="Run 'fmmt parity' to see which graph differs, or give it a higher precision.",
            )

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return asdict(self) | {"equivalent": self.equivalent, "changed_share": self.changed_share}


def compare(
    utterances: Sequence[str],
    labels: Sequence[int | None],
    reference_logits: FloatArray,
    logits: FloatArray,
    rule: EquivalenceRule,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Comparison:
    """Compares the decisions of two runs over the same utterances.

    Args:
        utterances: `(U,)` ids.
        labels: `(U,)`, indices into `EMOTIONS`.
        reference_logits: `(U, 7)`.
        logits: `(U, 7)`.
        rule: What is allowed.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        DataError: There is no utterance, or one without a label.
        NotEquivalentError: Logits of another shape, or not all finite.
    """
    truth = checked_labels(utterances, labels)
    checked_logits(utterances, reference_logits, "reference's logits")
    checked_logits(utterances, logits, "logits")
    reference, decisions = reference_logits.argmax(axis=1), logits.argmax(axis=1)
    margins = _margins(reference_logits, reference, decisions)
    different = reference != decisions
    tied = different & (margins <= rule.tie_margin)
    judged = np.where(tied, reference, decisions)

    def described(chosen: BoolArray) -> tuple[ChangedDecision, ...]:
        return tuple(
            _changed(utterances[i], truth[i], reference_logits[i], logits[i], margins[i])
            for i in np.nonzero(chosen)[0].tolist()
        )

    reference_f1, f1, judged_f1 = (_f1(truth, chosen) for chosen in (reference, decisions, judged))
    changed = described(different & ~tied)
    return Comparison(
        utterances=len(utterances),
        changed=changed,
        ties=described(tied),
        reference_f1=reference_f1,
        f1=f1,
        f1_difference=f1 - reference_f1,
        f1_interval=bootstrap_interval(truth, reference, decisions, seed=seed, resamples=resamples),
        judged_f1_difference=judged_f1 - reference_f1,
        mcnemar=mcnemar(reference == truth, decisions == truth),
        rule=rule,
        reasons=_reasons(len(changed), len(utterances), reference_f1 - judged_f1, rule),
    )


def _f1(labels: IntArray, decisions: IntArray) -> float:
    return float(weighted_f1(confusion_matrix(labels, decisions)))


def _margins(logits: FloatArray, reference: IntArray, decisions: IntArray) -> DoubleArray:
    """`(U,)`: the reference's logit of its own decision less that of the other run's decision; never negative."""
    rows, exact = np.arange(len(logits)), logits.astype(np.float64)
    margins: DoubleArray = exact[rows, reference] - exact[rows, decisions]
    return margins


def _changed(
    utterance: str, label: int, reference_logits: FloatArray, logits: FloatArray, margin: float
) -> ChangedDecision:
    return ChangedDecision(
        utterance,
        EMOTIONS[label],
        EMOTIONS[int(reference_logits.argmax())],
        EMOTIONS[int(logits.argmax())],
        _largest_probability(reference_logits),
        _largest_probability(logits),
        float(margin),
    )


def _largest_probability(logits: FloatArray) -> float:
    """Of softmax: 1 / Σ exp(x − max x)."""
    exact = logits.astype(np.float64)
    return float(1 / np.exp(exact - exact.max()).sum())


def _reasons(changed: int, total: int, f1_drop: float, rule: EquivalenceRule) -> tuple[str, ...]:
    reasons = []
    if changed > rule.max_changed_share * total:
        allowed = f"{rule.max_changed_share:.2%}"
        reasons.append(f"{changed} of {total} decisions changed ({changed / total:.2%}, allowed {allowed})")
    if f1_drop > rule.max_f1_drop:
        reasons.append(f"weighted F1 dropped by {f1_drop:.5f} (allowed {rule.max_f1_drop:.5f})")
    return tuple(reasons)
