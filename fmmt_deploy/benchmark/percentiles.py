"""Percentiles of latencies with exact bounds, so that none is claimed from too few samples.

Of n independent samples, how many lie above the true p-th percentile is binomial, whatever their distribution. So an
order statistic bounds the percentile with a stated confidence, and there are sample sizes below which not even the
largest sample does: 44 for p90 and 459 for p99 at 99 %. MLPerf's early-stopping estimate is the same bound, but one
sample higher (it needs 64 and 662). As there, samples count as independent of each other; those that are known not to
be (a query that is measured twice, utterances of one dialogue) count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil, exp, lgamma, log, log1p

import numpy as np

from fmmt_deploy.benchmark.statistics import DoubleArray, Samples
from fmmt_deploy.errors import FmmtError

__all__ = [
    "CONFIDENCE",
    "Percentile",
    "allowed_above",
    "exact_median_ranks",
    "needed_samples",
    "percentile_of",
    "percentiles_of",
]

CONFIDENCE = 0.99
"""Of each bound by itself; MLPerf's."""


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


@lru_cache(maxsize=256)
def allowed_above(samples: int, percent: int, confidence: float = CONFIDENCE) -> int | None:
    """How many of so many samples may exceed a limit, if the true percentile is to be within it with confidence.

    It is the largest t with P(Binomial(samples, 1 − percent / 100) ≤ t) ≤ 1 − confidence.

    Returns:
        That number, or None where even none would not do.
    """
    share, total, allowed = 1 - percent / 100, 0.0, None
    for above in range(samples + 1):
        total += exp(
            lgamma(samples + 1)
            - lgamma(above + 1)
            - lgamma(samples - above + 1)
            + above * log(share)
            + (samples - above) * log1p(-share)
        )
        if total > (1 - confidence) * (1 + 1e-9):  # within rounding, 0.01 is not above 1 − 0.99
            return allowed
        allowed = above
    return allowed


def needed_samples(percent: int, confidence: float = CONFIDENCE) -> int:
    """The fewest independent samples whose largest bounds a percentile from above."""
    return ceil(log(1 - confidence) / log(percent / 100))


def exact_median_ranks(samples: int, confidence: float) -> tuple[int, int] | None:
    """Indices of the sorted samples between which the true median lies, with that confidence; None of too few."""
    outside = allowed_above(samples, 50, (1 + confidence) / 2)
    return None if outside is None else (outside, samples - 1 - outside)


def _ranked(times: DoubleArray, rank: float) -> float:
    """The sample of a rank, counted from 1; within rounding, a whole rank is itself and others are the next one."""
    return float(times[max(1, ceil(rank - 1e-9 * len(times))) - 1])


def _sorted_times(samples_ms: Samples) -> DoubleArray:
    times = np.sort(np.asarray(samples_ms, np.float64))
    if not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise FmmtError(f"Times must be positive numbers, and at least one, found {times.tolist()[:5]}.")
    return times
