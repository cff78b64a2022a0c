"""What a person sees while a model is trained: lines on stderr, and a bar below them where that is a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from fmmt_deploy.training.watching import EpochRecord, Phase, StepRecord

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Terminal", "text_of_epoch"]

_PHASES: Mapping[Phase, str] = {"faces": "faces", "target": "utterances"}
_MEMORY = 0.95
"""Of the loss that is shown: a mean over the last twenty steps or so."""


class Terminal:
    """Shows notes and epochs as lines, and the steps as a bar with loss, best F1, rate and the phase's time left.

    Args:
        epochs: How many are to be made.
        file: Where to; default stderr.
    """

    def __init__(self, epochs: int, file: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=file, stderr=file is None, highlight=False, markup=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._console, self._epochs = console, epochs
        self._task: TaskID | None = None
        self._phase: tuple[int, Phase] | None = None
        self._loss = self._rate = 0.0
        self._best: float | None = None

    def note(self, text: str) -> None:
        """Shows a note."""
        self._console.print(text)

    def step(self, record: StepRecord) -> None:
        """Moves the bar on."""
        rate = record.cases / record.seconds if record.seconds > 0 else self._rate
        if self._phase != (record.epoch, record.phase):
            self._begin(record)
            self._loss, self._rate = record.loss, rate
        self._loss = _MEMORY * self._loss + (1 - _MEMORY) * record.loss
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * rate
        assert self._task is not None
        over = record.phase == "target" and record.step == record.steps
        what = "validation" if over else _PHASES[record.phase]
        self._bar.update(
            self._task,
            completed=record.step,
            description=f"epoch {record.epoch}/{self._epochs} · {what}",
            figures=self._figures(),
        )

    def epoch(self, record: EpochRecord) -> None:
        """Shows an epoch's scores."""
        if record.best:
            self._best = record.validation.weighted_f1
        self._console.print(text_of_epoch(record))

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.stop()

    def _begin(self, record: StepRecord) -> None:
        """A bar for a phase; its own clock, so that its time left is not that of another phase."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._phase = record.epoch, record.phase
        self._task = self._bar.add_task("", total=record.steps, completed=record.step - 1, figures="")
        self._bar.start()

    def _figures(self) -> str:
        best = "" if self._best is None else f" · best F1 {100 * self._best:.2f}"
        return f"loss {self._loss:.4f}{best} · {self._rate:.1f}/s"


def text_of_epoch(record: EpochRecord) -> str:
    """One line: `epoch 2/10: loss 0.6310, faces 0.9120, validation F1 61.23 (the best so far), 83 s`."""
    faces = "" if record.faces_loss is None else f", faces {record.faces_loss:.4f}"
    best = " (the best so far)" if record.best else ""
    f1 = f"validation F1 {100 * record.validation.weighted_f1:.2f}{best}"
    return f"epoch {record.epoch}/{record.epochs}: loss {record.target_loss:.4f}{faces}, {f1}, {record.seconds:.0f} s"
