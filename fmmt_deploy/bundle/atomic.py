"""Replacing a file, or a whole directory, so that a kill at any instant leaves the old one or the new one.

Beside a target directory `name` there may be, all in its parent:

* `.name.tmp-<pid>-<random>`: being written, or left by a dead process. Its writer holds a lock on it for as long as it
  lives, so liveness needs no process ids (which mean nothing across containers) and no clean-up after a kill.
* `.name.old`: the previous content, only while one is being swapped for the other. If the writer dies between the two
  renames, the target is missing and this is put back by whoever opens or writes the target next.

Both renames, and every clean-up, happen under a lock on the parent directory, which the system drops with its holder.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "create_sibling",
    "link_or_copy",
    "locked",
    "recover",
    "remove_stale",
    "replace_directory",
    "replaced_file",
    "sync_directory",
    "sync_tree",
]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a lock on a directory against other processes (and other threads) that do the same.

    Raises:
        OSError: It can't be opened, or its file system has no locks.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def create_sibling(target: Path) -> Iterator[Path]:
    """Makes a temporary directory beside `target`, and removes it at the end if it is still there.

    Its name and its lock mark it as in use, so that other writers' `remove_stale` leaves it alone.

    Raises:
        OSError: It can't be made.
    """
    path = _fresh_name(target)
    with locked(target.parent):
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        os.close(descriptor)
        shutil.rmtree(path, ignore_errors=True)  # absent after a swap; what can't be removed is stale, and tried again


def recover(target: Path) -> None:
    """Completes or undoes a swap whose process died; the caller holds the parent's lock."""
    old = _old_name(target)
    if not old.is_dir():
        return
    if target.exists():
        old.rename(_fresh_name(target))
    else:
        old.rename(target)
    sync_directory(target.parent)


def remove_stale(target: Path) -> None:
    """Removes temporary siblings whose process is dead; the caller holds the parent's lock."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.tmp-\d+-[0-9a-f]{{8}}")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name) and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def replace_directory(new: Path, target: Path) -> None:
    """Puts `new` in the place of `target`, which may exist; the caller holds the parent's lock.

    Raises:
        OSError: A rename failed; the old directory is then where it was.
    """
    recover(target)
    old = _old_name(target)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    finally:
        recover(target)
    sync_directory(target.parent)


@contextmanager
def replaced_file(target: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `target` once it has reached the disk, or is removed."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, path: Path) -> None:
    """Makes `path` the same file as `source`, or a copy where the file system can't (another one, or no links).

    Raises:
        OSError: It can't be read or written.
    """
    try:
        os.link(source.resolve(), path)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, path)


def sync_tree(directory: Path) -> None:
    """Makes sure that everything below a directory has reached the disk.

    Raises:
        OSError: It could not be written (a full disk may show only now).
    """
    for folder, _, names in os.walk(directory):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))


def _is_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone in the meantime, not a directory, or not ours to read: in each case not ours to remove
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def sync_directory(directory: Path) -> None:
    """Makes sure that the names in a directory have reached the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
