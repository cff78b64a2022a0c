"""The rule that marks precisions, on planted cases."""

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.benchmark.statistics import Ratio
from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.selection.marks import MARKS, SPEED_UP, Contestant, Mark, dominates, few_warnings, marks_of

MB = 1_000_000


def contestant(
    precision: Precision, sqnr_db: float, megabytes: float, speed: float | None = None, problem: str = ""
) -> Contestant:
    measured = None if speed is None else Ratio(speed, 0.98 * speed, 1.02 * speed, 9, 0.95)
    return Contestant(precision, (problem,) if problem else (), sqnr_db, int(MB * megabytes), measured)


FP32 = contestant("fp32", inf, 100)
FP16 = contestant("fp16", 60, 50)
BF16 = contestant("bf16", 42, 50)
ON_CPU = contestant("int8-fp32", 30.0, 28)
INT8 = contestant("int8", 30.02, 26)
FP8 = contestant("fp8", 24, 26.1)


def names(*contestants: Contestant) -> list[str]:
    return [mark.name for mark in marks_of(contestants, 100 * MB)]


def only(*contestants: Contestant) -> Mark:
    """The mark of the first."""
    return marks_of(contestants, 100 * MB)[0]


def test_what_is_expected_of_a_whole_submodule() -> None:
    marks = marks_of([FP32, FP16, BF16, ON_CPU, INT8, FP8], 100 * MB)
    assert [m.name for m in marks] == ["no gain", "worth it", "dominated", "worth it", "worth it", "dominated"]
    assert [m.reason for m in marks] == [
        "float32 itself",
        "50% of the bytes; speed not measured here",
        "fp16 is more accurate (60.0 dB beside 42.0 dB) and as small",
        "28% of the bytes; speed not measured here",
        "26% of the bytes; speed not measured here",
        "int8 is more accurate (30.0 dB beside 24.0 dB) and as small",
    ]


def test_harmful_comes_first_and_dominates_nothing() -> None:
    """The best in every respect, but it does not hold: all its reasons are told, and others are not measured by it."""
    broken = replace(FP16, problems=("3 of 10 decisions changed", "F1 drops by 2.00 points"), sqnr_db=90)
    assert names(broken, BF16, FP32) == ["harmful", "worth it", "no gain"]
    assert only(broken, FP32).reason == "3 of 10 decisions changed; F1 drops by 2.00 points"
    dominated = replace(BF16, problems=("logits are NaN",), sqnr_db=nan)
    assert names(dominated, FP16, FP32)[0] == "harmful"  # not merely dominated
    assert names(replace(FP32, problems=("wrong",))) == ["harmful"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (contestant("bf16", 60, 50), False),  # equal in all: neither dominates
        (contestant("bf16", 60.05, 50.5), False),  # closer than what counts, both ways
        (contestant("bf16", 60.2, 50), False),  # finer than fp16
        (contestant("bf16", 59.8, 50), True),  # coarser, as small
        (contestant("bf16", 59.95, 55), True),  # as fine, larger
        (contestant("bf16", 59.8, 45), False),  # coarser, smaller
        (contestant("bf16", 60.2, 55), False),  # finer, larger
        (contestant("bf16", -inf, 60), True),
    ],
)
def test_ties_and_trade_offs(other: Contestant, expected: bool) -> None:
    assert dominates(FP16, other) is expected
    assert names(other, FP16)[0] == ("dominated" if expected else "worth it")


def test_luck_at_the_gate_is_no_accuracy() -> None:
    """fp16 lost one face and int8 none: its logits are noisier, though its face logits are far better."""
    unlucky = replace(FP16, sqnr_db=39.0, outputs_db=(56.0,))
    lucky = replace(INT8, sqnr_db=50.0, outputs_db=(29.0,))
    assert names(unlucky, lucky) == ["worth it", "worth it"]
    better = replace(INT8, sqnr_db=39.05, outputs_db=(57.0,))
    assert only(unlucky, better).reason == "int8 has 52% of its bytes, with 57.0 dB beside 56.0 dB of its own output"


def test_two_that_equal_float32() -> None:
    """Infinite SQNRs are equal: then the smaller one wins, even against float32."""
    exact = contestant("fp16", inf, 50)
    assert dominates(exact, FP32)
    assert not dominates(FP32, exact)
    assert only(FP32, exact).reason == "fp16 has 50% of its bytes, with inf dB beside inf dB"


def test_measured_times_count_and_not_bytes() -> None:
    base = contestant("fp32", inf, 100, 1.0)
    fast, slow, doubtful = (contestant("int8-fp32", 30, 28, speed) for speed in (1.9, 0.8, 1.1))
    assert only(fast, base) == Mark("worth it", "1.90× (1.86–1.94) as fast as float32, measured; 28% of the bytes")
    assert only(slow, base).name == "dominated"
    assert only(slow, base).reason == "fp32 is 1.25 times as fast, with inf dB beside 30.0 dB"
    assert only(doubtful, base).name == "no gain"
    assert f"less than {SPEED_UP}×" in only(doubtful, base).reason
    edge = replace(fast, speed=Ratio(SPEED_UP, 1.01, 1.3, 9, 0.95))
    assert only(edge, base).name == "worth it"
    assert only(replace(edge, speed=Ratio(1.3, 0.9, 1.7, 9, 0.95)), base).name == "no gain"
    assert "not beyond doubt" in only(replace(edge, speed=Ratio(1.3, 0.9, 1.7, 9, 0.95)), base).reason


def test_as_fast_as_float32_is_dominated_by_it() -> None:
    assert only(contestant("int8-fp32", 30, 28, 1.01), contestant("fp32", inf, 100, 1.0)).reason == (
        "fp32 is more accurate (inf dB beside 30.0 dB) and as fast"
    )


def test_measured_and_unmeasured_are_not_compared() -> None:
    """A CPU's precision that was measured is not put down by the bytes of one that nobody ran."""
    base, measured = contestant("fp32", inf, 100, 1.0), contestant("int8-fp32", 30, 28, 1.9)
    assert names(base, contestant("fp16", 60, 20), measured) == ["no gain", "worth it", "worth it"]
    fast16 = contestant("fp16", 60, 50, 2.5)  # on a GPU both were
    assert names(base, fast16, measured) == ["no gain", "worth it", "dominated"]


def test_what_is_for_cpus_is_not_compared_with_what_is_for_gpus() -> None:
    assert not dominates(INT8, ON_CPU)
    assert not dominates(contestant("fp16", 60, 20), ON_CPU)
    assert not dominates(contestant("int8-fp32", 60, 10), FP8)
    larger = contestant("int8-fp32", 30, 120)
    assert dominates(FP32, larger)


def test_no_gain_without_fewer_bytes() -> None:
    """All products kept back: as large as float32, and as good."""
    kept = contestant("fp16", inf, 99)
    assert only(kept, FP32) == Mark("no gain", "99% of the bytes; speed not measured here")


def test_the_best_of_those_that_dominate_is_named() -> None:
    worst = contestant("fp8", 10, 60)
    assert only(worst, BF16, FP16).reason.startswith("fp16 has 83% of its bytes")


def test_nothing() -> None:
    assert marks_of([], 0) == ()


measures = st.tuples(
    st.one_of(st.floats(-20, 150), st.just(inf)),
    st.floats(1, 200),
    st.one_of(st.none(), st.floats(0.2, 5)),
    st.booleans(),
)


@given(st.lists(measures, min_size=1, max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_always_holds(found: list[tuple[float, float, float | None, bool]], all_measured: bool) -> None:
    contestants = [
        contestant(precision, sqnr, size, (speed or 1.0) if all_measured else None, "" if holds else "broken")
        for precision, (sqnr, size, speed, holds) in zip(PRECISIONS, found, strict=False)
    ]
    marks = marks_of(contestants, 100 * MB)
    assert len(marks) == len(contestants)
    assert all(mark.name in MARKS and mark.reason for mark in marks)
    assert [mark.name == "harmful" for mark in marks] == [bool(c.problems) for c in contestants]
    holding = [mark for mark, c in zip(marks, contestants, strict=True) if not c.problems]
    assert not holding or any(mark.name != "dominated" for mark in holding)  # somebody is best
    for one in contestants:
        assert not dominates(one, one)
        for other in contestants:
            assert not (dominates(one, other) and dominates(other, one))


def test_a_few_utterances_tell_little() -> None:
    """By the binomial distribution: at that share, none of so many would change in one set of data out of twenty."""
    assert few_warnings(150) == ()
    (warning,) = few_warnings(27)
    assert "up to 11% may" in warning
    assert 0.04 < (1 - 0.11) ** 27 < 0.06
    assert "up to 100% may" in few_warnings(2)[0]
