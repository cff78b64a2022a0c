"""Eight bits in NumPy: what rounding to int8 and to E4M3 does to numbers, and how large an error that is.

Int8 rounds to the nearest integer, halves to the even one, as ONNX's QuantizeLinear does; E4M3 (Micikevicius et al.,
FP8 Formats for Deep Learning, 2022) has three bits after the leading one, no infinities, and saturates at ±448.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmmt_deploy.calibration.formats import LARGEST, EightBits

__all__ = ["levels", "quantised", "rounded", "sqnr_db"]

_SMALLEST_NORMAL = 2.0**-6
_SMALLEST = 2.0**-9
_DROPPED_BITS = 20  # of float32's 23 bits of fraction, E4M3 keeps 3


def quantised(values: ArrayLike, scale: ArrayLike, operands: EightBits) -> NDArray[Any]:
    """Numbers in eight bits.

    Args:
        values: Any shape.
        scale: Above 0; a number, or of a shape that broadcasts to `values`.
        operands: The type.

    Returns:
        Of the shape of `values`: int8 within ±127, or float8_e4m3fn within ±448; beyond, they saturate. NaN is NaN in
        E4M3.

    Raises:
        ValueError: NaN has no int8.
    """
    scaled = _scaled(values, scale, operands)
    if operands == "fp8":
        return scaled.astype(ml_dtypes.float8_e4m3fn)
    if np.isnan(scaled).any():
        raise ValueError("NaN has no int8")
    return np.rint(scaled).astype(np.int8)


def rounded(values: ArrayLike, scale: ArrayLike, operands: EightBits) -> NDArray[np.float32]:
    """What numbers are after they were quantised and dequantised; see `quantised`, which this is far quicker than."""
    scaled = _scaled(values, scale, operands)
    scaled = np.rint(scaled) if operands == "int8" else _rounded_to_e4m3(scaled)
    scaled *= np.asarray(scale, np.float32)
    return scaled


@cache
def levels(operands: EightBits) -> NDArray[np.float64]:
    """The magnitudes that eight bits can hold at a scale of 1: from 0 to the largest, growing; read-only."""
    if operands == "int8":
        found = np.arange(LARGEST["int8"] + 1)
    else:
        found = np.arange(0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    found.flags.writeable = False
    return found


def sqnr_db(reference: ArrayLike, found: ArrayLike) -> float:
    """Signal to quantisation noise: 10·log10(Σ reference² / Σ (reference − found)²), in decibels.

    Infinite where there is no difference (also of two signals that are zero), minus infinity where the signal is zero
    and the other is not, or where `found` is not finite; NaN where the reference itself is not finite.
    """
    signal = np.asarray(reference, np.float64)
    noise = signal - np.asarray(found, np.float64)
    return _decibels(float(np.square(signal).sum()), float(np.square(noise).sum()))


def _decibels(signal: float, noise: float) -> float:
    if not np.isfinite(signal):
        return float("nan")
    if noise == 0:
        return float("inf")
    if signal == 0 or not np.isfinite(noise):
        return float("-inf")
    return float(10 * np.log10(signal / noise))


def _scaled(values: ArrayLike, scale: ArrayLike, operands: EightBits) -> NDArray[np.float32]:
    """Divided and clipped; a new array. ml_dtypes' own cast makes NaN of what is beyond 448."""
    scaled = np.asarray(np.divide(np.asarray(values, np.float32), np.asarray(scale, np.float32)))
    return np.clip(scaled, -LARGEST[operands], LARGEST[operands], out=scaled)


def _rounded_to_e4m3(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the nearest E4M3 number, ties to the even one; |values| <= 448."""
    bits = values.view(np.int32)
    even = (bits >> _DROPPED_BITS) & 1
    even += (1 << (_DROPPED_BITS - 1)) - 1
    even += bits
    even &= -1 << _DROPPED_BITS
    below = np.rint(values * np.float32(1 / _SMALLEST)) * np.float32(_SMALLEST)
    return np.where(np.abs(values) < _SMALLEST_NORMAL, below, even.view(np.float32))
