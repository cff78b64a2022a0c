"""Files that say what they hold and prove that it is whole: a JSON document and bytes, one file, written at once.

```
8 bytes   FMMTSEAL
4 bytes   length of the document, little endian
32 bytes  SHA-256 of the document
…         the document: {"content": {"sha256": …, "size_bytes": …}, "about": …}, UTF-8 JSON
…         the content
```

A writer that is killed leaves temporary files at most, which the next writer in that folder removes: they have no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fmmt_deploy.bundle.atomic import locked
from fmmt_deploy.bundle.disk import check_room, disk_problems
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text

__all__ = ["BrokenSealError", "Content", "only_builder", "read_document", "read_sealed", "write_sealed"]

_MAGIC = b"FMMTSEAL"
_HEAD_BYTES = len(_MAGIC) + 4 + 32
_LARGEST_DOCUMENT_BYTES = 2**20
_TEMPORARY = re.compile(r"\..+\.(tmp-\d+-[0-9a-f]{8}|lock)")


class BrokenSealError(ValueError):
    """A file is not one of these, or not whole; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the bytes after the document should be."""

    sha256: str
    size_bytes: int


def write_sealed(path: Path, about: Mapping[str, object], content: memoryview) -> None:
    """Writes a file, all or nothing; whatever was there is replaced.

    Args:
        path: Where; its folder is made.
        about: What the document says of the content, plain JSON values.
        content: The bytes.

    Raises:
        EnvironmentProblem: The disk is full, or the folder can't be written.
    """
    seal = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": content.nbytes}
    document = json.dumps({"content": seal, "about": about}, ensure_ascii=False, allow_nan=False).encode()
    head = _MAGIC + len(document).to_bytes(4, "little") + hashlib.sha256(document).digest()
    needed_bytes = len(head) + len(document) + content.nbytes
    with disk_problems(path, needed_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path, needed_bytes)
        with _temporary(path) as (file, commit):
            for part in (head, document, content):
                _write_all(file, memoryview(part))
            commit()


def read_document(path: Path) -> tuple[dict[str, object], Content]:
    """What a file says of its content, and what that should be; the content itself is only measured.

    Raises:
        BrokenSealError: The file is not one of these, its document was altered, or it was cut short.
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        about, content, _ = _document(file)
    return about, content


def read_sealed(path: Path) -> tuple[dict[str, object], memoryview]:
    """What a file says of its content, and the content, which is mapped and not copied, and whose hash was checked.

    Raises:
        BrokenSealError: The file is not one of these, or not as it was written.
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        about, content, start = _document(file)
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[start:]
    if (found := hashlib.sha256(mapped).hexdigest()) != content.sha256:
        raise BrokenSealError(f"corrupt: SHA-256 {content.sha256[:16]}… is recorded, found {found[:16]}…")
    return about, mapped


@contextmanager
def only_builder(path: Path) -> Iterator[None]:
    """Holds the right to make a file: a second process waits here, and then finds it made.

    Args:
        path: The file; its folder is made.

    Raises:
        EnvironmentProblem: The folder can't be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    with disk_problems(path, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked_file(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is locked: who waits for it sees that it is gone, and begins again
        os.close(descriptor)


def _locked_file(path: Path) -> int:
    """Opens and locks a file that may be removed by its last holder at any time."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:  # removed between the two questions
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[FileIO, Callable[[], None]]]:
    """A locked temporary file beside `path`, and the function that puts it in its place."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    with locked(path.parent):
        _remove_stale(path.parent)
        file = temporary.open("wb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)

    def commit() -> None:
        os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    try:
        yield file, commit
    finally:
        temporary.unlink(missing_ok=True)
        file.close()


def _write_all(file: FileIO, part: memoryview) -> None:
    """One call may write less than asked; unbuffered, so that a full disk shows here and not at closing."""
    written = 0
    while written < part.nbytes:
        written += file.write(part[written:])


def _remove_stale(folder: Path) -> None:
    """Removes temporary files and locks whose process is dead; the caller holds the folder's lock."""
    for path in folder.iterdir():
        if not _TEMPORARY.fullmatch(path.name) or not path.is_file():
            continue
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)


def _document(file: BinaryIO) -> tuple[dict[str, object], Content, int]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        raise BrokenSealError("not a file of ours, or cut short")
    length = int.from_bytes(head[8:12], "little")
    text = file.read(length) if length <= _LARGEST_DOCUMENT_BYTES else b""
    if hashlib.sha256(text).digest() != head[12:]:
        raise BrokenSealError("corrupt: what it says of itself was altered or cut short")
    try:
        values = json_object_from_text(text.decode())
        content = dataclass_from_json(Content, values.get("content"), "content")
        about = values.get("about")
        if not isinstance(about, dict):
            raise JsonValueError("about", "an object", type(about).__name__)
    except (JsonValueError, UnicodeDecodeError) as error:
        raise BrokenSealError(f"of another version: {error}") from error
    start = _HEAD_BYTES + length
    if size != start + content.size_bytes:
        raise BrokenSealError(f"corrupt: {start + content.size_bytes} bytes are recorded, found {size}")
    return about, content, start
