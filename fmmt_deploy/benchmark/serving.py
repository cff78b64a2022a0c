"""The server scenario over real engines: which rate of arrivals each side holds, one side after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

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
    """The largest rate that each side holds.

    Args:
        sides: Which.
        queries: What arrives is drawn from them, with replacement.
        settings: What must hold.
        looked: Called after every run.
        clock: Default this machine's.
    """
    return tuple(
        Figure(side.choice.name, side.way, side.cache, found, None, Validity(found.reasons))
        for side in sides
        for found in (_largest(side, queries, settings, looked, clock or RealClock()),)
    )


def _largest(
    side: Side, queries: Sequence[Query], settings: ServerSettings, looked: Callable[[], object], clock: Clock
) -> Server:
    for query in queries:
        side.answering.ready(query)
    units, begun = [(query,) for query in queries], perf_counter()
    start = 500 * _TRIED / sum(timed(side.answering, drawn(units, _TRIED, 0)))  # half of what one at a time takes

    def count(rate: float) -> int:
        return queries_for(rate, limit_ms=settings.limit_ms, percent=_PERCENT, seconds=settings.run_seconds)

    def attempt(rate: float, seed: int) -> ServerRun:
        arriving = drawn(units, count(rate), seed)
        limit, most = settings.limit_ms, settings.batch_size
        run = serve(
            side.answering.answer,
            arriving,
            rate,
            limit_ms=limit,
            percent=_PERCENT,
            batch_size=most,
            seed=seed,
            clock=clock,
        )
        looked()
        return run

    def in_time(rate: float) -> bool:
        return perf_counter() - begun + count(rate) / rate < settings.search_seconds

    if not in_time(start):
        seconds = count(start) / start
        why = (
            f"a run at {start:.3g} a second takes {seconds:.0f} s, and the search {settings.search_seconds:g} s at most"
        )
        return Server(settings.limit_ms, _PERCENT, settings.batch_size, None, None, (), (why,))
    return largest_rate(attempt, start, batch_size=settings.batch_size, in_time=in_time)
