"""How fast a graph is beside its float32 graph: both on the same inputs, in turns, within one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from time import perf_counter

from fmmt_deploy.benchmark.statistics import LatencySummary, Ratio, paired_ratio, summarise
from fmmt_deploy.engines.protocol import Engine
from fmmt_deploy.parity.probes import Inputs

__all__ = ["Timing", "added", "time_beside"]

FEWEST, MOST = 7, 25
"""Rounds; so many at least, whatever they take."""

_SAMPLE_MS = 2.0
"""A sample takes at least as long: what is faster is repeated within it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one graph and of its float32 graph, on the same inputs in turns.

    Attributes:
        by: What computed, in words.
        baseline_ms: Milliseconds of float32 for all inputs, one a round.
        ms: Likewise of the other; index i was taken beside index i of `baseline_ms`.
    """

    by: str
    baseline_ms: tuple[float, ...]
    ms: tuple[float, ...]

    @property
    def ratio(self) -> Ratio:
        """How many times as fast as float32 it is."""
        return paired_ratio(self.baseline_ms, self.ms)

    @property
    def summaries(self) -> tuple[LatencySummary, LatencySummary]:
        """Of float32's times, and of its own."""
        return summarise(self.baseline_ms), summarise(self.ms)

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        baseline, own = self.summaries
        return {"by": self.by, "baseline": asdict(baseline), "own": asdict(own), "ratio": asdict(self.ratio)}


def time_beside(
    baseline: Engine,
    engine: Engine,
    inputs: Sequence[Inputs],
    by: str,
    *,
    seconds: float = 5.0,
    clock: Callable[[], float] = perf_counter,
) -> Timing:
    """Runs both on all inputs again and again; every other round they go in the opposite order.

    Args:
        baseline: The float32 engine.
        engine: The one beside it.
        inputs: What both are asked.
        by: See `Timing`.
        seconds: After `FEWEST` rounds it ends when so much time is gone.
        clock: In seconds.
    """

    def sample(of: Engine, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            for asked in inputs:
                of.run(asked)
        return 1000 * (clock() - begin) / repeats

    engines = (baseline, engine)
    for of in engines:
        sample(of, 1)  # compiles, allocates, and fills caches
    repeats = [max(1, ceil(_SAMPLE_MS / max(1e-6, sample(of, 1)))) for of in engines]
    times: tuple[list[float], list[float]] = ([], [])
    begin = clock()
    while len(times[0]) < FEWEST or (len(times[0]) < MOST and clock() - begin < seconds):
        for i in (0, 1) if len(times[0]) % 2 else (1, 0):
            times[i].append(sample(engines[i], repeats[i]))
    return Timing(by, tuple(times[0]), tuple(times[1]))


def added(timings: Sequence[Timing]) -> Timing:
    """Of several graphs one after the other: their times added up, round by round."""
    baseline = tuple(sum(times) for times in zip(*(t.baseline_ms for t in timings), strict=False))
    own = tuple(sum(times) for times in zip(*(t.ms for t in timings), strict=False))
    return Timing(f"{timings[0].by}, added up", baseline, own)
