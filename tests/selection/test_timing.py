"""Timing two engines in turns, with engines that take known times."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from fmmt_deploy.selection.timing import FEWEST, MOST, Timing, added, time_beside

CASES = [{"x": np.zeros(1)}, {"x": np.ones(2)}]


class Clock:
    """Moves only when an engine runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed:
    def __init__(self, clock: Clock, milliseconds: float, log: list[str], name: str) -> None:
        self.clock, self.seconds, self.log, self.name = clock, milliseconds / 1000, log, name
        self.drift = 0.0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert inputs["x"].size
        self.log.append(self.name)
        self.clock.now += self.seconds
        return {}


def timed(baseline_ms: float, own_ms: float, seconds: float = 1e9) -> tuple[Timing, list[str]]:
    clock, log = Clock(), []
    engines = [Timed(clock, ms, log, name) for ms, name in ((baseline_ms, "fp32"), (own_ms, "own"))]
    return time_beside(*engines, CASES, "a clock", seconds=seconds, clock=clock), log  # type: ignore[arg-type]


def test_times_and_their_ratio() -> None:
    timing, _ = timed(30, 10)
    assert timing.by == "a clock"
    assert timing.baseline_ms == pytest.approx([60] * MOST)  # both cases together
    assert timing.ms == pytest.approx([20] * MOST)
    assert timing.ratio.median == pytest.approx(3)
    assert [summary.p50_ms for summary in timing.summaries] == pytest.approx([60, 20])
    shown = timing.to_json()
    assert shown["by"] == "a clock"
    assert shown["ratio"]["median"] == pytest.approx(3)  # type: ignore[index]


def test_it_ends_in_time_but_never_with_too_few() -> None:
    assert len(timed(1000, 1000, seconds=0)[0].ms) == FEWEST
    assert FEWEST < len(timed(100, 100, seconds=4)[0].ms) < MOST


def test_they_go_in_turns() -> None:
    _, log = timed(10, 10, seconds=0)
    rounds = log[-2 * 2 * FEWEST :]
    first = [rounds[4 * i] for i in range(FEWEST)]
    assert set(first) == {"fp32", "own"}
    assert all(one != other for one, other in pairwise(first))


def test_what_is_too_fast_is_repeated() -> None:
    timing, log = timed(0.01, 1, seconds=0)
    assert timing.baseline_ms == pytest.approx([0.02] * FEWEST)  # of one run, all the same
    assert log.count("fp32") > 100 * FEWEST


def test_adding_up_graphs() -> None:
    both = added([Timing("ort", (10.0, 20.0), (5.0, 5.0)), Timing("ort", (2.0, 2.0, 2.0), (1.0, 1.0, 1.0))])
    assert (both.by, both.baseline_ms, both.ms) == ("ort, added up", (12.0, 22.0), (6.0, 6.0))
