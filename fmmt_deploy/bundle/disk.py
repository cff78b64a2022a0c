"""A full disk and a folder that can't be written, said in our words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["check_room", "disk_problems"]

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_PLACE = {errno.EBUSY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
"""A mount point, or a file where a folder should be, or the other way round."""


def check_room(target: Path, needed_bytes: int) -> None:
    """Refuses at once what would fill the disk later.

    Raises:
        EnvironmentProblem: There is less room where `target` will be.
    """
    if needed_bytes > _free_bytes(target):
        raise _no_space(target, needed_bytes)


@contextmanager
def disk_problems(target: Path, needed_bytes: int) -> Iterator[None]:
    """Maps the OSErrors of writing `target`; those about other places pass unchanged.

    Args:
        target: What is being written.
        needed_bytes: How large it will be, 0 if unknown.

    Raises:
        EnvironmentProblem: The disk is full, a quota or limit is reached, or `target` may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(target, needed_bytes) from error
        ours = error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(target.parent)
        if error.errno in _NO_ACCESS | _NO_PLACE and ours:
            fix = "Change the permissions of its folder, or give another path."
            if error.errno in _NO_PLACE:
                fix = "Give another path."
            raise EnvironmentProblem(f"{target} can't be written.", why=str(error), fix=fix, path=target) from error
        raise


def _no_space(target: Path, needed_bytes: int) -> EnvironmentProblem:
    free_bytes = _free_bytes(target)
    needed = f"about {needed_bytes / 1e9:.2f} GB ({needed_bytes} bytes)" if needed_bytes else "more"
    return EnvironmentProblem(
        f"There is no room for {target}.",
        why=f"It needs {needed}; {free_bytes} bytes are free, or a quota or limit on file sizes is reached.",
        fix="Free some space, or give a path on another disk.",
        path=target,
    )


def _free_bytes(target: Path) -> int:
    for path in (target, *target.parents):
        with suppress(FileNotFoundError):  # a target is absent for an instant whenever another writer swaps it
            return shutil.disk_usage(path).free
    raise AssertionError("The root exists.")
