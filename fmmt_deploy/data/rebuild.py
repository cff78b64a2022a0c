"""The names in a pickle that are rebuilt to plain values, all in one visible table, and those that may stay nodes.

Anything else that a pickle wants called is refused by name. Sources: `torch._utils`, `torch.serialization`,
`numpy._core.multiarray`, as their pickles are.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.data.inert import Global, Node, plain_key

__all__ = ["STORAGE_TYPES", "Rebuild", "Storage", "storage_from_bytes", "storage_width"]

AnyArray: TypeAlias = NDArray[Any]
Arguments: TypeAlias = tuple[Any, ...]

STORAGE_TYPES: dict[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
    "UntypedStorage": "|u1",
}
"""torch's storage classes and their NumPy types; bfloat16, which NumPy lacks, becomes float32."""

EXPANDED_BYTES = 1 << 30
"""A tensor may repeat its storage (stride 0) up to this size."""

MODULE_LIKE = re.compile(
    r"(torch\.nn|src|modules|utils|transformers|timm|lightning_lite|lightning_fabric|pytorch_lightning)\."
    r"|(torch\.device|torch\.Size|functools\.partial|argparse\.Namespace)$"
)
"""Objects that may stay inert nodes: modules, their settings and wrappers. They are only ever looked into."""

_SCALARS = (str, bytes, int, float, complex, bool, type(None), np.generic)
_DTYPE = re.compile(r"[<>=|]?([biufcSU]\d{1,9}|O8?)")


@dataclass(frozen=True, slots=True)
class Storage:
    """A torch storage: one-dimensional, read-only."""

    values: AnyArray


def storage_width(kind: str) -> int:
    """Return the bytes of one element of a storage class.

    Raises:
        pickle.UnpicklingError: If torch's class is unknown.
    """
    dtype = STORAGE_TYPES.get(kind.rpartition(".")[2])
    if dtype is None:
        raise pickle.UnpicklingError(f"refused to read a storage of type {kind[:80]}")
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def storage_from_bytes(kind: str, block: memoryview, count: int) -> Storage:
    """View a storage's bytes as its type.

    Args:
        kind: torch's class name, with or without module.
        block: The bytes, not copied (but bfloat16 is widened to float32).
        count: How many elements it is said to have.

    Raises:
        pickle.UnpicklingError: If the type is unknown or the size is another.
    """
    width = storage_width(kind)
    if count < 0 or len(block) != count * width:
        raise pickle.UnpicklingError(f"a storage of {count} × {width} bytes has {len(block)} bytes")
    dtype = STORAGE_TYPES[kind.rpartition(".")[2]]
    if dtype == "bfloat16":
        values = (np.frombuffer(block, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(block, dtype) if count else np.empty(0, dtype)
    return Storage(_read_only(values))


class Rebuild:
    """The constructor for `InertUnpickler`.

    Args:
        load_bytes: Reads a pickle inside a pickle (`torch.storage._load_from_bytes`).
    """

    def __init__(self, load_bytes: Callable[[memoryview], object]) -> None:
        self._known: dict[str, Callable[..., object]] = {**KNOWN, "torch.storage._load_from_bytes": load_bytes}
        self._known["torch._tensor._rebuild_from_type_v2"] = self._rebuild_from_type

    def construct(self, name: str, args: Arguments, kwargs: dict[str, object]) -> object:
        """Rebuild a known name, keep a module-like one as a node, refuse any other."""
        name = name.replace("numpy.core.", "numpy._core.", 1) if name.startswith("numpy.") else name
        known = self._known.get(name)
        if known is not None and not kwargs:
            return known(*args)
        if not MODULE_LIKE.match(name):
            raise pickle.UnpicklingError(f"refused to make or call: {name[:200]}")
        return Node(name, args, kwargs)

    def build(self, node: Node, state: object) -> object:
        """Finish a NumPy array or type; a module keeps its state as it is."""
        finish = BUILT.get(node.name)
        if finish is not None:
            return finish(node, state)
        node.state = state
        return node

    def _rebuild_from_type(self, function: Global, _type: object, args: Arguments, _state: object) -> object:
        return self.construct(function.name, args, {})


def _tensor(storage: object, offset: int, size: Arguments, stride: Arguments, *_: object) -> AnyArray:
    if type(storage) is not Storage:
        raise pickle.UnpicklingError("a tensor has no storage")
    values = storage.values
    numbers = (offset, *size, *stride)
    if not _are_sizes(numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor has impossible sizes or strides")
    if 0 in size:
        return _read_only(np.empty(size, values.dtype))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(values):
        raise pickle.UnpicklingError(f"a tensor ends at element {last + 1} of a storage of {len(values)}")
    if math.prod(size) * values.itemsize > max(EXPANDED_BYTES, values.nbytes):
        raise pickle.UnpicklingError(f"a tensor of size {size} repeats a storage of {len(values)}")
    steps = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)


def _are_sizes(numbers: Arguments) -> bool:
    return len(numbers) < 130 and all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _parameter(data: object, *_: object) -> object:
    return data


def _dtype_node(code: object, *_: object) -> Node:
    return Node("numpy.dtype", (code,))


def _dtype_built(node: Node, state: object) -> np.dtype[Any]:
    order = state[1] if isinstance(state, tuple) and len(state) > 2 else None
    code = node.args[0].lstrip("<>=|") if isinstance(node.args[0], str) else ""
    plain = isinstance(state, tuple) and all(part is None for part in state[2:5])
    if not _DTYPE.fullmatch(code) or not isinstance(order, str) or order not in ("<", ">", "=", "|") or not plain:
        raise pickle.UnpicklingError("refused a NumPy type that is not of plain numbers or text")
    return np.dtype(order + code)


def _reconstruct(kind: object, *_: object) -> Node:
    if type(kind) is not Global or kind.name != "numpy.ndarray":
        raise pickle.UnpicklingError("refused a NumPy array of another class")
    return Node("numpy.ndarray")


def _array_built(_: Node, state: Any) -> AnyArray:
    _version, shape, dtype, fortran, raw = state
    return _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: object, dtype: object, shape: object, order: str = "C") -> AnyArray:
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise pickle.UnpicklingError("a NumPy array has no plain type or shape")
    if not _are_sizes(shape):
        raise pickle.UnpicklingError("a NumPy array has an impossible shape")
    if dtype.hasobject:
        return _object_array(raw, shape, order)
    block = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(block, bytes | memoryview) or len(block) != math.prod(shape) * dtype.itemsize:
        raise pickle.UnpicklingError(f"a NumPy array of shape {shape} has another number of bytes")
    flat = np.frombuffer(block, dtype) if len(block) else np.empty(0, dtype)
    return _read_only(flat.reshape(shape, order=order))  # type: ignore[call-overload]


def _object_array(raw: object, shape: tuple[int, ...], order: str) -> AnyArray:
    if not isinstance(raw, list) or len(raw) != math.prod(shape) or not all(isinstance(v, _SCALARS) for v in raw):
        raise pickle.UnpicklingError("refused a NumPy array of objects that are not plain values")
    array = np.empty(len(raw), object)
    array[:] = raw
    return _read_only(array.reshape(shape, order=order))  # type: ignore[call-overload]


def _read_only(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array


def _scalar(dtype: object, raw: object = b"") -> object:
    if isinstance(dtype, np.dtype) and dtype.hasobject:
        raise pickle.UnpicklingError("refused a NumPy scalar that is an object")
    return _array(raw, dtype, ())[()]


def _encode(text: str, encoding: object = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("refused to encode anything but bytes written as text")
    return text.encode("latin1")


def _dict(pairs: object = (), *_: object) -> dict[object, object]:
    """An OrderedDict; protocols below 4 may give its items as a list of pairs."""
    return {plain_key(key): value for key, value in pairs}  # type: ignore[attr-defined]


def _default_dict(*_: object) -> dict[object, object]:
    return {}


def _set(values: object = ()) -> set[object]:
    return {plain_key(value) for value in values}  # type: ignore[attr-defined]


def _frozenset(values: object = ()) -> frozenset[object]:
    return frozenset(_set(values))


def _of(kind: Callable[..., object], *allowed: type) -> Callable[..., object]:
    def make(*args: object) -> object:
        if not all(type(arg) in allowed for arg in args):
            raise pickle.UnpicklingError(f"a {getattr(kind, '__name__', 'value')} of something that is not plain")
        return kind(*args)

    return make


def _reconstructor(kind: object, *_: object) -> Node:
    if type(kind) is not Global or not MODULE_LIKE.match(kind.name):
        raise pickle.UnpicklingError(f"refused to make: {kind.name[:200] if type(kind) is Global else 'an object'}")
    return Node(kind.name)


KNOWN: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _default_dict,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.bytes": _of(bytes),
    "builtins.slice": _of(slice, int, type(None)),
    "builtins.range": _of(range, int),
    "builtins.xrange": _of(range, int),
    "builtins.complex": _of(complex, int, float),
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _reconstructor,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype_node,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
"""Every name that is rebuilt, and how (besides a pickle inside a pickle, see `Rebuild`)."""

BUILT: dict[str, Callable[[Node, object], object]] = {
    "numpy.ndarray": _array_built,
    "numpy.dtype": _dtype_built,
}
"""Nodes that become values once their state is known."""
