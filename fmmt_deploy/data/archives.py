"""The zip archives that `torch.save` writes, mapped rather than read: a checkpoint of gigabytes costs no memory.

Source of the layout: PyTorch, `caffe2/serialize/inline_container.h` (a folder; `data.pkl`, `data/<key>`, `byteorder`).
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path

__all__ = ["TorchArchive", "is_zip", "map_file"]

_LOCAL_HEADER = 30  # bytes, then the name and the extra field
_MAX_ENTRIES = 100_000


def map_file(path: Path) -> memoryview:
    """Map a file for reading.

    Raises:
        OSError: If it can't be opened.
        ValueError: If it is empty.
    """
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_zip(buffer: memoryview) -> bool:
    """Say whether a file begins as a zip archive does."""
    return bytes(buffer[:4]) == b"PK\x03\x04"


class TorchArchive:
    """One such archive.

    Args:
        path: The file.
        buffer: The same file, mapped.

    Raises:
        zipfile.BadZipFile: If it is truncated, compressed, encrypted, or not laid out as torch does.
        OSError: If it can't be opened.
    """

    def __init__(self, path: Path, buffer: memoryview) -> None:
        self._buffer = buffer
        with zipfile.ZipFile(path) as archive:
            self._entries = _checked_entries(archive.infolist(), len(buffer))
        roots = [
            name[: -len("data.pkl")] for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise zipfile.BadZipFile("it is a zip archive, but not one that torch.save wrote (no single data.pkl)")
        self._root = roots[0]
        if self._root + "constants.pkl" in self._entries:
            raise zipfile.BadZipFile("it is a TorchScript archive; the model's own checkpoint is needed")
        order = self._root + "byteorder"
        if order in self._entries and bytes(self.read("byteorder")) != b"little":
            raise zipfile.BadZipFile("its numbers are not little-endian")

    def read(self, name: str) -> memoryview:
        """Return an entry of the archive's folder as a view of the file, its checksum verified.

        Raises:
            zipfile.BadZipFile: If it is absent or corrupt.
        """
        entry = self._entries.get(self._root + name)
        if entry is None:
            raise zipfile.BadZipFile(f"the archive has no entry {name[:80]}")
        start = entry.header_offset
        header = self._buffer[start : start + _LOCAL_HEADER]
        if len(header) < _LOCAL_HEADER or bytes(header[:4]) != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"entry {name[:80]} is not where the archive says")
        start += _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        block = self._buffer[start : start + entry.file_size]
        if len(block) != entry.file_size or zlib.crc32(block) != entry.CRC:
            raise zipfile.BadZipFile(f"entry {name[:80]} is corrupt: its checksum does not match")
        return block


def _checked_entries(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """Refuse what torch.save never writes: compression (and so bombs), encryption, duplicates, paths that leave."""
    if len(infos) > _MAX_ENTRIES:
        raise zipfile.BadZipFile(f"it has {len(infos)} entries, more than {_MAX_ENTRIES}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.file_size > size:
            raise zipfile.BadZipFile(f"entry {name[:80]} is compressed, which torch.save never does")
        if info.flag_bits & 0x1:
            raise zipfile.BadZipFile(f"entry {name[:80]} is encrypted")
        if name in entries:
            raise zipfile.BadZipFile(f"entry {name[:80]} is there twice")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise zipfile.BadZipFile(f"entry {name[:80]} leaves the archive")
        entries[name] = info
    return entries
