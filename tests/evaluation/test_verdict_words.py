"""A verdict's words: every branch, by values made up for it; what they say is read off the values by hand."""

from dataclasses import replace
from typing import Any

import pytest

from fmmt_deploy.errors import NotEquivalentError
from fmmt_deploy.evaluation.changes import ChangedDecision
from fmmt_deploy.evaluation.significance import Interval, McNemar
from fmmt_deploy.evaluation.verdict import Equivalence, Verdict
from fmmt_deploy.evaluation.words import counted, margin_words, points, rounded_up_points


def change(label: str, before: str, after: str, tie: bool = False) -> ChangedDecision:
    return ChangedDecision("dia0_utt0", label, before, after, 0.5, 0.5, 1e-5 if tie else 0.1, tie, 0)


LOST, WON = change("joy", "joy", "fear"), change("joy", "fear", "joy")
NEITHER = change("joy", "fear", "anger")

FOUND = Equivalence(
    utterances=2610,
    dialogues=280,
    draws=1,
    margin=0.005,
    alpha=0.05,
    resamples=10_000,
    reference_f1=0.6673,
    f1=0.6671,
    difference=-0.0002,
    interval=Interval(-0.0011, 0.0006, 0.9),
    unseen_decisions=1.6,
    verdict="EQUIVALENT",
    detectable=0.00291,
    changed=9,
    ties=0,
    flips=(),
    largest_logit_difference=0.02,
    mcnemar=McNemar(4, 3, 1.0),
    classes=(),
    changed_decisions=(LOST,) * 4 + (WON,) * 3 + (NEITHER,) * 2,
)


def with_verdict(verdict: Verdict, low: float, high: float) -> Equivalence:
    return replace(FOUND, verdict=verdict, interval=Interval(low, high, 0.9))


def unchanged(**values: Any) -> Equivalence:
    same = {"f1": 0.6673, "difference": 0.0, "changed": 0, "changed_decisions": (), "unseen_decisions": 3.0}
    return replace(FOUND, **(same | values))


def test_the_whole_paragraph() -> None:
    assert FOUND.words == (
        "EQUIVALENT at a margin of 0.5 points: the engine's weighted F1 is 66.71, the reference's 66.73, a difference "
        "of −0.02 points (90 % interval −0.11 to +0.06, resampling 280 dialogues and allowing for one not seen "
        "that loses or wins up to 1.6 decisions). "
        "The whole interval lies within the margin: for dialogues like these, and if those not seen are no worse than "
        "allowed for, a loss of 0.5 points or more and a gain of 0.5 points or more are each ruled out at a level of "
        "5 %. "
        "9 of 2,610 decisions changed (0.34 %): 4 from right to wrong, 3 from wrong to right, 2 from one wrong class "
        "to another. McNemar's exact test of right against wrong, which takes utterances as independent: p = 1.00. "
        "If there was no true difference, and it scattered as here, a set like this would show equivalence in 4 of 5 "
        "cases at a margin of 0.30 points; this run passes at any margin above 0.11 points."
    )


def test_one_unseen_decision_is_no_plural() -> None:
    assert "up to 1 decision)." in replace(FOUND, unseen_decisions=1.02).words


@pytest.mark.parametrize(("many", "said"), [(99.4, "99"), (99.6, "100"), (124.6, "125"), (1249.7, "1,250")])
def test_many_unseen_decisions_have_no_exponent(many: float, said: str) -> None:
    assert f"up to {said} decisions)." in replace(FOUND, unseen_decisions=many).words


def test_equivalent_and_yet_not_the_same() -> None:
    assert "5 %. The engine is worse, by less than that. 9 of" in with_verdict("EQUIVALENT", -0.003, -0.001).words
    assert "5 %. The engine is better, by less than that. 9 of" in with_verdict("EQUIVALENT", 0.001, 0.003).words


def test_different_says_which_way() -> None:
    worse, better = with_verdict("DIFFERENT", -0.03, -0.02), with_verdict("DIFFERENT", 0.02, 0.03)
    beyond = (
        "The whole interval lies beyond the margin: the engine is worse by more than 0.5 points, at a level of 5 %."
    )
    assert f"{beyond} 9 of" in worse.words
    assert "the engine is better by more than 0.5 points" in better.words
    assert worse.words.startswith("DIFFERENT at a margin")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.006, 0.001, "neither rule out a loss of 0.5 points or more, nor show one. They do not settle whether the "
         "engine is equivalent. 9 of"),
        (-0.001, 0.005, "neither rule out a gain of 0.5 points or more, nor show one. They do not settle"),
        (-0.006, 0.006, "rule out neither a loss nor a gain of 0.5 points or more, nor show either. They do not"),
        (-0.006, -0.001, "is equivalent. That the engine is worse they do show, but not whether by so much. 9 of"),
        (0.001, 0.006, "is equivalent. That the engine is better they do show, but not whether by so much. 9 of"),
    ],
)  # fmt: skip
def test_inconclusive_is_no_finding_either_way(low: float, high: float, said: str) -> None:
    words = with_verdict("INCONCLUSIVE", low, high).words
    assert words.startswith("INCONCLUSIVE at a margin of 0.5 points: the engine's")
    assert "The interval crosses the margin's edge: these data " in words
    assert said in words
    assert "ruled out" not in words
    assert "beyond the margin" not in words


def test_no_change_says_what_the_width_is_from() -> None:
    words = unchanged(interval=Interval(-0.0034, 0.0034, 0.9)).words
    assert "the reference's 66.73, no difference (90 % interval" in words
    assert (
        "None of the 2,610 decisions changed. The interval has its width from what 280 dialogues without a change "
        "can't show: up to 1.1 % of dialogues like these could have one (95 % confidence), each assumed to cost 3 "
        "decisions."
    ) in words
    one = replace(unchanged(), utterances=1, dialogues=1, unseen_decisions=1.0).words
    assert "The only decision did not change." in one
    assert "1 dialogue without a change can't show: up to 95 % of" in one
    assert "each assumed to cost 1 decision." in one


def test_equal_logits_are_told_from_nearly_equal_ones() -> None:
    assert "The logits of both sides are bit for bit the same." in unchanged(largest_logit_difference=0.0).words
    near = unchanged(largest_logit_difference=3.1e-6).words
    assert "No logit differs by more than float32 rounding does (largest difference 3.1e-06)." in near
    assert "logit" not in unchanged(largest_logit_difference=2.1e-5).words


def test_ties_are_told_in_singular_and_plural() -> None:
    tied = change("joy", "joy", "fear", tie=True)
    one = replace(FOUND, changed=1, ties=1, changed_decisions=(tied,)).words
    assert "1 of 2,610 decisions changed (0.04 %): 1 from right to wrong" in one
    assert "; it is between two logits within 4e-05 of each other, which rounding alone can turn. McNemar" in one
    assert "; 1 of them is between" in replace(FOUND, ties=1).words
    assert "; 2 of them are between" in replace(FOUND, ties=2).words
    assert "rounding" not in FOUND.words


def test_several_draws_have_no_mcnemar() -> None:
    words = replace(FOUND, draws=5, mcnemar=None).words
    assert "a difference of −0.02 points over 5 draws of the noise, the same on both sides (90 % interval" in words
    assert "9 of 13,050 decisions changed (0.07 %)" in words
    assert "McNemar" not in words


def test_small_p_values_are_not_rounded_to_nothing() -> None:
    assert "p = 0.0003." in replace(FOUND, mcnemar=McNemar(20, 3, 0.00031)).words
    assert "p = 0.04." in replace(FOUND, mcnemar=McNemar(20, 3, 0.041)).words
    assert "independent: p < 1e-15." in replace(FOUND, mcnemar=McNemar(2610, 0, 0.0)).words


@pytest.mark.parametrize(
    ("share", "signed", "text"),
    [
        (0.66734, False, "66.73"), (-0.0002, True, "−0.02"), (0.0006, True, "+0.06"), (0.0, True, "0.00"),
        (0.00004, True, "+0.0040"), (-0.0000123, True, "−0.0012"), (1e-18, True, "0.00"), (1.0, False, "100.00"),
        (0.00005, False, "0.01"),
    ],
)  # fmt: skip
def test_points(share: float, signed: bool, text: str) -> None:
    assert points(share, signed) == text


def test_a_margin_that_is_said_passes() -> None:
    assert [rounded_up_points(x) for x in (0.00291, 0.003, 0.0030001, 0.0)] == ["0.30", "0.30", "0.31", "0.00"]


def test_numbers_with_their_words() -> None:
    assert [counted(n, "dialogue") for n in (0, 1, 2, 2610)] == [
        "0 dialogues",
        "1 dialogue",
        "2 dialogues",
        "2,610 dialogues",
    ]
    assert counted(2, "child", "children") == "2 children"


def test_a_negative_verdict_says_what_to_do_next() -> None:
    FOUND.raise_unless_equivalent()
    with pytest.raises(NotEquivalentError, match="INCONCLUSIVE: this data set can't say") as inconclusive:
        with_verdict("INCONCLUSIVE", -0.006, 0.001).raise_unless_equivalent()
    assert "more dialogues" in inconclusive.value.fix
    assert "−0.60 and +0.10 points" in inconclusive.value.why
    with pytest.raises(NotEquivalentError, match="DIFFERENT") as different:
        with_verdict("DIFFERENT", -0.03, -0.02).raise_unless_equivalent()
    assert "fmmt diff" in different.value.fix
    assert "more dialogues" not in different.value.fix


def test_a_margin_is_said_as_it_was_given() -> None:
    assert [margin_words(share) for share in (0.005, 0.01, 0.03)] == ["0.5 points", "1 point", "3 points"]
    assert "at a margin of 1 point:" in replace(FOUND, margin=0.01).words
