"""What calibration found: for each tensor that quantised products read, where it saturates and how it is smoothed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.types import GraphName

__all__ = ["Calibration", "InputScale", "rounded_scale"]


@dataclass(frozen=True, slots=True)
class InputScale:
    """One tensor that products read.

    Attributes:
        tensor: Its name in the float32 graph.
        threshold: Values beyond ±this saturate; of the smoothed tensor, where it is smoothed. Above 0.
        smoothing: (K,), above 0: what its columns are divided by, and the rows of the weights (K, N) multiplied with;
            None where it is not smoothed (Xiao et al., SmoothQuant, 2023, equation 3).
    """

    tensor: str
    threshold: float
    smoothing: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one graph.

    Attributes:
        graph: Which.
        inputs: By tensor.
        wide: Gemms that may not be computed with float16 around them: what they sum up, in units of their weights'
            scales, is beyond float16.
    """

    graph: GraphName
    inputs: Mapping[str, InputScale]
    wide: frozenset[str] = field(default=frozenset())


def rounded_scale(threshold: NDArray[np.float32] | float, operands: EightBits) -> NDArray[np.float32]:
    """Scales that reach thresholds, as the next larger float16 numbers: the same whatever type is around.

    Args:
        threshold: Largest magnitudes, any shape; 0 where all values are.
        operands: What is scaled.

    Returns:
        Float32, of that shape, each above 0.

    Raises:
        ValueError: A threshold is negative, not finite, or too large for any float16 scale.
    """
    exact = np.asarray(threshold, np.float64) / LARGEST[operands]
    if not (np.isfinite(exact).all() and (exact >= 0).all() and (exact <= np.finfo(np.float16).max).all()):
        raise ValueError("thresholds must be numbers from 0 to what a float16 scale reaches")
    near = exact.astype(np.float16)
    up = np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near)
    return np.where(up > 0, up, np.float16(1)).astype(np.float32)
