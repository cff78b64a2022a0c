"""A folder that is written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmmt_deploy.bundle.atomic import create_sibling, locked, recover, remove_stale, replace_directory, sync_tree
from fmmt_deploy.bundle.disk import disk_problems

__all__ = ["swapped"]


@contextmanager
def swapped(target: Path, durable: bool = True) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` in one step once it is on the disk.

    Args:
        target: Whatever is there is replaced.
        durable: Wait for the disk; without, a power cut may cost what is easily made again.

    Raises:
        EnvironmentProblem: It can't be written; `target` is as it was.
    """
    with disk_problems(target, 0):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent):
            recover(target)
            remove_stale(target)
        with create_sibling(target) as directory:
            yield directory
            if durable:
                sync_tree(directory)
            with locked(target.parent):
                replace_directory(directory, target)
                remove_stale(target)
