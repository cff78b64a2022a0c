"""Whether thresholds suit the data: what saturates, what is wasted, and what these data would have given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.histograms import Histogram
from fmmt_deploy.calibration.scales import Calibration
from fmmt_deploy.calibration.thresholds import PERCENTILE, Method, expected_error, threshold_from_histogram
from fmmt_deploy.errors import DataError

__all__ = ["ENERGY", "OFF_BY", "SHARE", "Saturation", "saturation_of", "saturations"]

SHARE = 1e-3
"""The largest share of numbers that may saturate: ten times what the default percentile cuts off."""

ENERGY = 1e-2
"""The largest share of the sum of squares that may be cut off: it alone holds the SQNR below 20 dB."""

OFF_BY = 2.0
"""Thresholds further than this from the largest magnitude, or from what the method gives, were not made of such data:
a bit of the eight is wasted, or missing."""

Verdict = Literal["ok", "SATURATES", "TOO WIDE", "OFF"]


@dataclass(frozen=True, slots=True)
class Saturation:
    """Of one tensor.

    Attributes:
        tensor: Its name.
        threshold: Where it saturates.
        largest: The largest magnitude seen.
        share: Of the numbers beyond the threshold.
        energy: Share of the sum of squares that is cut off.
        sqnr_db: What rounding and saturation leave of the tensor.
        expected: The threshold that these data give by the method asked for; None if none was.
    """

    tensor: str
    threshold: float
    largest: float
    share: float
    energy: float
    sqnr_db: float
    expected: float | None = None

    @property
    def verdict(self) -> Verdict:
        """`SATURATES` beyond `SHARE` or `ENERGY`; `TOO WIDE` and `OFF` by more than `OFF_BY`."""
        if self.share > SHARE or self.energy > ENERGY:
            return "SATURATES"
        if self.threshold > OFF_BY * self.largest:
            return "TOO WIDE"
        if self.expected is not None and not 1 / OFF_BY <= self.threshold / self.expected <= OFF_BY:
            return "OFF"
        return "ok"


def saturation_of(
    tensor: str,
    histogram: Histogram,
    threshold: float,
    operands: EightBits,
    method: Method | None = None,
    percentile: float = PERCENTILE,
) -> Saturation:
    """Holds one threshold against data.

    Args:
        tensor: Its name.
        histogram: Its magnitudes; of the smoothed tensor, where it is smoothed.
        threshold: Where it saturates; above 0.
        operands: What it is rounded to.
        method: How thresholds are chosen; None if that is not known.
        percentile: Of `percentile`.

    Raises:
        DataError: Nothing was seen, or nothing but zeros.
    """
    if histogram.largest == 0:
        raise DataError(
            f"Whether {tensor} saturates can't be told.",
            why="The data have nothing but zeros here, or nothing at all.",
            fix="Audit on more or other data.",
            tensor=tensor,
        )
    error = expected_error(histogram, threshold, operands)
    return Saturation(
        tensor,
        threshold,
        histogram.largest,
        histogram.share_beyond(threshold),
        histogram.energy_beyond(threshold),
        -10 * math.log10(error) if error > 0 else math.inf,
        None if method is None else threshold_from_histogram(histogram, method, operands, percentile),
    )


def saturations(
    calibration: Calibration,
    histograms: Mapping[str, Histogram],
    operands: EightBits,
    method: Method | None = None,
    percentile: float = PERCENTILE,
) -> tuple[Saturation, ...]:
    """Holds all of a calibration's thresholds against data; see `saturation_of`.

    Args:
        calibration: Of one graph.
        histograms: By tensor; of the smoothed tensor, where the calibration smooths it.
        operands: What is rounded to.
        method: How thresholds are chosen; None if that is not known.
        percentile: Of `percentile`.

    Raises:
        DataError: A tensor was not seen, or is nothing but zeros.
    """
    missing = [tensor for tensor in calibration.inputs if tensor not in histograms]
    if missing:
        raise DataError(
            f"The data never reached {missing[0]} of {calibration.graph}.",
            fix="Audit on data that reach all of the graph.",
            tensor=missing[0],
        )
    return tuple(
        saturation_of(tensor, histograms[tensor], scale.threshold, operands, method, percentile)
        for tensor, scale in calibration.inputs.items()
    )
