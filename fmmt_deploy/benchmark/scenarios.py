"""Single stream and offline, after MLPerf's scenarios of these names, from the times of queries.

A query is what one caller asks: an utterance. Single stream sends the next when the last is answered, and is told by
its p90. Offline hands all over at once, and is told by its throughput. (`server` has the third.) Queries are drawn with
replacement from those there are, so that a percentile is one of the workload and not of a list's beginning.

What MLPerf has and this has not: its load generator, durations, numbers of queries, data sets and reviews. No result
may carry its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from fmmt_deploy.benchmark.percentiles import Percentile, percentiles_of
from fmmt_deploy.benchmark.statistics import LatencySummary, Samples, median_interval, summarise
from fmmt_deploy.errors import FmmtError

__all__ = [
    "Offline",
    "ScenarioName",
    "SingleStream",
    "drawn",
    "offline_from_seconds",
    "single_stream_from_samples",
]

ScenarioName: TypeAlias = Literal["single-stream", "server", "offline"]
Query = TypeVar("Query")

CLAIMED = 90
"""The percentile that single stream is told by."""

FEWEST_REPETITIONS = 3
"""Of offline: fewer have no spread to speak of."""


@dataclass(frozen=True)
class SingleStream:
    """Latencies of queries that followed each other.

    Attributes:
        samples_ms: Of every query, in order.
        latency: What they say together.
        percentiles: p50, p90 and p99 with their bounds.
        claimed: The percentile that the scenario is told by.
        reasons: Why that percentile can't be claimed; empty where it can.
    """

    samples_ms: tuple[float, ...] = field(repr=False)
    latency: LatencySummary
    percentiles: tuple[Percentile, ...]
    claimed: int
    reasons: tuple[str, ...]
    scenario: ScenarioName = "single-stream"

    def to_json(self) -> dict[str, object]:
        """Plain values for a report, without the samples."""
        return {
            "scenario": self.scenario,
            "latency": self.latency.to_json(),
            "percentiles": [percentile.to_json() for percentile in self.percentiles],
            "claimed": self.claimed,
            "per_second": 1000 / self.latency.mean_ms,
            "valid": not self.reasons,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Offline:
    """Throughput of all queries at once, over repetitions.

    Attributes:
        queries: In one repetition.
        seconds: Of every repetition.
        reasons: Why it says little; empty where it does not.
    """

    queries: int
    seconds: tuple[float, ...]
    reasons: tuple[str, ...]
    scenario: ScenarioName = "offline"

    @property
    def rates(self) -> tuple[float, ...]:
        """Queries a second, of every repetition."""
        return tuple(self.queries / seconds for seconds in self.seconds)

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {
            "scenario": self.scenario,
            "queries": self.queries,
            "repetitions": len(self.seconds),
            "per_second": {
                "median": median(self.rates),
                "lowest": min(self.rates),
                "highest": max(self.rates),
                "interval": list(median_interval(np.asarray(self.rates), 0.95)[:2]),
            },
            "valid": not self.reasons,
            "reasons": list(self.reasons),
        }


def drawn(units: Sequence[Sequence[Query]], count: int, seed: int) -> tuple[Query, ...]:
    """Queries of units that are drawn with replacement, each unit's in their order, until there are enough.

    Args:
        units: What is drawn: single utterances as units of one; or dialogues, where an answer depends on what was
            computed for the utterance before it (the dialogue cache).
        count: At least so many queries; the last unit is never cut.
        seed: Of the draws.

    Raises:
        FmmtError: There is nothing to draw from.
    """
    if not any(len(unit) for unit in units):
        raise FmmtError("There is no query to draw.")
    random, queries = np.random.default_rng(seed), list[Query]()
    while len(queries) < count:
        queries += units[int(random.integers(len(units)))]
    return tuple(queries)


def single_stream_from_samples(
    samples_ms: Samples, *, independent: int | None = None, claimed: int = CLAIMED
) -> SingleStream:
    """What latencies of single queries say.

    Args:
        samples_ms: Of every query, in order.
        independent: As how many independent samples they count; see `percentile_of`.
        claimed: The percentile that must have its bound.

    Raises:
        FmmtError: There is no sample, or one that is not a positive number.
    """
    latency = summarise(samples_ms)
    percentiles = percentiles_of(samples_ms, sorted({50, 90, 99, claimed}), independent=independent)
    reasons = tuple(chain.from_iterable(p.reasons for p in percentiles if p.percent == claimed))
    return SingleStream(tuple(float(t) for t in samples_ms), latency, percentiles, claimed, reasons)


def offline_from_seconds(queries: int, seconds: Sequence[float]) -> Offline:
    """What the times of whole sets of queries say.

    Raises:
        FmmtError: There is no query, no repetition, or a time that is not positive.
    """
    if queries < 1 or not seconds or min(seconds) <= 0:
        raise FmmtError(f"A throughput needs queries and positive times, found {queries} and {list(seconds)[:5]}.")
    few = f"a throughput needs at least {FEWEST_REPETITIONS} repetitions for a spread, there are {len(seconds)}"
    return Offline(queries, tuple(seconds), (few,) if len(seconds) < FEWEST_REPETITIONS else ())
