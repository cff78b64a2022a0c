"""The server scenario over real engines: which rate of arrivals each side holds, one side after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fmmt_deploy.benchmark.files import Figure
from fmmt_deploy.benchmark.queries import Query, timed
from fmmt_deploy.benchmark.rate_search import Server, largest_rate, queries_for
from fmmt_deploy.benchmark.scenarios import drawn
from fmmt_deploy.benchmark.server import Clock, RealClock, ServerRun, serve
from fmmt_deploy.benchmark.sides import Side
from fmmt_deploy.benchmark.validity import Validity

__all__ = ["ServerSettings", "server_figures"]

_PERCENT, _TRIED = 99, 8
"""So many of a hundred queries must be answered within the limit; from so many the first rate is guessed."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server must hold.

    Attributes:
        limit_ms: Within which 99 of 100 must be answered, from their arrival.
        batch_size: The most that it answers at once.
        run_seconds: The shortest run at a rate.
        search_seconds: After so long no further run is begun.
    """

    limit_ms: float
    batch_size: int
    run_seconds: float = 5.0
    search_seconds: float = 120.0


def server_figures(
    sides: Sequence[Side],
    queries: Sequence[Query],
    settings: ServerSettings,
    looked: Callable[[], object] = lambda: None,
    clock: Clock | None = None,
) -> tuple[Figure, ...]:
    """The largest rate that each side holds; a run that is too short to say is repeated for twice as long.

    Args:
        sides: Which.
        queries: What arrives is drawn from them, with replacement.
        settings: What must hold.
        looked: Called after every run.
        clock: Default this machine's.
    """
    figures = []
    for side in sides:
        found = _largest(side, queries, settings, looked, clock or RealClock())
        reasons = (*found.reasons, *_undecided(found))
        figures.append(Figure(side.choice.name, side.way, side.cache, found, None, Validity(reasons)))
    return tuple(figures)


def _largest(
    side: Side, queries: Sequence[Query], settings: ServerSettings, looked: Callable[[], object], clock: Clock
) -> Server:
    for query in queries:
        side.answering.ready(query)
    units, begun = [(query,) for query in queries], clock.now()
    tried = timed(side.answering, drawn(units, _TRIED, 0), clock.now)
    start = 1000 * _TRIED / sum(tried) / 2  # half the rate of one after the other

    def count(rate: float) -> int:
        return queries_for(rate, limit_ms=settings.limit_ms, percent=_PERCENT, seconds=settings.run_seconds)

    def in_time(rate: float, number: int | None = None) -> bool:
        return clock.now() - begun + (number or count(rate)) / rate < settings.search_seconds

    def attempt(rate: float, seed: int) -> ServerRun:
        number = count(rate)
        while True:
            run = serve(
                side.answering.answer,
                drawn(units, number, seed),
                rate,
                limit_ms=settings.limit_ms,
                percent=_PERCENT,
                batch_size=settings.batch_size,
                seed=seed,
                clock=clock,
            )
            looked()
            number *= 2
            if not _is_undecided(run) or not in_time(rate, number):
                return run

    if not in_time(start):
        seconds, most = count(start) / start, settings.search_seconds
        why = f"a run at {start:.3g} a second takes {seconds:.0f} s, and the search {most:g} s at most"
        return Server(settings.limit_ms, _PERCENT, settings.batch_size, None, None, (), (why,))
    return largest_rate(attempt, start, batch_size=settings.batch_size, in_time=in_time)


def _is_undecided(run: ServerRun) -> bool:
    """Whether it was too short to say: not too many answers were late, but too few were independent of each other."""
    return not run.holds and run.percentile.high_ms is None and (run.allowed is None or run.over <= run.allowed)


def _undecided(found: Server) -> tuple[str, ...]:
    """Why the rate may be larger than the one that was found."""
    rates = [run.rate for run in found.runs if _is_undecided(run)]
    if found.fails_at is None or found.fails_at not in rates:
        return ()
    return (f"at {found.fails_at:.3g} a second there was no time for enough answers: the largest rate may be larger",)
