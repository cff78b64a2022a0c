"""Where a tensor saturates: four ways to choose it from a histogram of its magnitudes.

`max` cuts nothing off. `percentile` cuts off a fixed share of the numbers. `entropy` keeps the distribution as it is
(the divergence that TensorRT's calibrator minimises: Migacz, 8-bit Inference with TensorRT, 2017). `mse` keeps the
numbers as they are: the least expected squared error of rounding and saturation together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.calibration.histograms import Histogram
from fmmt_deploy.calibration.quantisers import levels
from fmmt_deploy.errors import DataError, UsageError

__all__ = ["METHODS", "PERCENTILE", "Method", "check_percentile", "expected_error", "threshold_from_histogram"]

Method: TypeAlias = Literal["max", "percentile", "entropy", "mse"]

METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 99.99
"""The default: one number in ten thousand saturates."""

_OCTAVES = 6
_STEPS = 8  # an octave, and as many again around the best of them

_FEWEST_BINS = 128
_CANDIDATES = 256


def threshold_from_histogram(
    histogram: Histogram, method: Method, operands: EightBits, percentile: float = PERCENTILE
) -> float:
    """Chooses where a tensor saturates.

    Args:
        histogram: Its magnitudes.
        method: How; see the module. `entropy` and `mse` look no further down than 1/32 and 1/64 of the largest
            magnitude, where a histogram of linear bins ends to tell anything.
        operands: What it is rounded to.
        percentile: Of `percentile`: above 0, at most 100.

    Returns:
        Above 0, at most the largest magnitude.

    Raises:
        DataError: Nothing, or nothing but zeros was seen.
        UsageError: That is no percentile.
    """
    if histogram.largest == 0:
        raise DataError(
            "No range can be told: the calibration data have nothing but zeros here, or nothing at all.",
            fix="Calibrate on more or other data.",
        )
    check_percentile(percentile)
    if method == "max":
        return histogram.largest
    if method == "percentile":
        return min(_quantile(histogram, percentile / 100), histogram.largest)
    chosen = _of_least_divergence if method == "entropy" else _of_least_error
    return chosen(histogram, operands)


def check_percentile(percentile: float) -> None:
    """Refuses what is no percentile.

    Raises:
        UsageError: It is not above 0 and at most 100.
    """
    if not 0 < percentile <= 100:
        raise UsageError(f"A percentile is above 0 and at most 100; found {percentile}.", fix="99.99 is the default.")


def expected_error(histogram: Histogram, threshold: float, operands: EightBits) -> float:
    """The squared error of rounding and saturation, relative to the sum of squares.

    Numbers are taken as evenly spread within a bin, and integrated exactly over each of the quantiser's intervals.

    Args:
        histogram: Magnitudes, not all of them zero.
        threshold: Where they saturate; above 0.
        operands: What they are rounded to.

    Returns:
        At least 0; −10·log10 of it is the expected SQNR in dB.
    """
    scale = threshold / LARGEST[operands]
    integral = _integrated_error(histogram.edges / scale, levels(operands))
    lengths = histogram.width / scale
    error = float(np.diff(integral) @ histogram.counts) / lengths * scale**2
    return error / float(np.square(histogram.centres) @ histogram.counts)


def _quantile(histogram: Histogram, share: float) -> float:
    """Within a bin, numbers are taken as evenly spread."""
    below = np.cumsum(histogram.counts)
    wanted = share * below[-1]
    i = int(np.searchsorted(below, wanted))
    before = below[i] - histogram.counts[i]
    return float(i + (wanted - before) / histogram.counts[i]) * histogram.width


def _of_least_error(histogram: Histogram, operands: EightBits) -> float:
    """Coarse, then fine around the best; of two that are alike, the larger."""

    def error(octaves: float) -> float:
        return expected_error(histogram, histogram.largest * 2.0**-octaves, operands)

    coarse = _least(np.arange(_OCTAVES * _STEPS + 1) / _STEPS, error)
    around = coarse + np.arange(-_STEPS, _STEPS + 1) / _STEPS**2
    return float(histogram.largest * 2.0 ** -_least(around[around >= 0], error))


def _least(candidates: Iterable[float], error: Callable[[float], float]) -> float:
    """The first of the least."""
    return min(candidates, key=error)


def _integrated_error(ends: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """∫ (x − nearest(x))² dx from 0 to each end; beyond the last number of the grid, that is the nearest one."""
    to_grid = np.concatenate([[0.0], np.cumsum(np.diff(grid) ** 3) / 12])
    nearest = np.searchsorted((grid[1:] + grid[:-1]) / 2, ends)
    past = ends - grid[nearest]
    found: NDArray[np.float64] = to_grid[nearest] + past * past * past / 3  # NumPy's powers are ten times slower
    return found


def _of_least_divergence(histogram: Histogram, operands: EightBits) -> float:
    """As TensorRT's calibrator; of two that are alike, the larger.

    The first bin is as high as the second, so that many zeros, which no threshold harms, do not outweigh the rest.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    candidates = np.unique(np.linspace(_FEWEST_BINS, used, _CANDIDATES).astype(int))[::-1]
    kept: int = min(candidates.tolist(), key=lambda bins: _divergence(counts, bins, operands))
    return min(kept * histogram.width, histogram.largest)


def _divergence(counts: NDArray[np.float64], kept: int, operands: EightBits) -> float:
    """Kullback and Leibler's, from what saturates after some bins to what eight bits make of it."""
    held = counts[:kept].copy()
    held[-1] += counts[kept:].sum()
    grid, middles = levels(operands), (np.arange(kept) + 0.5) * (LARGEST[operands] / kept)
    codes = np.searchsorted((grid[1:] + grid[:-1]) / 2, middles)
    present = held > 0
    mass, places = np.bincount(codes, counts[:kept]), np.bincount(codes, present)
    spread = (mass / np.maximum(places, 1))[codes][present]
    if (spread == 0).any():
        return float("inf")
    share: NDArray[np.float64] = held[present] / held.sum()
    return float((share * np.log(share / (spread / spread.sum()))).sum())
