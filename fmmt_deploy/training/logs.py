"""Everything that watches a training: its log, its curves for TensorBoard, and what is shown of it.

A watcher never stops a training. What one can't write is missing, and said once to the others: a disk that is full
must not cost the hours of work that are in memory, and which a checkpoint may still be written of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmmt_deploy.training.jsonl_log import JsonlLog, Kept
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.tensorboard_log import TensorBoardLog
from fmmt_deploy.training.terminal import Terminal
from fmmt_deploy.training.watching import EpochRecord, Phase, StepRecord, Watcher

if TYPE_CHECKING:
    from fmmt_deploy.training.state import Progress

__all__ = ["LOG", "TENSORBOARD", "Watchers", "kept_of", "open_watcher"]

LOG, TENSORBOARD = "log.jsonl", "tensorboard"

_LOGGER = logging.getLogger(__name__)
_UNWRITABLE = (OSError, ValueError)
"""What writing raises: a full disk, a terminal that is gone, a file that is closed."""


class Watchers:
    """Tells several watchers everything, whatever becomes of each.

    Args:
        watchers: By the name under which a failure is told.
    """

    def __init__(self, watchers: Sequence[tuple[str, Watcher]]) -> None:
        self._watchers = tuple(watchers)
        self._failed: set[str] = set()

    def note(self, text: str) -> None:
        """Tells a note."""
        self._tell(lambda watcher: watcher.note(text))

    def step(self, record: StepRecord) -> None:
        """Tells of a step."""
        self._tell(lambda watcher: watcher.step(record))

    def epoch(self, record: EpochRecord) -> None:
        """Tells of an epoch."""
        self._tell(lambda watcher: watcher.epoch(record))

    def close(self) -> None:
        """Closes them all."""
        self._tell(lambda watcher: watcher.close())

    def failed(self, name: str, error: Exception) -> None:
        """Says once that a watcher fails."""
        if name in self._failed:
            return
        self._failed.add(name)
        text = f"warning: {name} can't be written ({error}); the training goes on, and that will have gaps"
        _LOGGER.warning("%s", text)
        self.note(text)

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for name, watcher in self._watchers:
            try:
                what(watcher)
            except _UNWRITABLE as error:
                self.failed(name, error)


def kept_of(progress: Progress) -> Kept:
    """What of a log is kept by a training that goes on from there: its own steps, and the epochs that are over."""
    steps: dict[Phase, int] = {"faces": progress.faces_steps, "target": progress.target_steps}
    return Kept(steps, progress.epoch if progress.finished else progress.epoch - 1)


def open_watcher(folder: Path, settings: Settings, progress: Progress | None = None, quiet: bool = False) -> Watcher:
    """Opens all that watches a run.

    Args:
        folder: The run's.
        settings: The run's.
        progress: How far a run is that is resumed.
        quiet: Show nothing.
    """
    kept = None if progress is None else kept_of(progress)
    opened: list[tuple[str, Watcher]] = []
    problems: list[tuple[str, Exception]] = []
    ways: dict[str, Callable[[], Watcher]] = {
        LOG: lambda: JsonlLog(folder / LOG, settings, kept),
        TENSORBOARD: lambda: TensorBoardLog(folder / TENSORBOARD, kept),
    }
    if not quiet:
        ways["the terminal"] = lambda: Terminal(settings.target.epochs)
    for name, way in ways.items():
        try:
            opened.append((name, way()))
        except _UNWRITABLE as error:
            problems.append((name, error))
    watchers = Watchers(opened)
    for name, problem in problems:
        watchers.failed(name, problem)
    return watchers
