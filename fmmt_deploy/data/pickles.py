"""Reads pickles and `torch.save` files of untrusted origin. Nothing in them is ever run, imported or called.

`read_pickle` is for checkpoints: tensors and NumPy arrays come as read-only arrays (mapped, not copied), containers as
plain containers, and any other object as an inert `Node`; a whole pickled `torch.nn.Module` is a tree of nodes whose
`.state` is the dict with `_parameters`, `_buffers` and `_modules`. A class or function that is only referred to is a
`Global`. `read_arrays` is for data: it refuses nodes and names as well. What is rebuilt stands in `rebuild.py`.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from fmmt_deploy.data.archives import TorchArchive, is_zip, map_file
from fmmt_deploy.data.inert import ByteSource, Global, InertUnpickler, Node
from fmmt_deploy.data.rebuild import Rebuild, Storage, storage_from_bytes, storage_width
from fmmt_deploy.errors import DataError, FmmtError

__all__ = ["Global", "Node", "check_plain", "read_arrays", "read_pickle"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DEPTH = 4  # pickles inside pickles

_CORRUPT = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the standard library and NumPy raise on damaged bytes; none of our own code is called by a pickle."""


def read_pickle(path: Path, error: type[FmmtError] = DataError) -> object:
    """Read a plain pickle, or what `torch.save` wrote (zip, or the older format), without running anything in it.

    Args:
        path: The file.
        error: What to raise: `CheckpointError` for checkpoints, `DataError` for data.

    Returns:
        Plain values, read-only arrays, and inert `Node`s and `Global`s for everything else.

    Raises:
        FmmtError: As `error`, if the file is missing, truncated, corrupt, absurd, or asks for anything to be called.
    """
    try:
        buffer = map_file(path)
        return _read_torch_zip(path, buffer) if is_zip(buffer) else _read_plain(buffer, 0)
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist", path=path) from problem
    except _CORRUPT as problem:
        reason = _reason(problem)
        refused = reason.startswith("refused")
        fix = "Nothing in it was run. " + ("Don't use it elsewhere." if refused else "Check that it is complete.")
        raise error(f"{path} can't be read as a pickle or torch file", why=reason, fix=fix, path=path) from problem


def _reason(problem: BaseException) -> str:
    """Our own words and the system's speak for themselves; what the standard library stumbles over does not."""
    text = str(problem)[:300] or type(problem).__name__
    if isinstance(problem, pickle.UnpicklingError | zipfile.BadZipFile | EOFError | OSError | ValueError):
        return text
    return f"it is no pickle, or a damaged one ({type(problem).__name__}: {text})"


def read_arrays(path: Path) -> object:
    """Read a pickle of data: only containers, text, numbers and arrays.

    Raises:
        DataError: If the file can't be read, or holds anything else.
    """
    value = read_pickle(path, DataError)
    check_plain(value, path)
    return value


def check_plain(value: object, path: Path, error: type[FmmtError] = DataError) -> None:
    """Check that a value from `read_pickle` has no objects in it, however it shares or contains itself.

    Raises:
        FmmtError: As `error`, naming the class of the first object found.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif not isinstance(part, str | bytes | memoryview | int | float | complex | None | np.ndarray | np.generic):
            name = part.name if isinstance(part, Node | Global) else type(part).__name__
            fix = "Only arrays, containers, text and numbers are read from data files."
            raise error(f"{path} holds an object of class {name[:200]}", fix=fix, path=path)


def _read_torch_zip(path: Path, buffer: memoryview) -> object:
    archive = TorchArchive(path, buffer)
    storages: dict[tuple[str, str], Storage] = {}

    def persistent_load(pid: object) -> Storage:
        kind, key, count = _storage_id(pid)
        if (kind, key) not in storages:
            storages[kind, key] = storage_from_bytes(kind, archive.read(f"data/{key}"), count)
        return storages[kind, key]

    source = ByteSource(archive.read("data.pkl"))
    return InertUnpickler(source, _rebuild(0), persistent_load).load()


def _storage_id(pid: object) -> tuple[str, str, int]:
    """Parse `("storage", torch.FloatStorage, key, location, count)`, to which the older format adds a view (None)."""
    match pid:
        case ("storage", Global(name=kind), str(key), str(), int(count), *rest) if rest in ([], [None]):
            return kind, key, count
    raise pickle.UnpicklingError("it refers to data that is not a torch storage")


def _rebuild(depth: int) -> Rebuild:
    def load_bytes(block: memoryview | bytes) -> object:
        if depth >= _MAX_DEPTH or not isinstance(block, bytes | memoryview):
            raise pickle.UnpicklingError("it has pickles in pickles in pickles")
        return _read_plain(memoryview(block), depth + 1)

    return Rebuild(load_bytes)


def _read_plain(buffer: memoryview, depth: int) -> object:
    source = ByteSource(buffer)
    value = InertUnpickler(source, _rebuild(depth)).load()
    if type(value) is int and value == _LEGACY_MAGIC:
        value = _read_legacy(source, depth)
    if source.position != len(buffer):
        raise pickle.UnpicklingError(f"{len(buffer) - source.position} bytes follow its end")
    return value


def _read_legacy(source: ByteSource, depth: int) -> object:
    """Read torch's format before zip: magic, protocol, machine, objects, storage keys, and last the storages.

    The storages come after the objects that need them, so the objects are read twice: once to find their end.
    """
    protocol, machine = (InertUnpickler(source, _rebuild(depth)).load() for _ in range(2))
    if protocol != _LEGACY_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("it is an old torch file of another protocol or byte order")
    start = source.position
    wanted: dict[str, tuple[str, int]] = {}

    def note(pid: object) -> Global | Storage:
        if isinstance(pid, tuple) and pid[:1] == ("module",) and isinstance(pid[1], Global):
            return pid[1]  # a class, with its source code beside it
        kind, key, count = _storage_id(pid)
        if wanted.setdefault(key, (kind, count)) != (kind, count):
            raise pickle.UnpicklingError(f"storage {key[:80]} has two sizes or types")
        return Storage(np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (count,), (0,), writeable=False))

    InertUnpickler(source, _rebuild(depth), note).load()
    storages = _legacy_storages(source, wanted, depth)

    def persistent_load(pid: object) -> Global | Storage:
        found = note(pid)
        return found if isinstance(found, Global) else storages[_storage_id(pid)[1]]

    return InertUnpickler(ByteSource(source.buffer[start:]), _rebuild(depth), persistent_load).load()


def _legacy_storages(source: ByteSource, wanted: dict[str, tuple[str, int]], depth: int) -> dict[str, Storage]:
    keys = InertUnpickler(source, _rebuild(depth)).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in wanted for key in keys):
        raise pickle.UnpicklingError("its list of storages is not one")
    storages: dict[str, Storage] = {}
    for key in keys:
        kind, count = wanted[key]
        width = storage_width(kind)
        if int.from_bytes(source.read(8), "little") != count:
            raise pickle.UnpicklingError(f"storage {key[:80]} has another size than its tensors say")
        storages[key] = storage_from_bytes(kind, memoryview(source.read(count * width)), count)
    return storages
