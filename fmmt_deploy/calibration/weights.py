"""Weights of a graph that is being rewritten: read, converted and written one at a time, when the file is made.

The file is a safetensors file like that of the float32 graph, a tensor for each large constant of the graph under the
same name; the graph refers to them by offset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from fmmt_deploy.calibration.formats import Around
from fmmt_deploy.errors import PrecisionError

__all__ = ["ELEMENT_TYPES", "Weight", "external_weight", "lowered", "placed_weights", "write_weights"]

ELEMENT_TYPES: Mapping[Around, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
"""The types around products, and ONNX's number for each."""

_STORED: Mapping[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("F32", 4),
    TensorProto.FLOAT16: ("F16", 2),
    TensorProto.BFLOAT16: ("BF16", 2),
    TensorProto.INT8: ("I8", 1),
    TensorProto.FLOAT8E4M3FN: ("F8_E4M3", 1),
}
"""For each of ONNX's types what safetensors calls it, and its bytes."""

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Weight:
    """A large constant.

    Attributes:
        name: In the graph, and in the file.
        kind: ONNX's number for its type.
        shape: Its shape.
        read: Gives its values in that type, read and converted anew each time; bfloat16 as its bits in uint16.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @property
    def size_bytes(self) -> int:
        """How long it is in the file."""
        return _STORED[self.kind][1] * prod(self.shape)

    def lowered(self, name: str, around: Around) -> Weight:
        """This float32 weight in another type, under another name; see `lowered`."""
        return Weight(name, ELEMENT_TYPES[around], self.shape, lambda: lowered(self.read(), around, self.name))


def external_weight(tensor: onnx.TensorProto, folder: Path) -> Weight:
    """A float32 weight of a graph, by reference.

    Args:
        tensor: It; its data are external.
        folder: Where the graph's file is.
    """
    entry = {item.key: item.value for item in tensor.external_data}
    shape, offset, path = tuple(tensor.dims), int(entry["offset"]), folder / entry["location"]

    def read() -> NDArray[np.float32]:
        return np.fromfile(path, np.float32, prod(shape), offset=offset).reshape(shape)

    return Weight(tensor.name, tensor.data_type, shape, read)


def placed_weights(weights: Iterable[Weight]) -> tuple[bytes, dict[str, int]]:
    """Lays the file out: the widest types first, so that all are aligned to their size.

    Returns:
        The file's first bytes, and where each weight begins in the file, in bytes.
    """
    offsets, position = {}, 0
    entries: dict[str, object] = {}
    for weight in _in_order(weights):
        offsets[weight.name] = position
        entries[weight.name] = {
            "dtype": _STORED[weight.kind][0],
            "shape": list(weight.shape),
            "data_offsets": [position, position + weight.size_bytes],
        }
        position += weight.size_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: offset + len(header) for name, offset in offsets.items()}


def write_weights(weights: Iterable[Weight], path: Path) -> None:
    """Converts and writes weights, one at a time.

    Raises:
        PrecisionError: A weight is too large for its type, or not finite.
        OSError: The file can't be written.
    """
    weights = tuple(weights)
    with path.open("wb") as file:
        file.write(placed_weights(weights)[0])
        for weight in _in_order(weights):
            file.write(np.ascontiguousarray(weight.read()).tobytes())


def lowered(values: NDArray[np.float32], around: Around, name: str) -> NDArray[Any]:
    """Values in a type, rounded to nearest, ties to even; bfloat16 as its bits in uint16.

    Args:
        values: Any shape.
        around: The type; `fp32` returns them as they are.
        name: The tensor's, for the error.

    Raises:
        PrecisionError: A value is beyond the type's range, or not finite.
    """
    if not np.isfinite(values).all():
        raise PrecisionError(f"The weight {name} has values that are not finite.", tensor=name)
    if around == "fp32":
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16 if around == "fp16" else ml_dtypes.bfloat16)
    if not np.isfinite(half).all():
        raise PrecisionError(
            f"The weight {name} overflows {around}: its largest magnitude is {np.abs(values).max():.6g}.",
            fix=f"Keep what reads it in float32 (--keep-float32), or cast to {_other(around)}.",
            tensor=name,
        )
    return half if around == "fp16" else half.view(np.uint16)


def _in_order(weights: Iterable[Weight]) -> list[Weight]:
    return sorted(weights, key=lambda weight: -_STORED[weight.kind][1])


def _other(around: Around) -> str:
    return "bf16" if around == "fp16" else "no lower type"
