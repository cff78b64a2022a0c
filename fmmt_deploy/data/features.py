"""Checks feature arrays before anything computes with them: sizes, masks, and that every number is finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import DataError
from fmmt_deploy.types import FloatArray

__all__ = ["Features", "Sizes", "checked_features", "checked_labels"]

_CHUNK = 64  # utterances looked at together: the check of a gigabyte must not need another


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a model expects of one modality: `length` rows of `size` numbers."""

    length: int
    size: int


@dataclass(frozen=True, slots=True)
class Features:
    """One modality of U utterances.

    Attributes:
        values: `(U, length, size)`, perhaps a view of a mapped file; rows from an utterance's length on are zero.
        lengths: Real rows of each utterance.
    """

    values: FloatArray
    lengths: tuple[int, ...]


def checked_features(
    values: object, mask: object, kind: str, source: Path, utterances: Sequence[str], sizes: Sizes
) -> Features:
    """Check one modality's array and mask.

    Args:
        values: `(U, length, size)`, floating point.
        mask: `(U, length)`, ones then zeros in each row.
        kind: "audio" or "vision", for messages.
        source: The file, for messages.
        utterances: The U ids.
        sizes: What the model expects.

    Raises:
        DataError: If a shape or type is another, a mask is no prefix of ones, a number is NaN or infinite, or a masked
            row is not zero.
    """
    count = len(utterances)
    array = _array(values, f"{source.name}: {kind}", (count, sizes.length, sizes.size), "f", source)
    ones = _array(mask, f"{source.name}: the {kind} mask", (count, sizes.length), "fiub", source)
    lengths = np.count_nonzero(ones, axis=1)
    expected = np.arange(sizes.length) < lengths[:, None]
    for index in np.flatnonzero((ones != expected).any(axis=1))[:1]:
        what = f"{source.name}: the {kind} mask of {utterances[index]} is not ones followed by zeros"
        raise DataError(what, path=source)
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite and is reported as such
        features = Features(np.asarray(array, np.float32), tuple(lengths.tolist()))
    _check_numbers(features.values, expected, kind, source, utterances)
    return features


def _check_numbers(
    values: FloatArray, real: NDArray[np.bool_], kind: str, source: Path, utterances: Sequence[str]
) -> None:
    for start in range(0, len(values), _CHUNK):
        chunk, inside = values[start : start + _CHUNK], real[start : start + _CHUNK]
        for index in np.flatnonzero(~np.isfinite(chunk).all(axis=(1, 2)))[:1]:
            what = f"{source.name}: {kind} of {utterances[start + index]} has a number that is NaN or infinite"
            raise DataError(what, fix="Extract its features again, or take it out of the data set.", path=source)
        for index in np.flatnonzero((chunk.any(axis=2) & ~inside).any(axis=1))[:1]:
            what = f"{source.name}: {kind} of {utterances[start + index]} has rows that its mask leaves out, not zero"
            raise DataError(what, fix="Correct the mask, or set these rows to zero.", path=source)


def checked_labels(values: object, source: Path, count: int, classes: int) -> tuple[int, ...]:
    """Check an array of labels.

    Raises:
        DataError: If it is not `count` whole numbers below `classes`.
    """
    labels = _array(values, f"{source.name}: labels", (count,), "iu", source)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(f"{source.name}: unknown label {wrong[0]}, there are 0 to {classes - 1}", path=source)
    return tuple(int(label) for label in labels)


def _array(value: object, name: str, shape: tuple[int, ...], kinds: str, source: Path) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        found = f"of type {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise DataError(f"{name} should be an array of numbers, and is {found}", path=source)
    if value.shape != shape:
        meaning = ("utterances", "rows the model reads", "numbers a row")
        expected = ", ".join(f"{n} {what}" for n, what in zip(shape, meaning, strict=False))
        what = f"{name} should have the shape {shape} ({expected}), and has {value.shape}"
        raise DataError(what, fix="Use the data set that the model was trained for.", path=source)
    return value
