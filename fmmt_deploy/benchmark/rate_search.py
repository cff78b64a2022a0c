"""The largest rate of arrivals that a server holds: bracketed, halved, and confirmed with other arrivals.

A rate that failed once counts as one that fails, and one that holds must hold twice: of many rates tried, the largest
that held once is partly luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

from fmmt_deploy.benchmark.order_ranks import needed_samples
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.server import ServerRun
from fmmt_deploy.errors import FmmtError

__all__ = ["Server", "largest_rate", "queries_for"]

PRECISION = 0.05
"""The search ends when the lowest rate that fails is within so much of the largest that holds."""

MAX_RUNS = 24
LOWEST = 1 / 16
"""Of the first rate: below that hardly a query waits, so a rate that fails there fails by the time of an answer."""

BUNCHING = 4
"""So many times the samples that a percentile's bound needs: the slowest answers come in bunches."""

LIMITS_LONG = 10
"""A run lasts at least so many limits: a queue that grows would else end before it shows."""


@dataclass(frozen=True)
class Server:
    """Which rate a server holds.

    Attributes:
        limit_ms: Within which `percent` of a hundred must be answered.
        percent: See `limit_ms`.
        batch_size: The most that it answers at once.
        rate: The largest that held, below all that did not; None where none did.
        fails_at: The smallest that did not hold; None where none was found.
        runs: All of them, in order.
        reasons: Why the figure can't be claimed; empty where it can.
    """

    limit_ms: float
    percent: int
    batch_size: int
    rate: float | None
    fails_at: float | None
    runs: tuple[ServerRun, ...]
    reasons: tuple[str, ...]
    scenario: ScenarioName = "server"

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {
            "scenario": self.scenario,
            "limit_ms": self.limit_ms,
            "percent": self.percent,
            "batch_size": self.batch_size,
            "rate_per_second": self.rate,
            "fails_at": self.fails_at,
            "runs": [run.to_json() for run in self.runs],
            "valid": not self.reasons,
            "reasons": list(self.reasons),
        }


def queries_for(rate: float, *, limit_ms: float, percent: int = 99, seconds: float = 10.0) -> int:
    """How many queries a run at that rate needs: enough for the percentile's bound, for long enough.

    Args:
        rate: Of arrivals, a second.
        limit_ms: See `Server`.
        percent: See `Server`.
        seconds: The shortest run; also at least ten limits.
    """
    return max(BUNCHING * needed_samples(percent), ceil(rate * max(seconds, LIMITS_LONG * limit_ms / 1000)))


def largest_rate(
    attempt: Callable[[float, int], ServerRun],
    start: float,
    *,
    batch_size: int = 1,
    precision: float = PRECISION,
    max_runs: int = MAX_RUNS,
    in_time: Callable[[float], bool] = lambda _: True,
) -> Server:
    """Finds it: doubles or halves until one rate holds and one fails, halves what is between, and tries it again.

    Args:
        attempt: Runs the server at a rate (`serve` with `queries_for` that rate), with a number as the arrivals' seed.
        start: The first rate; a guess, such as half of one over the mean time of an answer.
        batch_size: Of the server, for the record.
        precision: See `PRECISION`.
        max_runs: After so many it ends with what it has.
        in_time: Asked before a run at a rate whether there is time for it (about `queries_for` that rate, over the
            rate); if not, it ends with what it has.

    Raises:
        FmmtError: The first rate is not positive, or there was no time for a single run.
    """
    if not start > 0:
        raise FmmtError(f"A search begins at a positive rate, found {start}.")
    search = _Search(start, precision)
    while (rate := search.next_rate()) is not None and len(search.runs) < max_runs and in_time(rate):
        search.runs.append(attempt(rate, len(search.runs)))
    if not search.runs:
        raise FmmtError(f"There is no time for a single run at {start:.3g} queries a second.")
    first = search.runs[0]
    return Server(
        limit_ms=first.limit_ms,
        percent=first.percent,
        batch_size=batch_size,
        rate=search.best,
        fails_at=search.worst,
        runs=tuple(search.runs),
        reasons=search.reasons(),
    )


class _Search:
    """The rates tried so far, and which comes next."""

    def __init__(self, start: float, precision: float) -> None:
        self._start, self._precision = start, precision
        self.runs: list[ServerRun] = []

    @property
    def worst(self) -> float | None:
        """The smallest rate that failed."""
        return min((run.rate for run in self.runs if not run.holds), default=None)

    @property
    def best(self) -> float | None:
        """The largest rate that held, below all that failed."""
        worst = self.worst
        return max((r.rate for r in self.runs if r.holds and (worst is None or r.rate < worst)), default=None)

    def next_rate(self) -> float | None:
        """Which rate to try now; None where nothing is left to find out."""
        best, worst = self.best, self.worst
        if best is None:
            return self._start if worst is None else worst / 2 if worst / 2 >= LOWEST * self._start else None
        if worst is None:
            return 2 * best
        if worst > best * (1 + self._precision):
            return sqrt(best * worst)
        return None if self._held_twice() else best

    def reasons(self) -> tuple[str, ...]:
        """Why the best rate can't be claimed."""
        best, worst = self.best, self.worst
        if best is None:
            return (f"no rate held, down to {min(run.rate for run in self.runs):.3g} a second",)
        if worst is None:
            return (f"no rate failed, up to {best:.3g} a second: the largest is not known",)
        if worst > best * (1 + self._precision):
            return (f"the search ended before it knew what is between {best:.3g} and {worst:.3g} a second",)
        return () if self._held_twice() else (f"{best:.3g} a second held only once, before the search ended",)

    def _held_twice(self) -> bool:
        return sum(run.holds and run.rate == self.best for run in self.runs) > 1
