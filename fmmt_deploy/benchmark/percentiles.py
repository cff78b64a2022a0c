"""Percentiles of latencies with exact bounds, so that none is claimed from too few samples.

A sample bounds the percentile with a stated confidence, by its rank (see `order_ranks`). As in MLPerf's early stopping,
samples count as independent of each other; those that are known not to be (a query that is measured twice, answers that
waited for the same one) count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil

import numpy as np

from fmmt_deploy.benchmark.order_ranks import CONFIDENCE, allowed_above, needed_samples
from fmmt_deploy.benchmark.statistics import DoubleArray, Samples
from fmmt_deploy.errors import FmmtError

__all__ = ["Percentile", "percentile_of", "percentiles_of"]


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of latencies.

    Attributes:
        percent: Which, 1 to 99.
        ms: The nearest-rank percentile of the samples: always a time that was measured.
        low_ms: The true percentile is at least that, with `confidence`; None where the samples don't say.
        high_ms: The true percentile is at most that, with `confidence`; None where there are too few samples.
        confidence: Of each bound.
        samples: How many were measured.
        independent: As how many independent ones they count.
        needed: How many independent ones an upper bound needs.
    """

    percent: int
    ms: float
    low_ms: float | None
    high_ms: float | None
    confidence: float
    samples: int
    independent: int
    needed: int

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it can't be claimed; empty where it can."""
        if self.high_ms is not None:
            return ()
        counted = "" if self.independent == self.samples else f" that count as {self.independent}"
        return (
            f"p{self.percent} needs at least {self.needed} independent samples for a bound at "
            f"{self.confidence:.0%}, there are {self.samples}{counted}",
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {**asdict(self), "valid": not self.reasons, "reasons": list(self.reasons)}


def percentile_of(
    samples_ms: Samples, percent: int, *, confidence: float = CONFIDENCE, independent: int | None = None
) -> Percentile:
    """A percentile with its exact bounds.

    Args:
        samples_ms: `(samples,)`, in any order.
        percent: Which, 1 to 99.
        confidence: Of each bound by itself, 0 to 1.
        independent: As how many independent samples they count; default all of them. With fewer, the bounds are those
            of so many, at the same share of the samples: right where samples that belong together are alike, and wider
            than need be where they are not.

    Raises:
        FmmtError: There is no sample, one that is not a positive number, or a percent or count that makes no sense.
    """
    times = _sorted_times(samples_ms)
    count = len(times) if independent is None else independent
    if not 1 <= percent <= 99 or not 1 <= count <= len(times):
        raise FmmtError(f"p{percent} of {len(times)} samples that count as {count} makes no sense.")
    above = allowed_above(count, percent, confidence)
    below = allowed_above(count, 100 - percent, confidence)  # the same bound, seen from the other end
    scale = len(times) / count
    return Percentile(
        percent=percent,
        ms=_ranked(times, percent * len(times) / 100),
        low_ms=None if below is None else float(times[int(below * scale)]),
        high_ms=None if above is None else _ranked(times, (count - above) * scale),
        confidence=confidence,
        samples=len(times),
        independent=count,
        needed=needed_samples(percent, confidence),
    )


def percentiles_of(
    samples_ms: Samples, percents: Sequence[int] = (50, 90, 99), *, independent: int | None = None
) -> tuple[Percentile, ...]:
    """Several percentiles of the same samples; see `percentile_of`."""
    return tuple(percentile_of(samples_ms, percent, independent=independent) for percent in percents)


def _ranked(times: DoubleArray, rank: float) -> float:
    """The sample of a rank, counted from 1; within rounding, a whole rank is itself and others are the next one."""
    return float(times[max(1, ceil(rank - 1e-9 * len(times))) - 1])


def _sorted_times(samples_ms: Samples) -> DoubleArray:
    times = np.sort(np.asarray(samples_ms, np.float64))
    if not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise FmmtError(f"Times must be positive numbers, and at least one, found {times.tolist()[:5]}.")
    return times
