"""Turns where time is short or somebody fails, on a clock of our own: who is left, with how many turns."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest

from fmmt_deploy.benchmark.blocks import Block
from fmmt_deploy.benchmark.turns import Effort, Haste, turns
from fmmt_deploy.errors import FmmtError
from tests.benchmark.fake_clock import FakeClock

Contenders = Mapping[str, Callable[[int], Sequence[float]]]


def taking(clock: FakeClock, **seconds: float) -> dict[str, Callable[[int], Sequence[float]]]:
    """Contenders that answer a query in so long; a turn is two windows of it."""

    def contender(name: str) -> Callable[[int], Sequence[float]]:
        def answer(_: int) -> Sequence[float]:
            clock.seconds += seconds[name]
            return [1000 * seconds[name]]

        return answer

    return {name: contender(name) for name in seconds}


def hasty(
    clock: FakeClock, contenders: Contenders, deadline: float, rounds: int = 6
) -> tuple[Counter[str], dict[str, str]]:
    """How many turns each has had, and who was dropped."""
    dropped = dict[str, str]()
    blocks = turns(contenders, Effort(rounds, clock=clock, haste=Haste(deadline, dropped.__setitem__)))
    return Counter(block.contender for block in blocks), dropped


def test_with_time_for_all_haste_changes_nothing() -> None:
    one, other = FakeClock(), FakeClock()
    calm = turns(taking(one, a=0.5, b=0.25), Effort(6, clock=one))
    dropped = dict[str, str]()
    haste = Haste(100, dropped.__setitem__)
    assert turns(taking(other, a=0.5, b=0.25), Effort(6, clock=other, haste=haste)) == calm
    assert dropped == {}


def test_those_named_first_have_their_rounds() -> None:
    """A round takes 1, 2 and 4 s. After the first 23 s are left: a and b need 5 and 10 more, c would need 20."""
    clock = FakeClock()
    found, dropped = hasty(clock, taking(clock, a=0.5, b=1, c=2), deadline=30)
    assert (found, dropped) == (Counter(a=6, b=6, c=1), {})
    assert clock.seconds == 22


def test_one_that_is_too_slow_does_not_keep_a_later_one_out() -> None:
    clock = FakeClock()
    found, _ = hasty(clock, taking(clock, a=0.5, slow=2, b=1), deadline=30)
    assert found == Counter(a=6, slow=1, b=6)


def test_who_has_no_time_in_the_first_round_is_dropped() -> None:
    """After a and b there are 2 s left, and the longest turn took 4."""
    clock = FakeClock()
    found, dropped = hasty(clock, taking(clock, a=2, b=1, c=0.1), deadline=8)
    assert found == Counter(a=1, b=1)
    assert dropped == {"c": "There was no time for it."}
    assert clock.seconds == 6


def test_rounds_beyond_those_of_a_ratio_keep_nobody_out() -> None:
    """Of 60 rounds of 2.5 s there is time for 16, and 6 make a ratio; the slow one would need 118 s for all."""
    clock = FakeClock()
    found, dropped = hasty(clock, taking(clock, a=0.125, slow=1, b=0.125), deadline=41, rounds=60)
    assert (found, dropped, clock.seconds) == (Counter(a=16, slow=16, b=16), {}, 40.0)


@pytest.mark.parametrize(("seconds", "deadline"), [({"a": 2, "b": 1}, 22), ({"a": 1, "b": 3}, 26)])
def test_where_no_ratio_is_to_be_had_all_go_on_together(seconds: dict[str, float], deadline: float) -> None:
    """After the first round six turns of the baseline don't fit, or of nobody else: three whole rounds do."""
    clock = FakeClock()
    found, _ = hasty(clock, taking(clock, **seconds), deadline)
    assert found == Counter(a=3, b=3)


def test_a_baseline_without_time_for_a_ratio_keeps_its_turns() -> None:
    """After a round of 6 s 15 are left: six turns fit of the other two, but not of the baseline, and so no ratio."""
    clock = FakeClock()
    found, _ = hasty(clock, taking(clock, a=2, b=0.5, c=0.5), deadline=21)
    assert found == Counter(a=3, b=3, c=3)


def test_what_failed_after_compiling_keeps_nobody_out() -> None:
    """Its first window took 20 s, and the second failed: 9 s are enough for the other."""
    clock, windows = FakeClock(), iter([20.0])

    def failing(_: int) -> Sequence[float]:
        if (seconds := next(windows, None)) is None:
            raise FmmtError("out of memory")
        clock.seconds += seconds
        return [1000 * seconds]

    found, dropped = hasty(clock, {"bad": failing, **taking(clock, a=0.5)}, deadline=29)
    assert (found, list(dropped)) == (Counter(a=6), ["bad"])


def test_without_time_nobody_begins() -> None:
    clock = FakeClock(5.0)
    found, dropped = hasty(clock, taking(clock, a=1, b=1), deadline=4)
    assert (found, list(dropped), clock.seconds) == (Counter(), ["a", "b"], 5.0)


def test_no_round_is_begun_that_would_end_too_late() -> None:
    """It was thought to fit, but the turns got slower: 2 s the first, 8 s the others; after two rounds 10 of 15 s."""
    clock, times = FakeClock(), iter([1.0, 1.0, *[4.0] * 20])

    def slowing(_: int) -> Sequence[float]:
        clock.seconds += (seconds := next(times))
        return [1000 * seconds]

    found, dropped = hasty(clock, {"a": slowing}, deadline=15)
    assert (found, dropped, clock.seconds) == (Counter(a=2), {}, 10.0)


def test_a_round_in_which_time_runs_out_does_not_count() -> None:
    """A first round of 4 s, and 6 left for a second; in that b, which comes first, takes 8, and a is not asked."""
    clock, times = FakeClock(), iter([1.0, 1.0, *[4.0] * 20])

    def slowing(_: int) -> Sequence[float]:
        clock.seconds += (seconds := next(times))
        return [1000 * seconds]

    found, dropped = hasty(clock, {**taking(clock, a=1), "b": slowing}, deadline=10)
    assert (found, dropped, clock.seconds) == (Counter(a=1, b=1), {}, 12.0)


def test_a_round_that_all_have_ended_counts_though_time_is_over() -> None:
    """As above, but a comes last and retired c after it; rounds of a and b take 1 + 2 s, the last one 1 + 8 s."""
    clock, times = FakeClock(), iter([*[1.0] * 8, *[4.0] * 20])

    def slowing(_: int) -> Sequence[float]:
        clock.seconds += (seconds := next(times))
        return [1000 * seconds]

    found, _ = hasty(clock, {**taking(clock, a=0.5), "b": slowing, **taking(clock, c=2)}, deadline=23)
    assert found == Counter(a=5, b=5, c=1)


def test_what_compiles_in_its_first_turn_is_judged_by_the_last_window() -> None:
    """20 s, then 1 s a window: a first turn of 22 s, and five more of 2 s are in time."""
    clock, times = FakeClock(), iter([20.0, *[1.0] * 40])

    def compiling(_: int) -> Sequence[float]:
        clock.seconds += (seconds := next(times))
        return [1000 * seconds]

    found, _ = hasty(clock, {"a": compiling}, deadline=34)
    assert found == Counter(a=6)


@pytest.mark.parametrize("fails_in", [0, 3])
def test_one_that_fails_is_dropped_whenever_it_does(fails_in: int) -> None:
    clock = FakeClock()

    def failing(number: int) -> Sequence[float]:
        if number == fails_in:
            raise FmmtError("no engine for this shape")
        return [1.0]

    contenders = {**taking(clock, a=0.5, b=1), "bad": failing}
    found, dropped = hasty(clock, contenders, deadline=100)
    assert found == Counter(a=6, b=6)
    assert dropped == {"bad": "no engine for this shape"}
    with pytest.raises(FmmtError, match="no engine for this shape"):
        turns(contenders, Effort(6, clock=clock))


def test_others_are_told_of_turns_and_rounds_as_ever() -> None:
    clock, told = FakeClock(), list[str]()
    effort = Effort(
        2,
        between=lambda: told.append("round"),
        asks=told.append,
        advance=lambda _: told.append("answered"),
        clock=clock,
        haste=Haste(100, lambda *_: pytest.fail("dropped")),
    )
    blocks: tuple[Block, ...] = turns(taking(clock, a=1), effort)
    assert told == ["round", "a", "answered", "a", "answered"] * 2
    assert len(blocks) == 2
