"""Single stream and offline over sides of known speed, on a clock of our own; figures are worked out by hand."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.files import Figure, offline_figures, single_stream_figures
from fmmt_deploy.benchmark.queries import Query, queries_of
from fmmt_deploy.benchmark.scenarios import Offline, SingleStream
from fmmt_deploy.benchmark.turns import Effort, Haste
from fmmt_deploy.benchmark.validity import Validity
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.reference.presets import PRESETS
from tests.benchmark.fake_clock import FakeClock
from tests.benchmark.sides import side

Figures = Callable[..., tuple[Figure, ...]]


@pytest.fixture
def queries(tmp_path: Path) -> tuple[Query, ...]:
    return queries_of(meld_shaped(PRESETS["tiny"], tmp_path, 2, 1))


def test_single_stream(queries: tuple[Query, ...]) -> None:
    clock, turns = FakeClock(), list[str]()
    sides = [side(clock, "slow", 0.030, turns=turns), side(clock, "fast", 0.010, "cached", turns=turns)]
    told = list[int]()
    effort = Effort(6, between=lambda: told.append(0), advance=told.append, clock=clock)
    slow, fast = single_stream_figures(sides, queries, effort)
    assert isinstance(slow.result, SingleStream)
    assert slow.result.latency.p50_ms == pytest.approx(30)
    assert slow.result.latency.samples == 6 * 8 * 2  # rounds, queries, windows
    assert {p.percent: p.independent for p in slow.result.percentiles} == dict.fromkeys((50, 90, 99), 6 * 8)
    assert (slow.validity, fast.validity) == (Validity(), Validity())
    assert slow.ratio is None
    assert fast.ratio is not None
    assert fast.ratio.median == pytest.approx(3)
    assert fast.ratio.low == pytest.approx(3)
    assert not fast.ratio.reasons
    assert (fast.engine, fast.way, fast.cache) == ("fast", "cached", True)
    assert told == ([0] + [1] * 4) * 6
    assert turns[: 8 * 4 : 16] == ["slow", "fast"]  # and the other way round in the next
    assert turns[8 * 4 : 8 * 8 : 16] == ["fast", "slow"]


def test_offline(queries: tuple[Query, ...]) -> None:
    clock = FakeClock()
    sides = [side(clock, "slow", 0.030, "together"), side(clock, "fast", 0.020, "batched")]
    slow, fast = offline_figures(sides, queries, Effort(6, clock=clock))
    assert isinstance(fast.result, Offline)
    assert fast.result.rates == pytest.approx([50.0] * 6)
    assert fast.result.queries == len(queries)
    assert slow.validity.valid
    assert fast.ratio is not None
    assert fast.ratio.median == pytest.approx(1.5)


@pytest.mark.parametrize("figures", [single_stream_figures, offline_figures])
def test_too_few_rounds_are_invalid(queries: tuple[Query, ...], figures: Figures) -> None:
    clock = FakeClock()
    first, second = figures([side(clock, "a", 0.02), side(clock, "b", 0.01)], queries, Effort(1, clock=clock))
    assert not first.validity.valid
    assert second.ratio is not None
    assert second.ratio.reasons == ("an interval needs at least 6 rounds of both, there are 1",)


@pytest.mark.parametrize("figures", [single_stream_figures, offline_figures])
def test_times_that_never_settle_are_invalid(queries: tuple[Query, ...], figures: Figures) -> None:
    """One gets slower and slower; the other is not blamed for it."""
    clock, calls = FakeClock(), count(1)
    sides = [side(clock, "steady", 0.01), side(clock, "unsteady", lambda: 1e-3 * 1.05 ** next(calls))]
    steady, unsteady = figures(sides, queries, Effort(6, clock=clock))
    assert steady.validity.valid
    (reason,) = unsteady.validity.reasons
    assert "never settled" in reason


def test_it_goes_on_for_so_many_seconds(queries: tuple[Query, ...]) -> None:
    """A round takes 8 × 2 × 0.05 s = 0.8 s: after 13 of them 10 s are over."""
    clock = FakeClock()
    (figure,) = single_stream_figures([side(clock, "a", 0.05)], queries, Effort(6, seconds=10, clock=clock))
    assert len(figure.blocks) == 13


def test_a_row_is_invalid_where_its_table_is(queries: tuple[Query, ...]) -> None:
    clock = FakeClock()
    (figure,) = single_stream_figures([side(clock, "a", 0.05)], queries, Effort(6, clock=clock))
    fine, disturbed = figure.to_json(Validity()), figure.to_json(Validity(("busy",)))
    assert (fine["valid"], disturbed["valid"], disturbed["reasons"]) == (True, False, ["busy"])
    distribution = fine["distribution"]
    assert isinstance(distribution, dict)
    edges, counts = np.array(distribution["edges_ms"]), np.array(distribution["counts"])
    assert counts.sum() == 96
    assert edges[0] <= 50 <= edges[-1]


def test_in_haste_a_ratio_is_over_the_rounds_of_a_side(queries: tuple[Query, ...]) -> None:
    """The last one has time for its first turn only: a figure that is there, and INVALID; the others lose nothing."""
    clock, dropped = FakeClock(), dict[str, str]()
    sides = [side(clock, "slow", 0.03), side(clock, "fast", 0.01), side(clock, "last", 0.02)]
    haste = Haste(16 * (6 * 0.03 + 6 * 0.01 + 2 * 0.02), dropped.__setitem__)  # a turn is of 16 queries
    figures = single_stream_figures(sides, queries, Effort(6, clock=clock, haste=haste))
    slow, fast, last = figures
    assert dropped == {}
    assert slow.validity.valid
    assert fast.validity.valid
    assert fast.ratio is not None
    assert (fast.ratio.blocks, fast.ratio.reasons) == (6, ())
    assert last.ratio is not None
    assert last.ratio.median == pytest.approx(1.5)
    assert last.ratio.reasons == ("an interval needs at least 6 rounds of both, there are 1",)
    assert not last.validity.valid


def test_in_haste_a_baseline_may_fail(queries: tuple[Query, ...]) -> None:
    def fail() -> float:
        raise FmmtError("out of memory")

    clock, dropped = FakeClock(), dict[str, str]()
    sides = [side(clock, "broken", fail, "published"), side(clock, "a", 0.01)]
    effort = Effort(6, clock=clock, haste=Haste(100, dropped.__setitem__))
    (figure,) = offline_figures(sides, queries, effort)
    assert dropped == {"broken published": "out of memory"}
    assert (figure.engine, figure.ratio, figure.validity.valid) == ("a", None, True)
    with pytest.raises(FmmtError, match="out of memory"):
        offline_figures(sides, queries, Effort(6, clock=clock))
