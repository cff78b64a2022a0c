"""From what was seen of a graph to its scales: how tensors are smoothed, where they saturate, what can't be float16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.quantised import weight_scale
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.calibration.sites import Site
from fmmt_deploy.calibration.smoothing import ALPHAS, SmoothingChoice, sweep
from fmmt_deploy.calibration.thresholds import threshold_from_histogram
from fmmt_deploy.calibration.weights import Weight
from fmmt_deploy.errors import DataError

__all__ = ["FLOAT16_LARGEST", "Choices", "calibration_from_statistics", "tried_choices"]

FLOAT16_LARGEST = 65504.0

_ROOM = 2.0
"""What was seen may be exceeded so far before a product in float16 overflows."""

Floats = NDArray[np.float32]
Choices: TypeAlias = Mapping[str, SmoothingChoice]
"""By tensor; those that were never tried are not there."""


def tried_choices(
    statistics: GraphStatistics,
    weights: Mapping[str, Weight],
    settings: CalibrationSettings,
    operands: EightBits,
    done: Callable[[], None] = lambda: None,
) -> dict[str, SmoothingChoice]:
    """Tries on sampled rows what settings leave open, for each tensor that a graph's products read.

    Args:
        statistics: What was seen, not smoothed.
        weights: The float32 graph's.
        settings: How to calibrate.
        operands: What is rounded to.
        done: Called after each tensor.

    Raises:
        DataError: A tensor was never seen, or was all zeros.
    """
    alphas = ALPHAS if statistics.graph in settings.smooth else ()
    if not alphas and len(settings.methods) == 1:
        return {}
    readers: dict[str, list[Site]] = {}
    for site in statistics.sites:
        readers.setdefault(site.input, []).append(site)
    choices = {}
    for tensor, sites in readers.items():
        matrices = [_matrix(weights[site.weight]) for site in sites]
        choices[tensor] = sweep(
            statistics.inputs[tensor], matrices, operands, settings.methods, settings.percentile, alphas
        )
        done()
    return choices


def calibration_from_statistics(
    statistics: GraphStatistics,
    smoothed: GraphStatistics | None,
    choices: Choices,
    weights: Mapping[str, Weight],
    settings: CalibrationSettings,
    operands: EightBits,
) -> Calibration:
    """Chooses where tensors saturate.

    Args:
        statistics: What was seen, not smoothed.
        smoothed: What was seen of the smoothed tensors, if there are any.
        choices: What was tried; see `tried_choices`.
        weights: The float32 graph's.
        settings: How to calibrate.
        operands: What is rounded to.

    Raises:
        DataError: A tensor was never seen, or was all zeros.
        PrecisionError: A weight is not finite.
    """
    factors = {} if smoothed is None else smoothed.smoothing
    inputs = {}
    for tensor, plain in statistics.inputs.items():
        seen = smoothed.inputs[tensor] if smoothed is not None and tensor in factors else plain
        if seen.histogram.largest == 0:
            raise DataError(
                f"Where {tensor} of {statistics.graph} saturates can't be told.",
                why="The calibration data have nothing but zeros here, or nothing at all.",
                fix="Calibrate on more or other data.",
                tensor=tensor,
            )
        method = choices[tensor].chosen.method if tensor in choices else settings.methods[0]
        threshold = threshold_from_histogram(seen.histogram, method, operands, settings.percentile)
        inputs[tensor] = InputScale(tensor, threshold, factors.get(tensor))
    return Calibration(statistics.graph, inputs, _wide(statistics, weights, factors, operands))


def _wide(
    statistics: GraphStatistics, weights: Mapping[str, Weight], factors: Mapping[str, Floats], operands: EightBits
) -> frozenset[str]:
    """Products that would overflow with float16 around them.

    TensorRT multiplies integers, and the sum with the input's scale, to float16, and only then with the scales of the
    weights' columns (seen in the layers of TensorRT-RTX 1.7): in between stands the product in units of those. A scale
    for the whole weight, as fp8 has, is in the first factor.
    """
    if operands == "fp8":
        return frozenset()
    found = set()
    for site in statistics.sites:
        values = _matrix(weights[site.weight])
        if site.input in factors:
            values = values * factors[site.input][:, None]
        scale = weight_scale(values, operands, site.weight)
        if (statistics.outputs[site.output].magnitudes / scale).max() * _ROOM > FLOAT16_LARGEST:
            found.add(site.node)
    return frozenset(found)


def _matrix(weight: Weight) -> Floats:
    """(K, N)."""
    return np.ascontiguousarray(weight.read().T)
