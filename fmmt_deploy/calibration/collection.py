"""Streams calibration data through a bundle's float32 graphs; killed at any moment, it goes on where it was saved."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.observing import CaseInputs, observe_graphs
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.types import GraphName

__all__ = [
    "SAVE_SECONDS",
    "SavedProgress",
    "clear_progress",
    "collect_statistics",
    "inputs_digest",
    "place_of_progress",
]

SAVE_SECONDS = 20.0
"""Time between two savings; so much work is lost at most, and saving costs little beside it."""

_FORMAT = 2


class SavedProgress:
    """Statistics so far, in a file.

    Args:
        path: The file.
        digest: Of all that the statistics depend on; a file of another digest is not ours and is written over.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self._digest = path, digest

    def load(self, statistics: Mapping[GraphName, GraphStatistics]) -> int:
        """Puts statistics where they were; gives the number of cases that are in them, 0 if there is nothing of use."""
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                if str(file["digest"]) != self._digest:
                    return 0
                arrays = dict(file)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return 0  # absent, or cut off by something worse than a kill: begin anew
        for graph, found in statistics.items():
            found.load({n.removeprefix(f"{graph}/"): a for n, a in arrays.items() if n.startswith(f"{graph}/")})
        return int(arrays["done"])

    def save(self, statistics: Mapping[GraphName, GraphStatistics], done: int) -> None:
        """Writes statistics; a kill leaves the old file or the new one.

        Raises:
            EnvironmentProblem: The disk is full, or the folder can't be written.
        """
        arrays: dict[str, NDArray[Any]] = {"digest": np.array(self._digest), "done": np.array(done)}
        for graph, found in statistics.items():
            arrays |= {f"{graph}/{name}": array for name, array in found.arrays().items()}
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")  # one that a kill leaves is cleared
        try:
            with disk_problems(self.path, sum(array.nbytes for array in arrays.values())), temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            with suppress(FileNotFoundError):  # another calibration of the bundle is done, and has cleared up
                temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def place_of_progress(bundle: Path, part: str) -> Path:
    """Where a part of a bundle's calibration is saved: beside it, hidden.

    Args:
        bundle: Its absolute path.
        part: Which.
    """
    return bundle.with_name(f".{bundle.name}.calibration-{part}.npz")


def clear_progress(bundle: Path) -> None:
    """Removes what was saved of a bundle's calibrations, also by those that were given up.

    Args:
        bundle: Its absolute path.
    """
    begin, end = place_of_progress(bundle, "*").name.split("*")
    for path in bundle.parent.iterdir():
        if path.name.startswith(begin) and path.name.endswith((end, ".tmp")):
            path.unlink(missing_ok=True)


def inputs_digest(bundle: Bundle, data: str, settings: Mapping[str, object]) -> str:
    """Of all that statistics depend on: the bundle's float32 graphs and weights, the data, and settings.

    Args:
        bundle: The bundle.
        data: What identifies the data.
        settings: Plain values.
    """
    files = {name: e.sha256 for name, e in bundle.manifest.files.items() if name.startswith("graphs/fp32/")}
    known = {"format": _FORMAT, "files": files, "data": data, "settings": settings}
    return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def collect_statistics(
    bundle: Bundle,
    smoothing: Mapping[GraphName, Mapping[str, NDArray[np.float32]]],
    cases: Callable[[int], Iterable[CaseInputs]],
    threads: int,
    *,
    seed: int = 0,
    progress: SavedProgress | None = None,
    status: Callable[[str], None] = lambda _: None,
) -> dict[GraphName, GraphStatistics]:
    """Runs float32 graphs over data, and remembers what their products read and make.

    Args:
        bundle: The bundle.
        smoothing: For each graph that is to be calibrated, how tensors are smoothed before they are looked at.
        cases: Gives the cases without so many first ones; see `observe_graphs`.
        threads: To compute with.
        seed: Of the rows that are sampled.
        progress: Where it is saved every `SAVE_SECONDS`, and taken up.
        status: Told that it is.

    Raises:
        DataError: An input is not finite.
        PrecisionError: A graph computes something that is not finite, or has no product for 8 bits.
        EnvironmentProblem: Progress can't be saved.
    """
    statistics = {}
    for graph, factors in smoothing.items():
        sites = sites_of(GraphView(onnx.load(bundle.graph(graph), load_external_data=False)))
        if not sites:
            raise PrecisionError(f"{graph} has no product for 8 bits.", fix="Leave it in another precision.")
        statistics[graph] = GraphStatistics(graph, sites, seed, factors)
    done = 0 if progress is None else progress.load(statistics)
    if done:
        status(f"going on after {done} batches of an interrupted calibration")
    saved = time.monotonic()

    def after_case() -> None:
        nonlocal done, saved
        done += 1
        if progress is not None and time.monotonic() - saved >= SAVE_SECONDS:
            progress.save(statistics, done)
            saved = time.monotonic()

    observe_graphs(bundle, statistics, cases(done), threads, after_case)
    if progress is not None and time.monotonic() - saved >= SAVE_SECONDS / 4:
        progress.save(statistics, done)
    return statistics
