"""Server, after MLPerf's scenario of that name: queries arrive when they like, and must be answered within a limit.

Arrivals are a Poisson process; its times are drawn before the run. One server answers what waits, first come first
served, up to a batch at a time, in real time: while it computes, queries arrive and wait, and where none waits it
sleeps. A latency is counted from the moment of a query's arrival, not from when the server got round to it, so a stall
is paid by all who had to wait (no coordinated omission). Nothing is simulated from measured service times.

Arrivals cost nothing themselves: there is no network, and no thread beside the server's that takes them in.

Latencies in a queue are not independent: who comes late makes others late. A bound that takes them for independent, as
MLPerf's early stopping does, lets a rate at the very edge of the limit pass in half of all runs (M/M/1, simulated). A
queue begins afresh whenever the server is idle, so the slowest answers are counted by busy times: if they come in
bunches of five, a fifth as many samples count. That makes it 1 to 3 %, and a run must be that much longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from fmmt_deploy.benchmark.order_ranks import allowed_above
from fmmt_deploy.benchmark.percentiles import Percentile, percentile_of
from fmmt_deploy.benchmark.statistics import DoubleArray
from fmmt_deploy.errors import FmmtError

__all__ = ["Clock", "RealClock", "ServerRun", "arrivals", "bunching_of", "serve"]

Query = TypeVar("Query")

_RESOLUTION = 1e-9
"""Seconds; a query that arrives within so little is there: a clock of floats may be unable to move on by less."""


class Clock(Protocol):
    """Time that passes, and can be waited for."""

    def now(self) -> float:
        """Seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits for about that long."""
        ...


class RealClock:
    """This machine's."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        time.sleep(seconds)


@dataclass(frozen=True)
class ServerRun:
    """What a server did at one rate.

    Attributes:
        rate: Queries that arrived a second, on average.
        limit_ms: Within which so many must be answered.
        percent: How many of a hundred.
        planned: Queries.
        samples_ms: Latencies from arrival to answer, in order of arrival; fewer than planned if it ended early.
        over: How many took longer than the limit.
        allowed: How many may, of those planned; None where no number of them would do.
        seconds: From the first arrival's clock to the last answer.
        batches: How often it answered.
        bunching: How many of the slowest answers come together, see `bunching_of`.
        percentile: Of the samples, which count as so many times fewer independent ones.
        reason: Why the rate does not hold; empty where it does.
    """

    rate: float
    limit_ms: float
    percent: int
    planned: int
    samples_ms: tuple[float, ...] = field(repr=False)
    over: int
    allowed: int | None
    seconds: float
    batches: int
    bunching: float
    percentile: Percentile
    reason: str

    @property
    def holds(self) -> bool:
        """Whether the percentile is within the limit, with confidence."""
        return not self.reason

    def to_json(self) -> dict[str, object]:
        """Plain values for a report, without the samples."""
        return {
            "rate_per_second": self.rate,
            "holds": self.holds,
            "reason": self.reason,
            "queries": len(self.samples_ms),
            "planned": self.planned,
            "over": self.over,
            "allowed": self.allowed,
            "seconds": self.seconds,
            "mean_batch": len(self.samples_ms) / self.batches,
            "bunching": self.bunching,
            "percentile": self.percentile.to_json(),
        }


def arrivals(rate: float, count: int, seed: int) -> DoubleArray:
    """Seconds at which queries arrive: a Poisson process, so the gaps between them are exponential.

    Raises:
        FmmtError: The rate is not positive, or there is no query.
    """
    if not (rate > 0 and count > 0):
        raise FmmtError(f"Queries arrive at a positive rate, found {count} at {rate} a second.")
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def serve(
    answer: Callable[[Sequence[Query]], object],
    queries: Sequence[Query],
    rate: float,
    *,
    limit_ms: float,
    percent: int = 99,
    batch_size: int = 1,
    seed: int = 0,
    clock: Clock | None = None,
) -> ServerRun:
    """Answers queries as they arrive; ends early when more have taken too long than may in all.

    Args:
        answer: Answers a batch; returns when the answers are there.
        queries: In order of their arrival.
        rate: At which they arrive, a second.
        limit_ms: Within which `percent` of a hundred must be answered.
        percent: See `limit_ms`.
        batch_size: At most so many at once; what waits is never waited with for more to come.
        seed: Of the arrivals.
        clock: Default this machine's.

    Raises:
        FmmtError: There is no query, or a number makes no sense.
    """
    if batch_size < 1 or not limit_ms > 0:
        raise FmmtError(f"A server needs a batch size and a limit, found {batch_size} and {limit_ms} ms.")
    clock, due = clock or RealClock(), arrivals(rate, len(queries), seed)
    allowed = allowed_above(len(queries), percent)
    begin, times, busy, over, batches = clock.now(), list[float](), list[int](), 0, 0
    for first, last, fresh in _batches(due, batch_size, begin, clock):
        answer(queries[first:last])
        times += (1000 * (clock.now() - begin - due[first:last])).tolist()
        busy += [(busy[-1] if busy else 0) + fresh] * (last - first)
        over, batches = over + sum(ms > limit_ms for ms in times[first:last]), batches + 1
        if allowed is not None and over > allowed:
            break
    bunching = bunching_of(times, busy, percent)
    percentile = percentile_of(times, percent, independent=max(1, int(len(times) / bunching)))
    return ServerRun(
        rate=rate,
        limit_ms=limit_ms,
        percent=percent,
        planned=len(queries),
        samples_ms=tuple(times),
        over=over,
        allowed=allowed,
        seconds=clock.now() - begin,
        batches=batches,
        bunching=bunching,
        percentile=percentile,
        reason=_reason(percentile, over, allowed, len(queries), limit_ms),
    )


def bunching_of(samples_ms: Sequence[float], busy: Sequence[int], percent: int) -> float:
    """How many of the answers above a percentile come together in a busy time, as such an answer sees it.

    By that, the variance of their number is above that of independent ones: busy times are independent of each other,
    and such answers are rare. The largest bunch counts twice: of few, the really large ones are not among them.

    Args:
        samples_ms: Latencies.
        busy: The number of the busy time of each: whoever finds the server idle begins a new one.
        percent: See `percentile_of`.

    Returns:
        At least 1.
    """
    times = np.asarray(samples_ms)
    slow = times > np.percentile(times, percent, method="inverted_cdf")
    if not slow.any():
        return 1.0
    bunches = np.bincount(np.asarray(busy)[slow]).astype(np.float64)
    largest = bunches.max()
    return float(((bunches**2).sum() + largest**2) / (bunches.sum() + largest))


def _batches(due: DoubleArray, batch_size: int, begin: float, clock: Clock) -> Iterator[tuple[int, int, bool]]:
    """From where to where each batch reaches: whatever waits when the server is free; and whether it was idle."""
    first, idle = 0, False
    while first < len(due):
        now = clock.now() - begin
        if due[first] > now + _RESOLUTION:
            clock.sleep(float(due[first]) - now)
            idle = True
            continue
        waiting = int(np.searchsorted(due, now + _RESOLUTION, side="right"))
        last = min(waiting, first + batch_size)
        yield first, last, idle
        first, idle = last, False


def _reason(percentile: Percentile, over: int, allowed: int | None, planned: int, limit_ms: float) -> str:
    if allowed is not None and over > allowed:
        return f"{over} took longer than {limit_ms:g} ms, of {planned} only {allowed} may"
    if percentile.high_ms is None:
        return percentile.reasons[0]
    if percentile.high_ms > limit_ms:
        return (
            f"p{percentile.percent} may be up to {percentile.high_ms:.4g} ms, as {percentile.samples} samples count as "
            f"{percentile.independent}: the slowest come in bunches"
        )
    return ""
