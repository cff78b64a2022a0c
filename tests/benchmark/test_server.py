"""The server against queueing theory and by hand, on a clock that only moves when told to; and once for real."""

import json
import time
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import expon, kstest

from fmmt_deploy.benchmark.server import RealClock, arrivals, bunching_of, serve
from fmmt_deploy.errors import FmmtError
from tests.benchmark.fake_clock import FakeClock

NO_LIMIT = 1e12


def test_arrivals_are_a_poisson_process() -> None:
    """Gaps are exponential with mean 1 / rate: Kolmogorov and Smirnov's test by SciPy."""
    due = arrivals(50.0, 20_000, seed=4)
    assert kstest(np.diff(due, prepend=0), expon(scale=1 / 50).cdf).pvalue > 0.01
    assert (due == arrivals(50.0, 20_000, seed=4)).all()
    assert (due != arrivals(50.0, 20_000, seed=5)).any()


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_waiting_of_constant_service_is_pollaczek_and_khinchines(load: float) -> None:
    """M/D/1: the mean wait is ρ / (2 (1 − ρ)) services."""
    clock = FakeClock()
    run = serve(clock.work(1.0), range(60_000), load, limit_ms=NO_LIMIT, clock=clock, seed=1)
    waits = np.array(run.samples_ms) / 1000 - 1
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.06)
    assert run.batches == 60_000


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_latencies_of_exponential_service_are_exponential(load: float) -> None:
    """M/M/1: time in the system is exponential with rate μ − λ, so p99 is ln(100) / (μ − λ)."""
    clock, random = FakeClock(), np.random.default_rng(6)
    run = serve(clock.work(lambda: random.exponential(1.0)), range(80_000), load, limit_ms=NO_LIMIT, clock=clock)
    assert np.mean(run.samples_ms) / 1000 == pytest.approx(1 / (1 - load), rel=0.06)
    assert run.percentile.ms / 1000 == pytest.approx(np.log(100) / (1 - load), rel=0.08)


def test_a_late_start_is_counted_from_the_arrival() -> None:
    """A stall of 10 s in the first answer is paid by all who arrive meanwhile."""
    clock, durations = FakeClock(1000.0), iter([10.0] + [0.001] * 99)
    due = arrivals(10.0, 100, seed=0)
    run = serve(clock.work(lambda: next(durations)), range(100), 10.0, limit_ms=NO_LIMIT, clock=clock)
    waited = (due[0] + 10 + 0.001 * np.arange(100) - due) * 1000
    meanwhile = due < due[0] + 10
    assert meanwhile.sum() > 50
    np.testing.assert_allclose(np.array(run.samples_ms)[meanwhile], waited[meanwhile], rtol=1e-6)


def test_batches_take_what_waits_in_order_and_never_wait_for_more() -> None:
    clock, batches = FakeClock(), list[list[int]]()

    def answer(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        clock.seconds += 1.0

    run = serve(answer, range(400), 3.0, limit_ms=NO_LIMIT, batch_size=4, clock=clock, seed=2)
    due = arrivals(3.0, 400, seed=2)
    assert [query for batch in batches for query in batch] == list(range(400))
    assert max(map(len, batches)) == 4
    free, first = 0.0, 0  # by hand: what arrived before the server was free, at least one, at most four
    for batch in batches:
        begin = max(free, due[first])
        assert len(batch) == min(4, int((due[first:] <= begin + 1e-6).sum()))
        free = begin + 1.0
        waited = free - due[first : first + len(batch)]  # each from its own arrival
        np.testing.assert_allclose(run.samples_ms[first : first + len(batch)], 1000 * waited, rtol=1e-6)
        first += len(batch)
    assert run.batches == len(batches)
    assert run.to_json()["mean_batch"] == pytest.approx(400 / len(batches))


def test_a_batch_server_bears_what_a_single_one_does_not() -> None:
    clock = FakeClock()
    alone, together = (
        serve(clock.work(1.0), range(2000), 2.0, limit_ms=4000, batch_size=size, clock=clock) for size in (1, 8)
    )
    assert (alone.holds, together.holds) == (False, True)


def test_too_many_late_answers_end_a_run_at_once() -> None:
    """Of 1,000 queries 3 may be late, so that p99 holds with 99 %: P(Bin(1000, 0.01) ≤ 3) = 0.0101 > 0.01, so 2 may."""
    clock = FakeClock()
    late = serve(clock.work(0.002), range(1000), 1.0, limit_ms=1, clock=clock)
    assert late.allowed == 2
    assert (late.holds, late.over, len(late.samples_ms)) == (False, 3, 3)
    assert late.reason == "3 took longer than 1 ms, of 1000 only 2 may"


@pytest.mark.parametrize(("late", "holds"), [(0, True), (2, True), (3, False)])
def test_so_many_may_be_late_and_no_more(late: int, holds: bool) -> None:
    clock, durations = FakeClock(), iter([1.5] * late + [0.001] * 1000)
    run = serve(clock.work(lambda: next(durations)), range(1000), 1e-3, limit_ms=1000, clock=clock)
    assert (run.holds, run.over) == (holds, late)


@pytest.mark.parametrize(("percent", "queries"), [(99, 2000), (90, 1000)])
def test_a_rate_at_the_very_edge_hardly_ever_holds(percent: int, queries: int) -> None:
    """M/M/1 where the true percentile is the limit: 1 % of runs may pass; as independent samples, half of them would.

    Theory: time in the system is exponential with rate μ − λ. 10 of 250 are 4 %.
    """
    limit_ms = 200.0
    rate = 100 - np.log(100 / (100 - percent)) / limit_ms * 1000
    clock, random = FakeClock(), np.random.default_rng(9)
    work = clock.work(lambda: random.exponential(0.01))
    runs = [
        serve(work, range(queries), rate, limit_ms=limit_ms, percent=percent, clock=clock, seed=seed)
        for seed in range(250)
    ]
    assert sum(run.holds for run in runs) <= 10
    assert sum(run.over <= (run.allowed or 0) for run in runs) > 100


def test_bunches_are_counted_by_busy_times() -> None:
    """The two slowest of ten are above p80. In one busy time: (2² + 2²) / (2 + 2); in two: (1 + 1 + 1) / (1 + 1 + 1).

    Bunches of 1, 1 and 2 above p60: (1 + 1 + 4 + 4) / (1 + 1 + 2 + 2).
    """
    times = [1.0] * 8 + [5.0, 6.0]
    assert bunching_of(times, [0] * 8 + [1, 1], 80) == 2
    assert bunching_of(times, [0] * 8 + [1, 2], 80) == 1
    assert bunching_of([*times[2:], 7.0, 8.0], [0] * 6 + [1, 2, 3, 3], 60) == pytest.approx(10 / 6)
    assert bunching_of([1.0] * 10, [0] * 10, 80) == 1


def test_few_late_answers_in_bunches_are_too_many() -> None:
    """Seven stalls of 4.5 s among 5,000 queries make some 30 late; 33 may be, but only if they came one by one."""
    clock = FakeClock()
    durations = iter([4.5 if number % 700 == 699 else 0.001 for number in range(5000)])
    run = serve(clock.work(lambda: next(durations)), range(5000), 1.0, limit_ms=1000, clock=clock)
    assert run.allowed is not None
    assert 20 < run.over <= run.allowed
    assert not run.holds
    assert "the slowest come in bunches" in run.reason


def test_a_run_of_too_few_queries_never_holds() -> None:
    clock = FakeClock()
    run = serve(clock.work(0.001), range(458), 1.0, limit_ms=1000, clock=clock)
    assert run.allowed is None
    assert not run.holds
    assert "p99 needs at least 459" in run.reason
    assert serve(clock.work(0.001), range(459), 1.0, limit_ms=1000, clock=clock).holds
    assert serve(clock.work(0.001), range(44), 1.0, limit_ms=1000, percent=90, clock=clock).holds


def test_a_run_is_told_in_json() -> None:
    clock = FakeClock()
    document = json.loads(
        json.dumps(serve(clock.work(0.5), range(500), 0.1, limit_ms=2000, clock=clock).to_json(), allow_nan=False)
    )
    assert document["queries"] == document["planned"] == 500
    assert document["percentile"]["percent"] == 99
    assert "samples_ms" not in document


def test_in_real_time_a_query_takes_what_its_work_takes() -> None:
    """20 queries of 2 ms at 200 a second: none can be answered sooner, and the last not before it came."""
    run = serve(lambda _: time.sleep(0.002), range(20), 200.0, limit_ms=1000, percent=90, clock=RealClock(), seed=1)
    assert min(run.samples_ms) >= 2.0
    assert run.seconds >= arrivals(200.0, 20, seed=1)[-1] + 0.002


@pytest.mark.parametrize(("rate", "limit", "batch", "count"), [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)])
def test_a_server_of_nothing_is_refused(rate: float, limit: float, batch: int, count: int) -> None:
    with pytest.raises(FmmtError):
        serve(FakeClock().work(1), range(count), rate, limit_ms=limit, batch_size=batch, clock=FakeClock())
