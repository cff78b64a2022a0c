"""How far one array is from another, and whether that is allowed. Whatever can't be compared has failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import FmmtError
from fmmt_deploy.parity.tolerances import Tolerance
from fmmt_deploy.types import BoolArray

__all__ = ["RELATIVE_FLOOR", "TensorComparison", "compare_outputs", "compare_tensors"]

Array: TypeAlias = NDArray[Any]
DoubleArray: TypeAlias = NDArray[np.float64]

RELATIVE_FLOOR = 1e-3
"""The element-wise relative error divides by at least this: below it, it would speak of rounding, not of the answer."""


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor against the reference's. What could not be computed is NaN.

    Attributes:
        name: Of the tensor.
        tolerance: What was allowed.
        failure: What is wrong, empty if the tensor is within the tolerance.
        elements: How many elements were compared.
        max_abs: Largest absolute error.
        mean_abs: Mean absolute error.
        relative_norm: ‖actual − reference‖ / ‖reference‖, Euclidean.
        max_relative: Largest |actual − reference| / max(|reference|, `RELATIVE_FLOOR`).
        cosine: Of the angle between the two, flattened.
        needed_atol: The smallest `atol` with which the tensor would have passed, `rtol` as it is.
        worst_index: Of the element that needs it, or of the first that is not finite.
        worst_reference: That element in the reference.
        worst_actual: That element in the actual tensor.
        nan_count: NaNs in the actual tensor.
        inf_count: Infinities in the actual tensor.
    """

    name: str
    tolerance: Tolerance
    failure: str
    elements: int = 0
    max_abs: float = nan
    mean_abs: float = nan
    relative_norm: float = nan
    max_relative: float = nan
    cosine: float = nan
    needed_atol: float = nan
    worst_index: tuple[int, ...] = ()
    worst_reference: float = nan
    worst_actual: float = nan
    nan_count: int = 0
    inf_count: int = 0

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.failure


def compare_outputs(
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Mapping[str, Tolerance],
    masks: Mapping[str, BoolArray] | None = None,
) -> tuple[TensorComparison, ...]:
    """Compares all outputs of a graph, in the order of `tolerances`.

    Args:
        reference: The reference's outputs by name.
        actual: The engine's outputs by name.
        tolerances: One for each output that must be there; others are not looked at.
        masks: For some outputs, which elements count, see `compare_tensors`.

    Returns:
        One comparison for each tolerance; an output that either side lacks has failed.

    Raises:
        FmmtError: There is no tolerance at all, so nothing would be compared.
    """
    if not tolerances:
        raise FmmtError("Comparing outputs needs a tolerance for at least one of them, found none.")
    common = [name for name in tolerances if name in reference and name in actual]
    compared = {
        name: compare_tensors(name, reference[name], actual[name], tolerances[name], (masks or {}).get(name))
        for name in common
    }
    for name in tolerances:
        if name not in compared:
            side = "reference" if name not in reference else "engine"
            why = f"the {side} has no such output" + ("" if common else "; there is no output in common")
            compared[name] = TensorComparison(name, tolerances[name], why)
    return tuple(compared[name] for name in tolerances)


def compare_tensors(
    name: str, reference: Array, actual: Array, tolerance: Tolerance, mask: BoolArray | None = None
) -> TensorComparison:
    """Compares one tensor with the reference's, in float64.

    Args:
        name: Of the tensor, for messages.
        reference: Any shape.
        actual: The same shape and type, or it has failed.
        tolerance: What is allowed.
        mask: Which elements count, for example `(D, T)` for states `(D, T, H)`: its axes are the first ones of the
            tensor. Default all.

    Raises:
        FmmtError: The mask's shape is not the beginning of the tensor's.
    """
    if actual.shape != reference.shape or actual.dtype != reference.dtype:
        return TensorComparison(
            name,
            tolerance,
            f"expected {reference.dtype} {reference.shape}, found {actual.dtype} {actual.shape}",
        )
    positions = _positions(name, reference, mask)
    expected, found = (array.ravel()[positions].astype(np.float64) for array in (reference, actual))
    if not expected.size:
        return TensorComparison(name, tolerance, "nothing to compare: the tensor is empty or wholly masked")
    worst, failure = _worst(expected, found, tolerance)
    return TensorComparison(
        name=name,
        tolerance=tolerance,
        failure=failure,
        elements=expected.size,
        **_errors(expected, found, tolerance),
        worst_index=tuple(int(i) for i in np.unravel_index(positions[worst], reference.shape)),
        worst_reference=float(expected[worst]),
        worst_actual=float(found[worst]),
        nan_count=int(np.isnan(found).sum()),
        inf_count=int(np.isinf(found).sum()),
    )


def _positions(name: str, reference: Array, mask: BoolArray | None) -> NDArray[np.intp]:
    """Flat positions of the elements that count."""
    if mask is None:
        return np.arange(reference.size)
    if mask.shape != reference.shape[: mask.ndim]:
        raise FmmtError(f"The mask of '{name}' must fit the first axes of {reference.shape}, found {mask.shape}.")
    wide = mask.reshape(mask.shape + (1,) * (reference.ndim - mask.ndim))
    return np.flatnonzero(np.broadcast_to(wide, reference.shape))


def _worst(expected: DoubleArray, found: DoubleArray, tolerance: Tolerance) -> tuple[int, str]:
    """The worst element, and what is wrong (empty if nothing)."""
    for array, whose in ((expected, "the reference"), (found, "the engine")):
        broken = ~np.isfinite(array)
        if broken.any():
            return int(broken.argmax()), f"{whose} has {broken.sum()} elements that are NaN or infinite"
    excess = _excess(expected, found, tolerance)
    worst = int(excess.argmax())
    if excess[worst] <= tolerance.atol:
        return worst, ""
    return worst, f"{int((excess > tolerance.atol).sum())} of {excess.size} elements differ by more than {tolerance}"


def _excess(expected: DoubleArray, found: DoubleArray, tolerance: Tolerance) -> DoubleArray:
    return np.abs(found - expected) - tolerance.rtol * np.abs(expected)


def _errors(expected: DoubleArray, found: DoubleArray, tolerance: Tolerance) -> dict[str, float]:
    """The measures of a `TensorComparison`; none where an element is not finite."""
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return {}
    error = np.abs(found - expected)
    error_norm, expected_norm, found_norm = (float(np.linalg.norm(array)) for array in (error, expected, found))
    return {
        "max_abs": float(error.max()),
        "mean_abs": float(error.mean()),
        "relative_norm": _quotient(error_norm, expected_norm),
        "max_relative": float((error / np.maximum(np.abs(expected), RELATIVE_FLOOR)).max()),
        "cosine": _cosine(expected, found, expected_norm, found_norm),
        "needed_atol": max(0.0, float(_excess(expected, found, tolerance).max())),
    }


def _quotient(numerator: float, denominator: float) -> float:
    if denominator:
        return numerator / denominator
    return 0.0 if numerator == 0 else float("inf")


def _cosine(expected: DoubleArray, found: DoubleArray, expected_norm: float, found_norm: float) -> float:
    """Two zero vectors have the same direction, a zero vector and another have none in common."""
    if not (expected_norm and found_norm):
        return float(expected_norm == found_norm)
    return float(np.clip((expected / expected_norm) @ (found / found_norm), -1, 1))
