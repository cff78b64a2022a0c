"""SmoothQuant (Xiao et al., 2023): moves what makes activations hard to quantise into the weights, where it helps.

One scale for a whole tensor suits the few columns with large numbers, and leaves little for all others. Dividing the
columns of the input and multiplying the rows of the weights by the same numbers changes no product, but that. How far
to go, and where to saturate then, is tried out on sampled rows against the float32 product: the least error of a tensor
is not the least error of what is made of it. Not smoothing is the choice unless something gains clearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.histograms import histogram_from_values
from fmmt_deploy.calibration.quantisers import rounded, sqnr_db
from fmmt_deploy.calibration.scales import rounded_scale
from fmmt_deploy.calibration.statistics import TensorStatistics
from fmmt_deploy.calibration.thresholds import METHODS, PERCENTILE, Method, threshold_from_histogram
from fmmt_deploy.errors import DataError

__all__ = ["ALPHAS", "GAIN_DB", "SmoothingChoice", "Tried", "smoothing_factors", "sweep"]

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""How much of the difficulty goes to the weights; 0.5 is the paper's for most models."""

GAIN_DB = 0.5
"""What smoothing has to gain in the product's SQNR: it costs a multiplication a number at run time."""

_COLUMNS = 256
"""Output columns that are tried: their errors add up, so that some of them tell enough."""

_FARTHEST = 2.0**13
"""Factors are within this and its inverse: normal float16 numbers, with room on both sides."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tried:
    """One way to quantise a tensor.

    Attributes:
        alpha: See `smoothing_factors`; None where it is not smoothed.
        method: How the threshold was chosen.
        threshold: Where the smoothed rows saturate.
        sqnr_db: Of the products, against the float32 ones.
    """

    alpha: float | None
    method: Method
    threshold: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class SmoothingChoice:
    """How one tensor is quantised.

    Attributes:
        tensor: Its name.
        smoothing: (K,): what its columns are divided by; None where it is not smoothed.
        chosen: The way taken.
        plain: The best way without smoothing.
        tried: All ways.
    """

    tensor: str
    smoothing: Floats | None
    chosen: Tried
    plain: Tried
    tried: tuple[Tried, ...]

    @property
    def gain_db(self) -> float:
        """What smoothing gains; 0 where there is none."""
        return 0.0 if self.smoothing is None else self.chosen.sqnr_db - self.plain.sqnr_db


def smoothing_factors(columns: Floats, rows: Floats, alpha: float) -> Floats:
    """SmoothQuant's factors (equation 4): columns^α / rows^(1 − α), for numbers that float16 can hold.

    Args:
        columns: (K,), the largest magnitude of each column of the input.
        rows: (K,), the largest magnitude of each row of all the weights (K, N) that read it.
        alpha: 0 leaves the weights' rows alike, 1 the input's columns.

    Returns:
        (K,), above 0, with a geometric mean near 1; 1 where a column or a row is zero. The inverse of each is a
        float16 number, so that every type holds the same.
    """
    columns, rows = np.asarray(columns, np.float64), np.asarray(rows, np.float64)
    known = (columns > 0) & (rows > 0)
    logs = np.zeros(len(columns))
    logs[known] = alpha * np.log2(columns[known]) - (1 - alpha) * np.log2(rows[known])
    logs[known] -= logs[known].mean() if known.any() else 0
    inverse = (1 / np.clip(2**logs, 1 / _FARTHEST, _FARTHEST)).astype(np.float16)
    return np.asarray(1 / inverse.astype(np.float32))


def sweep(
    statistics: TensorStatistics,
    weights: Sequence[Floats],
    operands: EightBits,
    methods: Sequence[Method] = METHODS,
    percentile: float = PERCENTILE,
    alphas: Sequence[float] = ALPHAS,
) -> SmoothingChoice:
    """Tries ways to quantise one tensor, and takes the one whose products are nearest to float32's.

    Thresholds are of the sampled rows, but for `max`, which the columns' largest magnitudes give exactly. So once the
    choice is made, a second pass over the data had better collect the statistics of the smoothed tensor, and the
    threshold be taken from them, by the method chosen.

    Args:
        statistics: Of the tensor, with rows sampled.
        weights: Of the products that read it, each (K, N).
        operands: What both are rounded to.
        methods: How thresholds may be chosen; of two that are alike, the first.
        percentile: Of `percentile`.
        alphas: What to try; see `smoothing_factors`. Without any it is not smoothed.

    Raises:
        DataError: No row was seen, or nothing but zeros.
        ValueError: There is no method, or no product.
    """
    _check_sample(statistics)
    trial = _Trial(statistics, weights, operands, percentile)
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factors = {alpha: smoothing_factors(statistics.column_largest, rows, alpha) for alpha in alphas}
    without = trial.of(None, np.ones_like(rows), methods)
    smoothed = [tried for alpha in alphas for tried in trial.of(alpha, factors[alpha], methods)]
    plain = max(without, key=lambda tried: tried.sqnr_db)
    best = max([plain, *smoothed], key=lambda tried: tried.sqnr_db)
    if best.alpha is None or best.sqnr_db < plain.sqnr_db + GAIN_DB:
        return SmoothingChoice(statistics.tensor, None, plain, plain, (*without, *smoothed))
    return SmoothingChoice(statistics.tensor, factors[best.alpha], best, plain, (*without, *smoothed))


def _check_sample(statistics: TensorStatistics) -> None:
    if not np.any(statistics.sample):
        raise DataError(
            f"How to quantise {statistics.tensor} can't be told.",
            why="The calibration data have nothing but zeros here, or nothing at all.",
            fix="Calibrate on more or other data.",
            tensor=statistics.tensor,
        )


class _Trial:
    """Quantises a tensor's sampled rows and some columns of its weights, in one way or another."""

    def __init__(
        self, statistics: TensorStatistics, weights: Sequence[Floats], operands: EightBits, percentile: float
    ) -> None:
        self._statistics, self._operands, self._percentile = statistics, operands, percentile
        self._weights = list(_some_columns(weights))
        self._row_largest = [np.abs(weight).max(axis=1) for weight in weights]
        self._exact = _product(statistics.sample, np.hstack(self._weights))

    def of(self, alpha: float | None, factors: Floats, methods: Sequence[Method]) -> list[Tried]:
        """What comes of dividing columns by these factors, by method."""
        smoothed = self._statistics.sample / factors
        right = np.hstack([self._weight(i, factors) for i in range(len(self._weights))])
        thresholds = self._thresholds(smoothed, float((self._statistics.column_largest / factors).max()), methods)
        return [Tried(alpha, method, found, self._sqnr_db(smoothed, found, right)) for method, found in thresholds]

    def _sqnr_db(self, smoothed: Floats, threshold: float, right: Floats) -> float:
        left = rounded(smoothed, rounded_scale(threshold, self._operands), self._operands)
        return sqnr_db(self._exact, _product(left, right))

    def _thresholds(
        self, smoothed: Floats, largest: float, methods: Sequence[Method]
    ) -> Iterator[tuple[Method, float]]:
        import torch

        histogram = histogram_from_values(torch.from_numpy(smoothed), float(np.abs(smoothed).max()))
        for method in methods:
            sampled = threshold_from_histogram(histogram, method, self._operands, self._percentile)
            yield method, largest if method == "max" else sampled

    def _weight(self, i: int, factors: Floats) -> Floats:
        """As the graph will have it: a scale a column of int8, one of all columns of fp8."""
        values = self._weights[i] * factors[:, None]
        if self._operands == "fp8":
            scale = rounded_scale(float((self._row_largest[i] * factors).max()), "fp8")
        else:
            scale = rounded_scale(np.abs(values).max(axis=0), "int8")
        return rounded(values, scale, self._operands)


def _product(left: Floats, right: Floats) -> Floats:
    """By PyTorch: the threads of two libraries, each waiting for its next product, would be in each other's way."""
    import torch

    return np.asarray((torch.from_numpy(left) @ torch.from_numpy(right)).numpy(), np.float32)


def _some_columns(weights: Sequence[Floats]) -> Iterator[Floats]:
    """At most about `_COLUMNS` in all, evenly spaced."""
    step = -(-sum(weight.shape[1] for weight in weights) // _COLUMNS)
    for weight in weights:
        yield np.ascontiguousarray(weight[:, ::step])
