"""What a training tells while it runs, and to whom."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, Protocol

from fmmt_deploy.evaluation.evaluation import Evaluation

__all__ = ["EpochRecord", "Phase", "StepRecord", "Watcher", "is_main_process"]

Phase = Literal["faces", "target"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of an optimiser.

    Attributes:
        phase: Which phase of the epoch.
        epoch: From 1.
        step: In the phase of this epoch, from 1.
        steps: How many it has.
        total: Steps of this phase since the training began.
        loss: Mean over all of the step's cases, of all processes.
        learning_rate: The (first group's) rate it was made with.
        gradient_norm: Before clipping; over all parameters.
        cases: Utterances, or faces.
        seconds: Since the step before.
    """

    phase: Phase
    epoch: int
    step: int
    steps: int
    total: int
    loss: float
    learning_rate: float
    gradient_norm: float
    cases: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: From 1.
        epochs: How many are to be.
        faces_loss: Mean over its steps; None where the epoch had no such phase.
        target_loss: Likewise.
        validation: Of the model after it.
        best: Whether it is the best so far.
        seconds: It took, validation included.
    """

    epoch: int
    epochs: int
    faces_loss: float | None
    target_loss: float
    validation: Evaluation
    best: bool
    seconds: float


def is_main_process() -> bool:
    """Whether this is the process that writes and talks, by what torchrun says of it."""
    return int(os.environ.get("RANK", "0")) == 0


class Watcher(Protocol):
    """Is told what happens, in the main process only."""

    def note(self, text: str) -> None:
        """Something that a person should know: what was skipped, how often; what was resumed."""

    def step(self, record: StepRecord) -> None:
        """A step was made."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is over."""

    def close(self) -> None:
        """There is nothing more to come."""
