"""The curves of a training for TensorBoard: `tensorboard --logdir RUN/tensorboard`.

Each phase, and validation, is a run of its own there, because each counts its steps by itself: so a resumed training
can take back exactly what it makes again. Events are written by the thread that gives them: tensorboardX's own writer
has another do it, and waits for it forever once that has met a full disk.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmmt_deploy.training.jsonl_log import Kept
from fmmt_deploy.training.watching import EpochRecord, StepRecord

__all__ = ["TensorBoardLog"]

_FLUSH_SECONDS = 15.0


class TensorBoardLog:
    """Writes event files into a folder.

    Args:
        folder: Made if need be.
        kept: How far the run has come that is resumed; what was written of later things is hidden.

    Raises:
        OSError: It can't be written.
    """

    def __init__(self, folder: Path, kept: Kept | None = None) -> None:
        steps: Mapping[Any, int] = {} if kept is None else kept.steps
        self._runs = {
            "faces": _Run(folder / "faces", None if kept is None else steps.get("faces", 0)),
            "target": _Run(folder / "target", None if kept is None else steps.get("target", 0)),
            "validation": _Run(folder / "validation", None if kept is None else kept.epochs),
        }

    def note(self, text: str) -> None:
        """Has no place in curves."""

    def step(self, record: StepRecord) -> None:
        """Writes a step."""
        values = {
            "loss": record.loss,
            "learning_rate": record.learning_rate,
            "gradient_norm": record.gradient_norm,
            "cases_per_second": record.cases / record.seconds if record.seconds > 0 else math.nan,
        }
        self._runs[record.phase].add(values, record.total)

    def epoch(self, record: EpochRecord) -> None:
        """Writes an epoch's scores."""
        losses = {"target_loss": record.target_loss}
        if record.faces_loss is not None:
            losses["faces_loss"] = record.faces_loss
        self._runs["validation"].add(record.validation.metrics() | losses, record.epoch)
        for run in self._runs.values():
            run.flush()

    def close(self) -> None:
        """Closes the files."""
        for run in self._runs.values():
            run.close()


class _Run:
    """One folder with event files, begun when there is something to write."""

    def __init__(self, folder: Path, made: int | None) -> None:
        """`made`: steps that stay, in a run that is resumed."""
        self._folder, self._made = folder, made
        self._writer: Any = None
        self._flushed = time.monotonic()
        if made is not None and folder.is_dir():
            self._open()

    def add(self, values: Mapping[str, float], step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._open()
        for name, value in values.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._writer is not None:
            self._flushed = time.monotonic()
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        # files are named by the second: another of this second must not be written over
        self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        if self._made is not None:
            purged = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=self._made + 1, session_log=purged))
