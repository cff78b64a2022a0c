"""Alternating blocks, their settling and drift, and the ratio's interval: by hand, and its coverage by simulation."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from scipy.stats import t as student

from fmmt_deploy.benchmark.blocks import (
    Block,
    block_ratio,
    interleaved,
    pooled_ms,
    settling_reasons,
)
from fmmt_deploy.errors import FmmtError
from tests.benchmark.fake_clock import FakeClock


def contender(
    clock: FakeClock, turns: list[tuple[str, int]], name: str, seconds: Callable[[], float]
) -> Callable[[int], Sequence[float]]:
    """Answers two queries, in so many seconds each."""

    def answer(number: int) -> Sequence[float]:
        turns.append((name, number))
        times = [seconds(), seconds()]
        clock.seconds += sum(times)
        return [1000 * time for time in times]

    return answer


def blocks_of(baseline: Sequence[float], candidate: Sequence[float], difference: float = 0.0) -> list[Block]:
    """Rounds in which each contender took so long."""
    return [
        Block(name, number, 0.0, ((ms,), (ms,)), 0, difference)
        for name, times in (("a", baseline), ("b", candidate))
        for number, ms in enumerate(times)
    ]


def test_contenders_alternate_within_rounds_and_see_the_same_queries() -> None:
    """A B B A A B: two windows a turn where they agree."""
    clock, turns = FakeClock(), list[tuple[str, int]]()
    between: list[float] = []
    blocks = interleaved(
        {"a": contender(clock, turns, "a", lambda: 0.5), "b": contender(clock, turns, "b", lambda: 0.25)},
        3,
        between=lambda: between.append(clock.seconds),
        clock=clock,
    )
    assert [(b.contender, b.round) for b in blocks] == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert turns == [turn for turn in ((b.contender, b.round) for b in blocks) for _ in range(2)]
    assert [b.started_s for b in blocks] == [0, 2, 3, 4, 6, 8]  # a turn of a takes 2 s, one of b 1 s
    assert between == [0, 3, 6]
    assert blocks[0].windows_ms == ((500, 500), (500, 500))
    assert blocks[0].total_ms == 1000
    assert pooled_ms(blocks, "b") == (250,) * 12
    assert pooled_ms(blocks, "c") == ()


def test_it_ends_after_the_round_in_which_it_is_enough() -> None:
    clock, turns = FakeClock(), list[tuple[str, int]]()
    sides = {name: contender(clock, turns, name, lambda: 1.0) for name in "ab"}
    blocks = interleaved(sides, 100, enough=lambda: clock.seconds > 10, clock=clock)
    assert [b.round for b in blocks] == [0, 0, 1, 1]


def test_windows_go_on_until_two_agree() -> None:
    """9, 3, 1.05 and 1 s: the last two are kept, and began after 24 s; they differ by 5 %."""
    clock, times = FakeClock(), iter([9.0, 9.0, 3.0, 3.0, 1.05, 1.05, 1.0, 1.0])
    (block,) = interleaved({"a": contender(clock, [], "a", lambda: next(times))}, 1, clock=clock)
    assert block.windows_ms == ((1050, 1050), (1000, 1000))
    assert (block.discarded, block.started_s) == (2, 24)
    assert block.difference == pytest.approx(0.05)
    assert block.settled()
    assert not block.settled(0.04)


def test_what_never_settles_is_said() -> None:
    clock, times = FakeClock(), (2.0**i for i in range(100))
    blocks = interleaved({"a": contender(clock, [], "a", lambda: next(times))}, 3, clock=clock)
    assert [block.discarded for block in blocks] == [2, 2, 2]
    (reason,) = settling_reasons(blocks, "a")
    assert reason.startswith("3 of 3 blocks of a never settled")
    assert "up to 300%, 10% is allowed" in reason  # of two queries a window: each takes four times as long


@pytest.mark.parametrize(("wrong", "valid"), [(0, True), (2, True), (3, False)])
def test_one_block_in_ten_may_be_unsettled(wrong: int, valid: bool) -> None:
    blocks = blocks_of([1.0] * (20 - wrong), []) + blocks_of([1.0] * wrong, [], difference=0.11)
    assert (settling_reasons(blocks, "a") == ()) is valid


def test_one_slow_query_does_not_unsettle_a_window() -> None:
    """The median over queries: of five, one that takes ten times as long."""
    windows = iter([[10.0, 20.0, 30.0, 40.0, 50.0], [100.0, 20.0, 30.0, 40.0, 50.0]])
    (block,) = interleaved({"a": lambda _: next(windows)}, 1, clock=FakeClock())
    assert block.difference == 0


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    """4, 5 and 6 to 2, 2 and 2 s: ratios 2, 2.5 and 3."""
    ratio = block_ratio(blocks_of([4, 5, 6], [2, 2, 2]), "a", "b")
    assert ratio.median == 2.5
    assert (ratio.low, ratio.high) == (None, None)
    assert ratio.blocks == 3
    assert ratio.reasons[0] == "an interval needs at least 6 rounds of both, there are 3"
    assert json.loads(json.dumps(ratio.to_json(), allow_nan=False))["valid"] is False


def test_many_rounds_have_scipys_bootstrap() -> None:
    """SciPy's percentile bootstrap of the median, at the level to which its t and normal expand 95 % of 400 rounds."""
    ratios = np.random.default_rng(3).lognormal(0, 0.1, 400)
    ours = block_ratio(blocks_of(ratios.tolist(), [1.0] * 400), "a", "b")
    level = 1 - 2 * norm.cdf(-student.ppf(0.975, 399) * np.sqrt(400 / 399))
    theirs = bootstrap(
        (ratios,), np.median, method="percentile", confidence_level=level, random_state=np.random.default_rng(1)
    ).confidence_interval
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=0.05 * (theirs.high - theirs.low))


@pytest.mark.parametrize("rounds", [6, 7, 8, 12, 20])
def test_the_interval_covers_the_truth_at_least_as_often_as_it_says(rounds: int) -> None:
    """Rounds with a shared drift and heavy tails, truth 1: 95 % of 1,000 intervals, less 3 standard errors."""
    random = np.random.default_rng(rounds)
    covered = naive = 0
    for seed in range(1000):
        drift = np.exp(np.cumsum(random.normal(0, 0.2, rounds)))
        both = drift * np.exp(0.03 * random.standard_t(2, (2, rounds)))
        ratio = block_ratio(blocks_of(*both.tolist()), "a", "b", seed=seed, resamples=200)
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 1 <= ratio.high
        ratios = both[0] / both[1]
        medians = np.median(ratios[random.integers(0, rounds, (200, rounds))], axis=1)
        naive += np.quantile(medians, 0.025) <= 1 <= np.quantile(medians, 0.975)
    assert covered / 1000 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert rounds != 7 or naive / 1000 < 0.92  # what the bootstrap alone covers


def test_a_slower_candidate_is_seen() -> None:
    """10 % slower with 3 % of noise, 12 rounds."""
    random = np.random.default_rng(2)
    ratio = block_ratio(
        blocks_of((100 * random.lognormal(0, 0.03, 12)).tolist(), (110 * random.lognormal(0, 0.03, 12)).tolist()),
        "a",
        "b",
    )
    assert ratio.high is not None
    assert ratio.high < 1
    assert ratio.reasons == ()


@pytest.mark.parametrize(("later", "valid"), [(1.09, True), (1.12, False), (0.92, True), (0.89, False)])
def test_a_ratio_that_drifts_is_said(later: float, valid: bool) -> None:
    ratio = block_ratio(blocks_of([1.0] * 4 + [later] * 4, [1.0] * 8), "a", "b")
    assert ratio.drift == pytest.approx(later)
    assert (ratio.reasons == ()) is valid
    assert valid or "drifted by 12%" in ratio.reasons[0]


def test_unsettled_blocks_make_a_ratio_invalid() -> None:
    blocks = blocks_of([2.0] * 8, []) + blocks_of([], [1.0] * 8, difference=0.5)
    assert "8 of 8 blocks of b never settled" in block_ratio(blocks, "a", "b").reasons[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    times = np.random.default_rng(0).lognormal(0, 0.3, (2, 20)).tolist()
    assert block_ratio(blocks_of(*times), "a", "b", seed=1) == block_ratio(blocks_of(*times), "a", "b", seed=1)


def test_what_was_not_measured_together_is_not_compared() -> None:
    with pytest.raises(FmmtError, match="same rounds"):
        block_ratio(blocks_of([1.0, 1.0], [1.0]), "a", "b")
    with pytest.raises(FmmtError, match="same rounds"):
        block_ratio([], "a", "b")


def test_windows_must_answer_the_same_queries() -> None:
    windows = iter([[1.0, 2.0], [1.0]])
    with pytest.raises(FmmtError, match="same queries, found 2 and 1"):
        interleaved({"a": lambda _: next(windows)}, 1)


@pytest.mark.parametrize(("rounds", "windows"), [(0, 2), (1, 1)])
def test_blocks_need_a_round_and_two_windows(rounds: int, windows: int) -> None:
    with pytest.raises(FmmtError, match="a round and two windows"):
        interleaved({}, rounds, max_windows=windows)
