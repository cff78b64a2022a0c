"""Reads safetensors files, mapped rather than read; bfloat16, which NumPy lacks, becomes float32.

Format: eight bytes with the length of a JSON header, the header (name → dtype, shape, begin and end), the data.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text
from fmmt_deploy.reference.weights import Tensors

__all__ = ["read_safetensors"]

MAX_HEADER_BYTES = 100_000_000
"""As in the format's own reader."""

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}


def read_safetensors(path: Path) -> Tensors:
    """Every tensor of a file, read-only.

    Raises:
        CheckpointError: It is truncated or damaged, or has a type of number that no checkpoint of ours has.
    """
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        start, header = _header(data)
        tensors = {name: _tensor(name, entry, data[start:]) for name, entry in header.items() if name != "__metadata__"}
        _check_no_gaps(header, len(data) - start)
    except (OSError, ValueError) as error:  # mmap refuses an empty file with a ValueError
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {error}.",
            fix="Check that it is complete, or get it again.",
            path=path,
        ) from error
    return tensors


def _header(data: memoryview) -> tuple[int, dict[str, object]]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"its header is said to have {size} bytes, the file has {len(data)}")
    try:
        return 8 + size, json_object_from_text(bytes(data[8 : 8 + size]).decode())
    except (JsonValueError, UnicodeDecodeError) as error:
        raise ValueError(f"its header is damaged, {error}") from error


def _tensor(name: str, entry: object, data: memoryview) -> NDArray[Any]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if kind in DTYPES:
            dtype = np.dtype(DTYPES[kind])
        case _:
            raise ValueError(f"its entry of {name[:80]} is damaged, or of an unknown type")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in shape) or len(shape) > 32:
        raise ValueError(f"{name[:80]} has an impossible shape")
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name[:80]} has other bytes than its shape says, or some beyond the file's end")
    values = np.frombuffer(data[begin:end], dtype) if end > begin else np.empty(0, dtype)
    if kind == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    return values.reshape(shape)


def _check_no_gaps(header: dict[str, Any], size: int) -> None:
    """Every byte belongs to exactly one tensor, as the format demands."""
    at = 0
    for begin, end in sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"):
        if begin != at:
            raise ValueError("its tensors overlap, or have gaps between them")
        at = end
    if at != size:
        raise ValueError(f"its tensors have {at} bytes, the file has {size}")
