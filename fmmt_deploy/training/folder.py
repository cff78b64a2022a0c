"""The folder of a run: whether a training may be written there, what it begins with, and the files that are added.

`settings.toml` is written first and marks it; nothing that is no training's folder is ever replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fmmt_deploy.bundle.atomic import replaced_file
from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.swapping import swapped
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.training.recipes import MARK, Effective, toml_from_effective

__all__ = [
    "ABLATION",
    "EVALUATION",
    "SETTINGS",
    "begin",
    "check_place",
    "claimed",
    "is_training",
    "write_json",
    "write_text",
]

SETTINGS, EVALUATION, ABLATION = "settings.toml", "evaluation.json", "ablation.json"

PATIENCE_S = 5.0
"""For what is left of a training that was killed."""


def is_training(folder: Path) -> bool:
    """Whether a folder looks like a training's, however far it is."""
    try:
        return (folder / SETTINGS).read_text(encoding="utf-8").startswith(MARK)
    except (OSError, UnicodeDecodeError):
        return False


def check_place(folder: Path, resume: bool, force: bool, inputs: Iterable[Path]) -> None:
    """Says before any work is done whether a training may be written to `folder`, and whether it can be.

    Args:
        folder: Of the run.
        resume: Whether a training that is there goes on.
        force: Whether it is replaced.
        inputs: What the training reads; nothing of it may be in a folder that is replaced.

    Raises:
        UsageError: Something is there that is not to be touched.
        EnvironmentProblem: Nothing can be written there.
    """
    if resume and force:
        raise UsageError("--resume goes on, --force begins anew: both make no sense.", fix="Leave one out.")
    try:
        held = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:  # no permission, or a name that is too long
        raise _unwritable(folder, error) from error
    if held:
        if not is_training(folder):
            what = f"{folder} exists and is not a training's folder, so nothing is written there."
            raise UsageError(what, fix="Give another folder as -o.", path=folder)
        if not resume and not force:
            fix = "Add --resume to go on with it, --force to replace it, or give another folder."
            raise UsageError(f"{folder} holds a training.", fix=fix, path=folder)
        inside = [path for path in (*inputs, Path.cwd()) if path.resolve().is_relative_to(folder.resolve())]
        if force and inside:
            what = f"{inside[0]} is in {folder}, which --force would remove."
            raise UsageError(what, fix="Give another folder as -o.", path=folder)
    _check_writable(folder)


def begin(folder: Path, effective: Effective) -> None:
    """Makes the folder with its settings, in the place of whatever `check_place` allowed to be there.

    A folder that is there and empty stays the same one: it may be a mounted disk, or where somebody is. A link stays a
    link.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    place, text = folder.resolve(), toml_from_effective(effective)
    if place.is_dir() and not any(place.iterdir()):
        write_text(place / SETTINGS, text)
        return
    with swapped(place) as directory:
        (directory / SETTINGS).write_text(text, encoding="utf-8")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a folder that holds one, for as long as this one is at work in it.

    The system lets go of it with the process, however that ends; its workers may take some seconds more.

    Raises:
        UsageError: Another process is at work in it.
        EnvironmentProblem: Its settings can't be opened.
    """
    path = folder / SETTINGS
    if not path.exists():
        yield
        return
    with disk_problems(path, 0):
        descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                fix = "Wait until it has ended, or give another folder as -o."
                raise UsageError(f"Another training is at work in {folder}.", fix=fix, path=folder) from error
            time.sleep(0.1)


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Writes a document as JSON; see `write_text`.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        EnvironmentProblem: It can't be written; one that is there stays as it is.
    """
    with disk_problems(path, 0), replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check_writable(folder: Path) -> None:
    """Tries it in the first folder above that exists."""
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".fmmt-"):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> EnvironmentProblem:
    fix = "Give another folder as -o."
    return EnvironmentProblem(f"{folder} can't be written.", why=str(error), fix=fix, path=folder)
