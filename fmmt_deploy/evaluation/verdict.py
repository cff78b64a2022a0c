"""A verdict on an engine, with what it rests on, and its words for somebody who has to sign for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from fmmt_deploy.errors import NotEquivalentError
from fmmt_deploy.evaluation.changes import ChangedDecision
from fmmt_deploy.evaluation.significance import Interval, McNemar
from fmmt_deploy.evaluation.words import counted, margin_words, points, rounded_up_points
from fmmt_deploy.rounding import LOGIT_ROUNDING, TIE_MARGIN

__all__ = ["ClassDifference", "Equivalence", "Verdict"]

SMALLEST_P = 1e-15
"""Smaller p-values are not told from each other."""

Verdict: TypeAlias = Literal["EQUIVALENT", "DIFFERENT", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """One emotion's F1 on both sides, 0 to 1; `support` counts its utterances. It is not judged."""

    emotion: str
    support: int
    reference_f1: float
    f1: float
    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Equivalence:
    """An engine's decisions against the reference's on the same utterances. Differences are engine minus reference.

    Attributes:
        utterances: How many.
        dialogues: How many; their utterances are not independent, so these are what is resampled.
        draws: How often each utterance was decided, with noise of another seed each time; both sides with the same.
        margin: Differences of weighted F1 below it do not matter, 0 to 1.
        alpha: The level of each of the two one-sided tests.
        resamples: Of the bootstrap.
        reference_f1: Weighted F1, the mean over the draws.
        f1: The engine's.
        difference: Of the two.
        interval: Of the difference, at a confidence of 1 − 2 alpha.
        unseen_decisions: How many decisions the interval lets a dialogue that was not seen lose or win.
        verdict: EQUIVALENT if the interval lies within ± margin, DIFFERENT if it lies wholly outside.
        detectable: The smallest margin at which such a set would show an engine to be equivalent four times in five, if
            in truth there was no difference, and it scattered over dialogues as here; 1 where there is none.
        changed: How many decisions changed.
        ties: How many of them between two logits so near each other that rounding can do it.
        flips: Counts; row the reference's decision, column the engine's.
        largest_logit_difference: 0 if the logits are bit for bit the same.
        mcnemar: Test on right and wrong decisions; None for several draws, which are not independent.
        classes: One entry an emotion.
        changed_decisions: Every changed decision.
    """

    utterances: int
    dialogues: int
    draws: int
    margin: float
    alpha: float
    resamples: int
    reference_f1: float
    f1: float
    difference: float
    interval: Interval
    unseen_decisions: float
    verdict: Verdict
    detectable: float
    changed: int
    ties: int
    flips: tuple[tuple[int, ...], ...]
    largest_logit_difference: float
    mcnemar: McNemar | None
    classes: tuple[ClassDifference, ...]
    changed_decisions: tuple[ChangedDecision, ...]

    @property
    def decisions(self) -> int:
        """How many decisions were compared."""
        return self.utterances * self.draws

    @property
    def passing_margin(self) -> float:
        """Any margin above this one would have given EQUIVALENT."""
        return max(abs(self.interval.low), abs(self.interval.high))

    @property
    def words(self) -> str:
        """The verdict as a paragraph."""
        parts = (_finding(self), _reason(self), _changes(self), _sameness(self), _power(self))
        return " ".join(part for part in parts if part)

    def raise_unless_equivalent(self) -> None:
        """Turns a negative verdict into an error.

        Raises:
            NotEquivalentError: It is DIFFERENT or INCONCLUSIVE.
        """
        if self.verdict == "EQUIVALENT":
            return
        margin, interval = points(self.margin), self.interval
        why = f"The difference of weighted F1 is between {points(interval.low, True)} and {points(interval.high, True)}"
        if self.verdict == "DIFFERENT":
            raise NotEquivalentError(
                f"DIFFERENT: the engine's weighted F1 is not the reference's, by more than {margin} points.",
                why=f"{why} points, wholly beyond the margin.",
                fix="Run 'fmmt diff' on a changed utterance, or 'fmmt eval --swap' to see which graph it comes from, "
                "and give that graph a higher precision.",
            )
        raise NotEquivalentError(
            f"INCONCLUSIVE: this data set can't say whether the engine is equivalent at {margin} points.",
            why=f"{why} points, on both sides of the margin's edge.",
            fix="Use more dialogues, or say beforehand that a larger --margin is good enough; 'fmmt diff' shows what "
            "changed an utterance.",
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return asdict(self) | {"words": self.words, "passing_margin": self.passing_margin}


def _finding(found: Equivalence) -> str:
    low, high = points(found.interval.low, True), points(found.interval.high, True)
    group = f"{found.unseen_decisions:.2g}" if found.unseen_decisions < 99.5 else f"{found.unseen_decisions:,.0f}"
    unseen = f" that loses or wins up to {group} decision{'s' * (group != '1')}" if found.changed else ""
    draws = f" over {found.draws} draws of the noise, the same on both sides" if found.draws > 1 else ""
    same = abs(found.difference) < 1e-12
    difference = "no difference" if same else f"a difference of {points(found.difference, True)} points"
    return (
        f"{found.verdict} at a margin of {margin_words(found.margin)}: the engine's weighted F1 is "
        f"{points(found.f1)}, the reference's {points(found.reference_f1)}, {difference}{draws} "
        f"({100 * found.interval.confidence:g} % interval {low} to {high}, resampling "
        f"{counted(found.dialogues, 'dialogue')} and allowing for one not seen{unseen})."
    )


def _reason(found: Equivalence) -> str:
    margin, interval = margin_words(found.margin), found.interval
    way = "worse" if interval.high < 0 else "better" if interval.low > 0 else ""
    if found.verdict == "EQUIVALENT":
        small = {
            "worse": " The engine is worse, by less than that.",
            "better": " The engine is better, by less than that.",
        }
        return (
            "The whole interval lies within the margin: for dialogues like these, and if those not seen are no worse "
            f"than allowed for, a loss of {margin} or more and a gain of {margin} or more are each ruled out at a "
            f"level of {100 * found.alpha:g} %.{small.get(way, '')}"
        )
    if found.verdict == "DIFFERENT":
        level = f"at a level of {100 * found.alpha:g} %"
        return f"The whole interval lies beyond the margin: the engine is {way} by more than {margin}, {level}."
    loss, gain = interval.low <= -found.margin, interval.high >= found.margin
    ends = "a loss nor a gain" if loss and gain else "a loss" if loss else "a gain"
    neither, shown = ("rule out neither", "either") if loss and gain else ("neither rule out", "one")
    known = f" That the engine is {way} they do show, but not whether by so much." if way else ""
    return (
        f"The interval crosses the margin's edge: these data {neither} {ends} of {margin} or more, nor show "
        f"{shown}. They do not settle whether the engine is equivalent.{known}"
    )


def _changes(found: Equivalence) -> str:
    if not found.changed:
        whole = counted(found.decisions, "decision")
        start = "The only decision did not change." if found.decisions == 1 else f"None of the {whole} changed."
        return f"{start} {_unseen(found)}"
    right = [(change.reference == change.label, change.decision == change.label) for change in found.changed_decisions]
    lost, won, neither = (right.count(kind) for kind in ((True, False), (False, True), (False, False)))
    share = 100 * found.changed / found.decisions
    text = (
        f"{found.changed:,} of {counted(found.decisions, 'decision')} changed ({share:.2f} %): {lost:,} from right to "
        f"wrong, {won:,} from wrong to right, {neither:,} from one wrong class to another"
    )
    if found.ties:
        which = "it is" if found.changed == 1 else f"{found.ties:,} of them {'is' if found.ties == 1 else 'are'}"
        text += f"; {which} between two logits within {TIE_MARGIN:g} of each other, which rounding alone can turn"
    if found.mcnemar is None:
        return f"{text}."
    test = "McNemar's exact test of right against wrong, which takes utterances as independent"
    return f"{text}. {test}: p {_p(found.mcnemar.p_value)}."


def _unseen(found: Equivalence) -> str:
    share = -math.expm1(math.log(found.alpha) / found.dialogues)
    return (
        f"The interval has its width from what {counted(found.dialogues, 'dialogue')} without a change can't show: up "
        f"to {_percent(share)} % of dialogues like these could have one ({100 * (1 - found.alpha):g} % confidence), "
        f"each assumed to cost {counted(round(found.unseen_decisions), 'decision')}."
    )


def _sameness(found: Equivalence) -> str:
    if found.largest_logit_difference == 0:
        return "The logits of both sides are bit for bit the same."
    if found.largest_logit_difference <= LOGIT_ROUNDING:
        return (
            f"No logit differs by more than float32 rounding does (largest difference "
            f"{found.largest_logit_difference:.1e})."
        )
    return ""


def _power(found: Equivalence) -> str:
    return (
        "If there was no true difference, and it scattered as here, a set like this would show equivalence in 4 of 5 "
        f"cases at a margin of {rounded_up_points(found.detectable)} points; this run passes at any margin above "
        f"{rounded_up_points(found.passing_margin)} points."
    )


def _p(value: float) -> str:
    """With its sign; a p-value is never 0, though a float of it may be."""
    if value < SMALLEST_P:
        return f"< {SMALLEST_P:.0e}"
    return f"= {value:.2f}" if value >= 0.01 else f"= {value:.1g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"
