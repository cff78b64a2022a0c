"""What measured times say: percentiles of raw samples, intervals of medians, ratios of interleaved samples.

Speeds of a shared machine drift within minutes, so two engines are compared by the ratio of neighbouring samples of one
run, never by numbers of two runs. Percentiles are nearest-rank (the smallest sample with at least p % of all at or
below it): always a time that was measured. Of fewer than 100 samples, p99 is the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import FmmtError
from fmmt_deploy.student import student_quantile

__all__ = [
    "LatencySummary",
    "Ratio",
    "format_ms",
    "format_ratio",
    "median_interval",
    "paired_ratio",
    "summarise",
]

Samples: TypeAlias = Sequence[float] | NDArray[np.float64]
DoubleArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Times of one stage or engine, in milliseconds. `spread` is the range of the middle half over the median."""

    samples: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    lowest_ms: float
    highest_ms: float
    spread: float

    def to_json(self) -> dict[str, float]:
        """Plain values for a report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster: the median of pairwise ratios, with an interval of that median (see `median_interval`).

    `confidence` is what the interval has: less than was asked for where there are fewer than six pairs, 0 of one.
    """

    median: float
    low: float
    high: float
    pairs: int
    confidence: float

    def to_json(self) -> dict[str, float]:
        """Plain values for a report."""
        return asdict(self)


def summarise(samples_ms: Samples) -> LatencySummary:
    """Percentiles of raw samples, in milliseconds; those of several processes belong in one list.

    Raises:
        FmmtError: There is no sample, or one that is not a positive number.
    """
    times = _times(samples_ms)
    p25, p50, p75, p90, p95, p99 = (_percentile(times, percent) for percent in (25, 50, 75, 90, 95, 99))
    return LatencySummary(
        samples=len(times),
        mean_ms=float(times.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        lowest_ms=float(times.min()),
        highest_ms=float(times.max()),
        spread=(p75 - p25) / p50,
    )


def paired_ratio(
    baseline_ms: Samples,
    candidate_ms: Samples,
    *,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Ratio:
    """How many times faster the candidate is: the median of baseline / candidate over interleaved samples.

    Args:
        baseline_ms: `(samples,)`.
        candidate_ms: `(samples,)`, each taken beside the baseline's of the same index.
        seed: Of the bootstrap over pairs; the same seed gives the same interval.
        resamples: Of the bootstrap.
        confidence: Of the interval, 0 to 1.

    Raises:
        FmmtError: The two have another number of samples, none, or one that is not a positive number.
    """
    baseline, candidate = _times(baseline_ms), _times(candidate_ms)
    if len(baseline) != len(candidate):
        raise FmmtError(f"Interleaved samples come in pairs, found {len(baseline)} and {len(candidate)}.")
    ratios = baseline / candidate
    low, high, attained = median_interval(ratios, confidence, seed=seed, resamples=resamples)
    return Ratio(float(np.median(ratios)), low, high, len(ratios), attained)


def median_interval(
    values: DoubleArray, confidence: float, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """A bootstrap interval of the median of a few independent values: percentiles, expanded for their number.

    A percentile bootstrap of few values is too narrow: of 7 it covers 87 % where it says 95 %. Hesterberg's expansion
    ("What Teachers Should Know About the Bootstrap", 2015, section 5.3) takes percentiles further out, by Student's t.
    Fewer than six values can't have 95 %: the interval then reaches from the lowest to the highest.

    Args:
        values: `(values,)`.
        confidence: Asked for, 0 to 1.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        Its ends, and the confidence that it has: of n values from the lowest to the highest it is 1 − 2 · ½ⁿ.
    """
    count = len(values)
    attainable = 1 - 2 * 0.5**count
    if attainable < confidence:
        return float(values.min()), float(values.max()), attainable
    medians = np.median(values[np.random.default_rng(seed).integers(0, count, (resamples, count))], axis=1)
    share = NormalDist().cdf(-student_quantile((1 + confidence) / 2, count - 1) * sqrt(count / (count - 1)))
    low, high = np.quantile(medians, [share, 1 - share])
    return float(low), float(high), confidence


def format_ms(time_ms: float) -> str:
    """Three digits with a fitting unit: `85.2 µs`, `1.23 ms`, `4.56 s`."""
    if time_ms < 1:
        return f"{_digits(time_ms * 1000)} µs"
    return f"{_digits(time_ms)} ms" if time_ms < 1000 else f"{_digits(time_ms / 1000)} s"


def format_ratio(ratio: Ratio) -> str:
    """The median with its interval: `5.12× (4.98–5.30)`."""
    return f"{_digits(ratio.median)}× ({_digits(ratio.low)}–{_digits(ratio.high)})"


def _digits(number: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f}"


def _percentile(times: DoubleArray, percent: int) -> float:
    rank = ceil(percent * len(times) / 100)
    return float(np.sort(times)[max(rank, 1) - 1])


def _times(samples: Samples) -> DoubleArray:
    times = np.asarray(samples, np.float64)
    if not times.size or not (np.isfinite(times) & (times > 0)).all():
        raise FmmtError(f"Times must be positive numbers, and at least one, found {times.tolist()[:5]}.")
    return times
