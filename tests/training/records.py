"""Records of a training that was never made."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fmmt_deploy.evaluation.evaluation import Evaluation, evaluate
from fmmt_deploy.training.watching import EpochRecord, Phase, StepRecord


def step(phase: Phase, total: int, steps: int = 4) -> StepRecord:
    epoch, number = divmod(total - 1, steps)
    return StepRecord(phase, epoch + 1, number + 1, steps, total, 2 / total, 1e-4 / total, 0.5, 8, 0.25)


def scores(share: float, utterances: int = 210, seed: int = 0) -> Evaluation:
    """Scores of decisions of which about a share is right, on purpose."""
    random = np.random.default_rng(seed)
    labels = np.arange(utterances) % 7
    decisions = np.where(random.random(utterances) < share, labels, random.integers(0, 7, utterances))
    names = [f"u{number}" for number in range(utterances)]
    return evaluate(names, labels.tolist(), np.eye(7, dtype=np.float32)[decisions])


def epoch(number: int, best: bool = True, epochs: int = 3) -> EpochRecord:
    return EpochRecord(number, epochs, 1.5 / number, 1.0 / number, scores(1 - 0.5 / number), best, 12.4)


def whole_run(epochs: int = 3, steps: int = 4, worse: Sequence[int] = ()) -> list[StepRecord | EpochRecord]:
    """What a watcher is told, in order."""
    told: list[StepRecord | EpochRecord] = []
    for number in range(1, epochs + 1):
        totals = range((number - 1) * steps + 1, number * steps + 1)
        told += [step("faces", total, steps) for total in totals]
        told += [step("target", total, steps) for total in totals]
        told.append(replace(epoch(number, number not in worse), epochs=epochs))
    return told
