"""Typed weights: converted once and written beside the typed graph, which refers to them by offset.

The file is a safetensors file like that of the float32 graph, with the same names; a tensor that is needed in both
types is there twice, the low one as `<name>/fp16`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.export.builder import WeightFile

__all__ = ["ELEMENT_TYPES", "StoredWeight", "WeightPlan", "lowered", "plan_weights", "write_weights"]

ELEMENT_TYPES: Mapping[Precision, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
"""The precisions that a graph's tensors can have, and ONNX's number for each."""

_NAMES: Mapping[Precision, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One tensor of the new file.

    Attributes:
        name: There.
        source: Its name in the float32 file.
        precision: Its type.
        shape: Its shape.
        offset: Where it begins in the new file, in bytes.
    """

    name: str
    source: str
    precision: Precision
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        """How long it is in the file."""
        return _BYTES[self.precision] * prod(self.shape)


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """The new file before it is written.

    Attributes:
        source: The float32 file.
        header: Its first bytes.
        tensors: In the order of their data.
    """

    source: WeightFile
    header: bytes
    tensors: tuple[StoredWeight, ...]

    @property
    def size_bytes(self) -> int:
        """How large the file will be."""
        return len(self.header) + sum(tensor.size_bytes for tensor in self.tensors)

    def place(self, offset: int, size: int, precision: Precision) -> tuple[int, int]:
        """Where a part of the float32 file is in the new one.

        Args:
            offset: Of the part in the float32 file, in bytes: a tensor, or rows of one.
            size: Its length there, in bytes.
            precision: In which type it is wanted.

        Returns:
            Offset and length in the new file, in bytes.
        """
        source = _covering(self.source, offset)
        stored = next(t for t in self.tensors if (t.source, t.precision) == (source, precision))
        bytes_ = _BYTES[precision]
        return stored.offset + (offset - self.source.entries[source][1]) // 4 * bytes_, size // 4 * bytes_


def plan_weights(source: WeightFile, uses: Iterable[tuple[int, Precision]]) -> WeightPlan:
    """Lays the file out.

    Args:
        source: The float32 file.
        uses: Byte offset in it, and wanted type, of everything that the typed graph refers to.
    """
    wanted = dict.fromkeys((_covering(source, offset), precision) for offset, precision in uses)
    wide = {name for name, precision in wanted if precision == "fp32"}
    order = sorted(wanted, key=lambda use: use[1] != "fp32")  # float32 first: so all are aligned to their size
    tensors, position = [], 0
    for name, precision in order:
        stored = f"{name}/{precision}" if precision != "fp32" and name in wide else name
        tensors.append(StoredWeight(stored, name, precision, source.entries[name][0], position))
        position += tensors[-1].size_bytes
    entries = {
        t.name: {
            "dtype": _NAMES[t.precision],
            "shape": list(t.shape),
            "data_offsets": [t.offset, t.offset + t.size_bytes],
        }
        for t in tensors
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    placed = tuple(StoredWeight(t.name, t.source, t.precision, t.shape, t.offset + len(header)) for t in tensors)
    return WeightPlan(source, header, placed)


def write_weights(plan: WeightPlan, path: Path) -> None:
    """Converts and writes the weights, one tensor at a time.

    Raises:
        PrecisionError: A weight is too large for its type, or not finite.
        OSError: The file can't be written.
    """
    with path.open("wb") as file:
        file.write(plan.header)
        for tensor in plan.tensors:
            values = plan.source.read(tensor.source)
            file.write(lowered(values, tensor.precision, tensor.source).tobytes())


def lowered(values: NDArray[np.float32], precision: Precision, name: str) -> NDArray[Any]:
    """Values in a type, rounded to nearest, ties to even; bfloat16 as its bits in uint16, which NumPy lacks.

    Args:
        values: Any shape.
        precision: The type; `fp32` returns them as they are.
        name: The tensor's, for the error.

    Raises:
        PrecisionError: A value is beyond the type's range, or not finite.
    """
    if not np.isfinite(values).all():
        raise PrecisionError(f"The weight {name} has values that are not finite.", tensor=name)
    if precision == "fp32":
        return values
    half = _float16(values) if precision == "fp16" else _bfloat16_bits(values)
    if half is None:
        raise PrecisionError(
            f"The weight {name} overflows {precision}: its largest magnitude is {np.abs(values).max():.6g}.",
            fix=f"Keep what reads it in float32 (--keep-float32), or cast to {_other(precision)}.",
            tensor=name,
        )
    return half


def _float16(values: NDArray[np.float32]) -> NDArray[np.float16] | None:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else None


def _bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    bits = values.view(np.uint32)
    half = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return half if ((half & 0x7FFF) < 0x7F80).all() else None


def _other(precision: Precision) -> str:
    return "bf16" if precision == "fp16" else "no lower type"


def _covering(source: WeightFile, offset: int) -> str:
    """The tensor that a byte belongs to."""
    starts = sorted((start, name) for name, (_, start) in source.entries.items())
    return starts[bisect_right(starts, (offset, "\uffff")) - 1][1]
