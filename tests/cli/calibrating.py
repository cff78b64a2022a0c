"""Running `fmmt calibrate` on the demo's dialogues."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from fmmt_deploy.bundle.store import Bundle
from tests.cli.running import exit_code

Bundles = Callable[[str], Bundle]
SMALL = ("--split", "train", "--dialogues", "3", "--allow-small", "--threads", "1")
"""Enough to see everything, and fast."""


def calibrate(bundle: Path, data: Path, *arguments: str) -> int:
    return exit_code("calibrate", "-b", str(bundle), "--data", str(data), *arguments)


def calibrated(bundle: Path, data: Path, *arguments: str) -> dict[str, Any]:
    """What `fmmt calibrate --json` prints."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert calibrate(bundle, data, *arguments, "--json", "-q") == 0
    found = json.loads(shown.getvalue())
    assert isinstance(found, dict)
    return found


def graph_bytes(bundle: Path, precision: str) -> dict[str, bytes]:
    """The files of a precision's graphs and weights, by name."""
    return {path.name: path.read_bytes() for path in (bundle / "graphs" / precision).iterdir()}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with what changes when it is written."""
    found = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def beside(bundle: Path) -> list[str]:
    """What is in the bundle's folder besides it."""
    return sorted(path.name for path in bundle.parent.iterdir() if path != bundle)
