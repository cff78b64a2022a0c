"""The largest rate that holds: against queueing theory, and on servers that hold or fail as told."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from fmmt_deploy.benchmark.percentiles import percentile_of
from fmmt_deploy.benchmark.rate_search import largest_rate, queries_for
from fmmt_deploy.benchmark.server import ServerRun, serve
from fmmt_deploy.errors import FmmtError
from tests.benchmark.fake_clock import FakeClock


def told(holds: Callable[[float, int], bool]) -> tuple[Callable[[float, int], ServerRun], list[float]]:
    """A server that holds where told, and the rates it was tried at."""
    rates: list[float] = []

    def attempt(rate: float, seed: int) -> ServerRun:
        rates.append(rate)
        good = holds(rate, seed)
        one = percentile_of([1.0], 99)
        return ServerRun(rate, 100.0, 99, 500, (1.0,), 0, 0, 1.0, 1, 1.0, one, "" if good else "too slow")

    return attempt, rates


@pytest.mark.parametrize("truth", [3.0, 10.0, 63.0])
@pytest.mark.parametrize("start", [1.0, 20.0])
def test_a_threshold_is_found_from_above_and_below(truth: float, start: float) -> None:
    attempt, rates = told(lambda rate, _: rate <= truth)
    found = largest_rate(attempt, start, precision=0.02)
    assert found.rate is not None
    assert found.fails_at is not None
    assert found.rate <= truth < found.fails_at <= found.rate * 1.02
    assert rates.count(found.rate) == 2
    assert found.reasons == ()
    assert len(rates) < 20


def test_exponential_service_bears_what_theory_says() -> None:
    """M/M/1: p99 = ln(100) / (μ − λ) is within the limit up to λ = μ − ln(100) / limit, here 76.97 a second.

    A run claims it with confidence, so what is found stays below.
    """
    clock, random = FakeClock(), np.random.default_rng(3)

    def attempt(rate: float, seed: int) -> ServerRun:
        queries = range(queries_for(rate, limit_ms=200, seconds=200))
        return serve(clock.work(lambda: random.exponential(0.01)), queries, rate, limit_ms=200, clock=clock, seed=seed)

    found = largest_rate(attempt, 50)
    assert found.rate is not None
    assert found.reasons == ()
    assert 55 < found.rate < 77
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["rate_per_second"] == found.rate
    assert len(document["runs"]) == len(found.runs)


def test_luck_that_does_not_come_twice_is_not_claimed() -> None:
    """Rates from 10 on hold the first time only: each falls when tried again, and what is left is below 10."""
    seen: set[float] = set()

    def holds(rate: float, _: int) -> bool:
        first = rate not in seen
        seen.add(rate)
        return rate < 10 or (rate < 13 and first)

    found = largest_rate(told(holds)[0], 4.0)
    assert found.rate is not None
    assert 9 < found.rate < 10
    assert found.reasons == ()


def test_every_run_has_other_arrivals() -> None:
    seeds: list[int] = []
    largest_rate(told(lambda rate, seed: seeds.append(seed) is None and rate < 5)[0], 1.0)
    assert seeds == list(range(len(seeds)))


def test_what_never_holds_is_given_up_soon() -> None:
    attempt, rates = told(lambda *_: False)
    found = largest_rate(attempt, 16.0)
    assert rates == [16, 8, 4, 2, 1]
    assert found.rate is None
    assert found.reasons == ("no rate held, down to 1 a second",)
    assert found.to_json()["valid"] is False


def test_what_never_fails_has_no_largest_rate() -> None:
    found = largest_rate(told(lambda *_: True)[0], 1.0, max_runs=5)
    assert (found.rate, found.fails_at) == (16, None)
    assert "no rate failed, up to 16 a second" in found.reasons[0]


@pytest.mark.parametrize(("max_runs", "reason"), [(3, "between 8 and 11.3"), (5, "held only once")])
def test_a_search_that_ends_too_soon_says_so(max_runs: int, reason: str) -> None:
    """8 holds, 16 fails, 11.3 fails, 9.5 holds, 10.4 fails; then 9.5 would be tried again."""
    found = largest_rate(told(lambda rate, _: rate < 10)[0], 8.0, precision=0.1, max_runs=max_runs)
    assert reason in found.reasons[0]
    assert largest_rate(told(lambda rate, _: rate < 10)[0], 8.0, precision=0.1, max_runs=6).reasons == ()


def test_time_that_is_up_ends_the_search() -> None:
    attempt, rates = told(lambda rate, _: rate < 10)
    found = largest_rate(attempt, 8.0, in_time=lambda rate: rate >= 8 and len(rates) < 2)
    assert rates == [8, 16]
    assert found.rate == 8
    assert "ended before" in found.reasons[0]
    with pytest.raises(FmmtError, match="no time"):
        largest_rate(attempt, 8.0, in_time=lambda _: False)


def test_a_search_needs_a_rate() -> None:
    with pytest.raises(FmmtError, match="positive rate"):
        largest_rate(told(lambda *_: True)[0], 0.0)


def test_runs_are_long_enough_for_the_bound_the_clock_and_the_limit() -> None:
    """4 × 459 for p99; 10 s at 200 a second; ten limits of 3 s at 100 a second."""
    assert queries_for(1.0, limit_ms=100) == 4 * 459
    assert queries_for(200.0, limit_ms=100) == 2000
    assert queries_for(100.0, limit_ms=3000) == 3000
    assert queries_for(1.0, limit_ms=100, percent=90) == 4 * 44
