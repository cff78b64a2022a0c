"""Histograms of magnitudes that grow with what they see: constant memory, and exact merging.

The bins are linear, as in TensorRT's calibrator. They reach to a power of two: where that does not suffice it doubles
and neighbours become one bin, so every count stays exact, whatever the order and the size of the pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BINS", "Histogram", "empty_histogram", "histogram_from_values"]

BINS = 4096
"""More than half of them are in use: the largest magnitude is in the upper half of the reach."""

_SMALLEST_REACH = 2.0**-100
"""So that bins per unit are a float32; what is smaller is as good as zero."""

_AT_ONCE = 1 << 18
"""Numbers counted at once: 1 MiB of float32 stays in the cache, and saves fresh pages for each temporary array."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often magnitudes were seen.

    Attributes:
        counts: (BINS,), int64: bin i has the magnitudes from i to below i + 1 widths.
        reach: Where the last bin ends: a power of two, above every magnitude.
        largest: The largest magnitude, exactly; 0 if none was seen.
    """

    counts: NDArray[np.int64]
    reach: float
    largest: float

    @property
    def total(self) -> int:
        """How many numbers were seen."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.reach / BINS

    @property
    def edges(self) -> NDArray[np.float64]:
        """(BINS + 1,): where bins begin and end."""
        return np.arange(BINS + 1, dtype=np.float64) * self.width

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,): of the bins."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * self.width

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of all that both saw."""
        reach = max(self.reach, other.reach)
        counts = _at_reach(self, reach) + _at_reach(other, reach)
        return Histogram(counts, reach, max(self.largest, other.largest))

    def share_beyond(self, threshold: float) -> float:
        """Share of the numbers whose magnitude is above a threshold, as if evenly spread within a bin.

        Args:
            threshold: At least 0.

        Returns:
            0 to 1; 0 if nothing was seen.
        """
        if threshold >= self.largest:
            return 0.0
        beyond = np.clip(np.arange(1, BINS + 1) - threshold / self.width, 0, 1)
        return float(beyond @ self.counts) / self.total

    def energy_beyond(self, threshold: float) -> float:
        """Share of the sum of squares that is lost where magnitudes are cut off at a threshold: Σ (|x| − t)² / Σ x².

        Args:
            threshold: At least 0.

        Returns:
            0 to 1; 0 if nothing but zeros was seen.
        """
        if threshold >= self.largest:
            return 0.0
        edges = np.minimum(self.edges, self.largest)
        lost = _mean_squares(np.maximum(edges - threshold, 0)) @ self.counts
        return float(lost / (_mean_squares(edges) @ self.counts))


def empty_histogram() -> Histogram:
    """Of nothing."""
    return Histogram(np.zeros(BINS, np.int64), _SMALLEST_REACH, 0.0)


def histogram_from_values(values: Tensor, largest: float) -> Histogram:
    """Counts numbers.

    Args:
        values: Any shape, float32, finite.
        largest: Their largest magnitude.
    """
    import torch

    reach = max(math.ldexp(1.0, math.frexp(largest)[1]), _SMALLEST_REACH)
    counts = torch.zeros(BINS, dtype=torch.int64)
    flat = values.reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        bins = (flat[start : start + _AT_ONCE].abs() * (BINS / reach)).to(torch.int32)
        counts += torch.bincount(bins, minlength=BINS)
    return Histogram(counts.numpy(), reach, largest)


def _mean_squares(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of what is evenly spread between neighbours."""
    low, high = edges[:-1], edges[1:]
    return (low * low + low * high + high * high) / 3


def _at_reach(histogram: Histogram, reach: float) -> NDArray[np.int64]:
    """Counts in bins that reach further: 2^n neighbours become one."""
    merging = min(int(reach / histogram.reach), BINS)
    counts = np.zeros(BINS, np.int64)
    counts[: BINS // merging] = histogram.counts.reshape(-1, merging).sum(axis=1)
    return counts
