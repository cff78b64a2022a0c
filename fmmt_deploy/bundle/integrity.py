"""Whether the files of a bundle are those that its manifest lists: sizes, hashes, links, external data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from fmmt_deploy.bundle.external_data import external_data_locations
from fmmt_deploy.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest, check_relative_path
from fmmt_deploy.errors import BundleError

__all__ = ["CACHES", "check_files", "entries_of", "hash_file", "hash_files"]

CACHES = ("engines", "receipts")
"""Folders of a bundle whose files its manifest does not list: they are made on the machine that runs it."""

_BLOCK_BYTES = 4 * 2**20
_EXPORT_AGAIN = "Copy the bundle again, or export it again with `fmmt export`."


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It can't be read.
    """
    digest = hashlib.sha256()
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])  # releases the interpreter's lock: threads do run side by side
    return digest.hexdigest()


def hash_files(paths: list[Path]) -> list[str]:
    """The SHA-256 of each file, computed in threads: a full-size bundle has gigabytes.

    Raises:
        OSError: One can't be read.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(hash_file, paths))


def entries_of(directory: Path, known: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Hash and size of every file below a directory, but of its manifest and its caches, by relative path.

    Args:
        directory: The bundle's.
        known: Entries of files that are there unchanged, and so need not be read again.

    Raises:
        OSError: One can't be read.
    """
    found = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if not path.is_dir()}
    listed = {name: path for name, path in found.items() if name != MANIFEST_NAME and name.split("/")[0] not in CACHES}
    entries = {name: entry for name, entry in known.items() if name in listed}
    fresh = {name: path for name, path in listed.items() if name not in entries}
    for (name, path), digest in zip(fresh.items(), hash_files(list(fresh.values())), strict=True):
        entries[name] = FileEntry(digest, path.stat().st_size)
    return {name: entries[name] for name in listed}


def check_files(root: Path, manifest: Manifest, verify: bool) -> None:
    """Compares a bundle's files with its manifest; the caches that are not listed (engines, receipts) are left alone.

    Args:
        root: The bundle's directory.
        manifest: What should be there.
        verify: Whether to compute hashes, and not only compare sizes.

    Raises:
        BundleError: A file is missing, altered, leads out of the bundle, or keeps weights in a file that is not listed.
        OSError: One can't be read.
    """
    entries = manifest.files
    for relative, entry in entries.items():
        _check_size(root, relative, entry)
    if verify:
        digests = hash_files([root / relative for relative in entries])
        for (relative, entry), digest in zip(entries.items(), digests, strict=True):
            if digest != entry.sha256:
                raise _altered(root, relative, f"SHA-256 {entry.sha256[:16]}…", f"{digest[:16]}…")
    for graphs in manifest.graphs.values():
        for relative in graphs.values():
            _check_external_data(root, relative, entries)


def _check_size(root: Path, relative: str, entry: FileEntry) -> None:
    path = root / relative
    if not path.exists():
        raise BundleError(
            f"{relative} is missing from the bundle {root}.",
            why=f"Its manifest lists it with {entry.size_bytes} bytes.",
            fix=_EXPORT_AGAIN,
            path=path,
        )
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        raise BundleError(
            f"{relative} in the bundle {root} leads out of it, or is not a file.",
            fix="Don't use this bundle unless you know who made it. " + _EXPORT_AGAIN,
            path=path,
        )
    if (size := path.stat().st_size) != entry.size_bytes:
        raise _altered(root, relative, f"{entry.size_bytes} bytes", f"{size} bytes")


def _check_external_data(root: Path, relative: str, entries: Mapping[str, FileEntry]) -> None:
    folder = PurePosixPath(relative).parent
    for location in external_data_locations(root / relative):
        check_relative_path(location)
        if (data := (folder / location).as_posix()) not in entries:
            raise BundleError(
                f"{relative} in the bundle {root} keeps weights in {data}, which the manifest does not list.",
                fix=_EXPORT_AGAIN,
                path=root / relative,
            )


def _altered(root: Path, relative: str, expected: str, found: str) -> BundleError:
    return BundleError(
        f"{relative} in the bundle {root} was altered: expected {expected}, found {found}.",
        why="It was damaged on its way or changed after the export.",
        fix=_EXPORT_AGAIN,
        path=root / relative,
    )
