"""Which external data files an ONNX graph refers to, read off the protobuf wire format without loading any weight.

`onnx.load` would copy hundreds of megabytes of weights to answer this, and a run with ONNX Runtime needs no `onnx`
otherwise. Only the fields that lead to a `TensorProto` are followed (onnx.proto, IR version 3 and later); all else is
skipped by length.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from fmmt_deploy.errors import BundleError

__all__ = ["external_data_locations"]

_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}
"""Message → field number → message in it, for all paths from a model to the texts of `TensorProto.external_data`."""

_FIXED_BYTES = {1: 8, 5: 4}
_LENGTH_DELIMITED = 2
_DEEPEST = 64


def external_data_locations(path: Path) -> frozenset[str]:
    """The `location` of every tensor whose data lie in another file, as written (relative to the graph's folder).

    Args:
        path: An ONNX file.

    Raises:
        BundleError: It is empty or not a protobuf message with a graph.
        OSError: It can't be read.
    """
    found: set[str] = set()
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                graphs = _scan(data, 0, len(data), "model", found, 0)
        except (ValueError, IndexError, UnicodeDecodeError) as error:  # mmap refuses an empty file with a ValueError
            raise _not_onnx(path) from error
    if not graphs:
        raise _not_onnx(path)
    return frozenset(found)


def _not_onnx(path: Path) -> BundleError:
    return BundleError(f"{path} is not an ONNX graph.", fix="Export the bundle again with `fmmt export`.", path=path)


def _scan(data: mmap.mmap, start: int, end: int, message: str, found: set[str], depth: int) -> int:
    """Follows one message; returns how many of the fields in it were followed."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    position, followed, texts = start, 0, dict[str, str]()
    while position < end:
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            _, position = _varint(data, position)
            continue
        length = _FIXED_BYTES.get(wire)
        if wire == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
        if length is None or position + length > end:
            raise ValueError("a field is cut short or of an unknown type")
        inner = _FIELDS[message].get(field) if wire == _LENGTH_DELIMITED else None
        if message == "entry" and inner is not None:
            texts[inner] = data[position : position + length].decode()
        elif inner is not None:
            followed += 1
            _scan(data, position, position + length, inner, found, depth + 1)
        position += length
    if texts.get("key") == "location":
        found.add(texts.get("value", ""))
    return followed


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than ten bytes")
