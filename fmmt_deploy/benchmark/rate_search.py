"""The largest rate of arrivals that a server holds: bracketed, halved, and confirmed with other arrivals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

from fmmt_deploy.benchmark.percentiles import needed_samples
from fmmt_deploy.benchmark.scenarios import ScenarioName
from fmmt_deploy.benchmark.server import ServerRun
from fmmt_deploy.errors import FmmtError

__all__ = ["Server", "largest_rate", "queries_for"]

PRECISION = 0.05
"""The search ends when the lowest rate that fails is within so much of the largest that holds."""

MAX_RUNS = 24
LOWEST = 1 / 16
"""Of the first rate: below that hardly a query waits, so a rate that fails there fails by the time of an answer."""

LIMITS_LONG = 10
"""A run lasts at least so many limits: a queue that grows would else end before it shows."""


@dataclass(frozen=True)
class Server:
    """Which rate a server holds.

    Attributes:
        limit_ms: Within which `percent` of a hundred must be answered.
        percent: See `limit_ms`.
        batch_size: The most that it answers at once.
        rate: The largest that held, and held again with other arrivals; None where none did.
        fails_at: The smallest that did not hold, above `rate`; None where none was found.
        runs: All of them, in order; the last that holds is the confirmation.
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
    return max(needed_samples(percent), ceil(rate * max(seconds, LIMITS_LONG * limit_ms / 1000)))


def largest_rate(
    attempt: Callable[[float, int], ServerRun],
    start: float,
    *,
    batch_size: int = 1,
    precision: float = PRECISION,
    max_runs: int = MAX_RUNS,
    in_time: Callable[[float], bool] = lambda _: True,
) -> Server:
    """Finds it: doubles or halves until one rate holds and one fails, halves what is between, and confirms.

    Of many rates tried, the largest that held is partly luck. So it is tried again with other arrivals, and if it
    fails, the next smaller that held is.

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
    search = _Search(attempt, precision, max_runs, in_time)
    search.bracket(start)
    search.bisect()
    rate = search.confirmed()
    if not search.runs:
        raise FmmtError(f"There is no time for a single run at {start:.3g} queries a second.")
    last = search.runs[-1]
    above = [run.rate for run in search.runs if not run.holds and (rate is None or run.rate > rate)]
    reasons = search.reasons(rate)
    return Server(last.limit_ms, last.percent, batch_size, rate, min(above, default=None), tuple(search.runs), reasons)


class _Search:
    """The rates tried so far."""

    def __init__(
        self,
        attempt: Callable[[float, int], ServerRun],
        precision: float,
        max_runs: int,
        in_time: Callable[[float], bool],
    ) -> None:
        self._attempt, self._precision, self._left, self._in_time = attempt, precision, max_runs, in_time
        self.runs: list[ServerRun] = []

    @property
    def best(self) -> float | None:
        """The largest rate that holds, below all that fail."""
        worst = self.worst
        return max((r.rate for r in self.runs if r.holds and (worst is None or r.rate < worst)), default=None)

    @property
    def worst(self) -> float | None:
        """The smallest rate that fails."""
        return min((run.rate for run in self.runs if not run.holds), default=None)

    def bracket(self, start: float) -> None:
        """Until one holds and one fails."""
        rate = start
        while (self.best is None or self.worst is None) and rate >= LOWEST * start and self._more(rate):
            rate = rate * 2 if self._run(rate) else rate / 2

    def bisect(self) -> None:
        """Until they are close; leaves a run to confirm with."""
        while self.best is not None and self.worst is not None and self.worst > self.best * (1 + self._precision):
            rate = sqrt(self.best * self.worst)
            if not self._more(rate, spare=1):
                return
            self._run(rate)

    def confirmed(self) -> float | None:
        """The largest of those that held which holds again."""
        for rate in sorted({run.rate for run in self.runs if run.holds}, reverse=True):
            if (self.worst is None or rate < self.worst) and self._more(rate) and self._run(rate):
                return rate
        return None

    def reasons(self, rate: float | None) -> tuple[str, ...]:
        """Why the rate can't be claimed."""
        if rate is None and not any(run.holds for run in self.runs):
            return (f"no rate held, down to {min(run.rate for run in self.runs):.3g} a second",)
        if rate is None:
            return ("no rate held twice, with other arrivals, before the runs or the time ended",)
        above = [run.rate for run in self.runs if not run.holds and run.rate > rate]
        if not above:
            return (f"no rate failed, up to {rate:.3g} a second: the largest is not known",)
        if min(above) > rate * (1 + self._precision) ** 2:
            return (
                f"between {rate:.3g} and {min(above):.3g} a second it was not searched: the runs or the time ended",
            )
        return ()

    def _run(self, rate: float) -> bool:
        self._left -= 1
        self.runs.append(self._attempt(rate, len(self.runs)))
        return self.runs[-1].holds

    def _more(self, rate: float, spare: int = 0) -> bool:
        return self._left > spare and self._in_time(rate)
