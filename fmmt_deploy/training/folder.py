"""The folder of a run: whether a training may be written there, what it begins with, and the files that are added.

`settings.toml` is written first and marks it; nothing that is no training's folder is ever replaced.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from fmmt_deploy.bundle.atomic import replaced_file
from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.swapping import swapped
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.training.recipes import MARK, Effective, toml_from_effective

__all__ = ["ABLATION", "EVALUATION", "SETTINGS", "begin", "check_place", "is_training", "write_json", "write_text"]

SETTINGS, EVALUATION, ABLATION = "settings.toml", "evaluation.json", "ablation.json"


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
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not is_training(folder):
            what = f"{folder} exists and is not a training's folder, so nothing is written there."
            raise UsageError(what, fix="Give another folder as -o.", path=folder)
        if not resume and not force:
            fix = "Add --resume to go on with it, --force to replace it, or give another folder."
            raise UsageError(f"{folder} holds a training.", fix=fix, path=folder)
        inside = [path for path in inputs if folder.resolve() in (path.resolve(), *path.resolve().parents)]
        if force and inside:
            what = f"{inside[0]} is in {folder}, which --force would remove."
            raise UsageError(what, fix="Give another folder as -o.", path=folder)
    _check_writable(folder)


def begin(folder: Path, effective: Effective) -> None:
    """Makes the folder with its settings, in the place of whatever `check_place` allowed to be there.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    with swapped(folder) as directory:
        (directory / SETTINGS).write_text(toml_from_effective(effective), encoding="utf-8")


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
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".fmmt-"):
            pass
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder} can't be written.", why=str(error), fix="Give another folder as -o.", path=folder
        ) from error
