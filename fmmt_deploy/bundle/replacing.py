"""What is a bundle, and may be replaced by another."""

from __future__ import annotations

import os
from pathlib import Path

from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text

__all__ = ["check_replaceable", "is_bundle"]


def check_replaceable(target: Path, force: bool, source: Path | None = None) -> None:
    """Says before any work is done whether a bundle may be written at `target`.

    Args:
        target: Where.
        force: Whether a bundle that is there may be replaced; anything else never is.
        source: The bundle that it is made from, if it is.

    Raises:
        UsageError: Something is there that is not to be replaced; or it would be inside of its source.
        EnvironmentProblem: The bundle there is read-only.
    """
    if source is not None and source.resolve() in target.resolve().parents:
        raise UsageError(f"{target} is inside the bundle {source}.", fix="Give a path beside it.", path=target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not is_bundle(target):
        what = f"{target} exists and is not a bundle, so it is never replaced."
        raise UsageError(what, fix="Give another path, or remove it yourself.", path=target)
    if not force:
        raise UsageError(f"The bundle {target} exists.", fix="Add --force to replace it.", path=target)
    if not os.access(target, os.W_OK):  # a new folder could take its place, but whoever locked it wants to keep it
        what = f"The bundle {target} is read-only, so it is never replaced."
        raise EnvironmentProblem(what, fix="Change its permissions, or give another path.", path=target)


def is_bundle(path: Path) -> bool:
    """Whether a directory looks like a bundle, of whatever schema and however damaged."""
    try:
        values = json_object_from_text((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, JsonValueError):
        return False
    return {"schema", "graphs", "files"} <= values.keys()
