"""How far thresholds would be others, had calibration seen other dialogues.

Statistics keep a histogram for each eighth of the cases, dealt out in turn. Seven ways to make halves of the eighths,
each balanced against all others (the rows of a Hadamard matrix), give fourteen thresholds without another pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.histograms import Histogram
from fmmt_deploy.calibration.statistics import BLOCKS, TensorStatistics
from fmmt_deploy.calibration.thresholds import PERCENTILE, Method, threshold_from_histogram

__all__ = ["STABLE_WITHIN", "ThresholdSpread", "spread_of"]

STABLE_WITHIN = 0.1
"""Of the threshold: as much as this shifts the error of rounding by less than a decibel."""

SpreadVerdict = Literal["ok", "UNSTABLE", "too few cases"]


@dataclass(frozen=True, slots=True)
class ThresholdSpread:
    """Of one tensor.

    Attributes:
        tensor: Its name.
        threshold: Of all that was seen.
        halves: The largest difference between the thresholds of two halves of the cases, relative to `threshold`; None
            if the cases are too few to be halved.
        seeds: What another choice of as many cases would change: the standard error by the delete-half jackknife (Shao
            and Wu, 1989), which is the root mean square distance of the halves' thresholds from the whole's, relative
            to it. Of `max`, whose halves only fall short, it is a lower bound.
    """

    tensor: str
    threshold: float
    halves: float | None
    seeds: float | None

    @property
    def verdict(self) -> SpreadVerdict:
        """Whether another choice of cases would do about the same; see `STABLE_WITHIN`."""
        if self.seeds is None:
            return "too few cases"
        return "ok" if self.seeds <= STABLE_WITHIN else "UNSTABLE"


def spread_of(
    statistics: TensorStatistics, method: Method, operands: EightBits, percentile: float = PERCENTILE
) -> ThresholdSpread:
    """Chooses thresholds of halves of the cases.

    Args:
        statistics: Of the tensor; of the smoothed one, where it is smoothed.
        method: How thresholds are chosen.
        operands: What is rounded to.
        percentile: Of `percentile`.

    Raises:
        DataError: Nothing was seen, or nothing but zeros.
    """

    def chosen(blocks: Sequence[Histogram]) -> float:
        return threshold_from_histogram(reduce(Histogram.merged, blocks), method, operands, percentile)

    whole, pairs = chosen(statistics.blocks), []
    for split in _balanced_splits():
        halves = [[block for block, side in zip(statistics.blocks, split, strict=True) if side == of] for of in (0, 1)]
        if all(any(block.largest > 0 for block in half) for half in halves):
            pairs.append([chosen(half) for half in halves])
    if not pairs:
        return ThresholdSpread(statistics.tensor, whole, None, None)
    found = np.array(pairs) / whole
    apart, squares = np.abs(found[:, 0] - found[:, 1]), np.square(found - 1)
    return ThresholdSpread(statistics.tensor, whole, float(apart.max()), float(np.sqrt(squares.mean())))


def _balanced_splits() -> list[list[int]]:
    """Which half each block is in, 0 or 1; halves of different splits have half of their blocks in common."""
    return [[(block & row).bit_count() % 2 for block in range(BLOCKS)] for row in range(1, BLOCKS)]
