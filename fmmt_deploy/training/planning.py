"""Which cases are learnt from together: an epoch's plan, a function of the data, the settings, the seed and the epoch.

The steps' contents don't depend on the number of processes; each pass is split over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.training.draws import generator
from fmmt_deploy.training.settings import ClassWeights, FaceSettings, TargetSettings
from fmmt_deploy.types import EMOTIONS, FloatArray, IntArray

__all__ = ["Share", "Step", "class_weights", "idle_note", "own_part", "plan_faces", "plan_target", "shares"]

Step = tuple[IntArray, ...]
"""An optimiser's step: the utterances of each of its passes, as indices."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process takes of a pass.

    Attributes:
        rows: Indices of its utterances, at least one.
        weights: Of each in the step's loss.
    """

    rows: IntArray
    weights: FloatArray


def class_weights(labels: IntArray, mode: ClassWeights) -> FloatArray:
    """Weight of each emotion's utterances, (7,): 1, or U / (7 · its utterances); 0 where it has none.

    Args:
        labels: (U,).
        mode: Which of the two.
    """
    if mode == "none":
        return np.ones(len(EMOTIONS), np.float32)
    counts = np.bincount(labels, minlength=len(EMOTIONS))
    return np.where(counts > 0, len(labels) / (len(EMOTIONS) * np.maximum(counts, 1)), 0).astype(np.float32)


def plan_target(dialogues: Sequence[int], settings: TargetSettings, seed: int, epoch: int) -> tuple[Step, ...]:
    """The steps of an epoch, each utterance in one of them.

    Args:
        dialogues: For each utterance, which dialogue it is of; a dialogue's utterances follow each other.
        settings: Order, batch size and passes a step.
        seed: Of the run.
        epoch: From 1.
    """
    draws = generator(seed, "order", epoch)
    if settings.order == "utterances":
        order = draws.permutation(len(dialogues)).astype(np.int64)
        passes = [order[first : first + settings.batch_size] for first in range(0, len(order), settings.batch_size)]
    else:
        passes = _filled(_shuffled(dialogues, draws), settings.batch_size)
    return tuple(
        tuple(passes[first : first + settings.accumulate]) for first in range(0, len(passes), settings.accumulate)
    )


def plan_faces(count: int, settings: FaceSettings, seed: int, epoch: int) -> tuple[IntArray, ...]:
    """The faces of each step of an epoch, as indices.

    Where the last step would have less than an eighth of the others' faces, or a single one, the step before it takes
    them: BatchNorm needs several, in every process.

    Args:
        count: How many faces there are.
        settings: Batch size and limit.
        seed: Of the run.
        epoch: From 1; with a limit, each has others.
    """
    order = generator(seed, "faces", epoch).permutation(count).astype(np.int64)[: settings.limit or None]
    batches = [order[first : first + settings.batch_size] for first in range(0, len(order), settings.batch_size)]
    if len(batches) > 1 and len(batches[-1]) < max(2, settings.batch_size // 8):
        batches[-2:] = [np.concatenate(batches[-2:])]
    return tuple(batches)


def own_part(rows: IntArray, rank: int, processes: int) -> IntArray:
    """What a process takes: parts that follow each other and differ by one at most, the larger ones first."""
    return np.array_split(rows, processes)[rank]


def shares(step: Step, weights: FloatArray, rank: int, processes: int) -> tuple[Share, ...]:
    """What a process takes of each pass of a step, with each utterance's weight divided by the step's utterances.

    Not by the step's weights, as PyTorch's weighted mean has it: in a step of one utterance nothing would be left of
    its weight, and little in one of four.

    Where there is nothing left for a process, it takes an utterance with weight 0, as all must join in every pass.

    Args:
        step: The step.
        weights: Of every utterance of the data set, (U,); 1 on average.
        rank: Which process, from 0.
        processes: How many there are.
    """
    count = sum(len(rows) for rows in step)
    found = []
    for rows in step:
        own = own_part(rows, rank, processes)
        if len(own):
            found.append(Share(own, (weights[own] / count).astype(np.float32)))
        else:
            found.append(Share(rows[:1], np.zeros(1, np.float32)))
    return tuple(found)


def idle_note(settings: TargetSettings, processes: int) -> str:
    """What to say where passes have fewer utterances than there are processes, if they have.

    Args:
        settings: Order, batch size and passes a step.
        processes: That train together.
    """
    size, step = settings.batch_size, settings.batch_size * settings.accumulate
    if settings.order == "dialogues" or size >= processes:
        return ""
    wider = next((n for n in range(processes, step) if step % n == 0), step)
    fix = f"target.batch_size={wider} with target.accumulate={step // wider} makes the same steps."
    return (
        f"target.batch_size is {size}, fewer than the {processes} processes that share each pass: "
        f"the others only wait. {fix if wider > size else 'Fewer processes are as fast.'}"
    )


def _shuffled(dialogues: Sequence[int], draws: np.random.Generator) -> Iterator[IntArray]:
    """The utterances of each dialogue, the dialogues in another order."""
    of = np.asarray(dialogues)
    firsts = np.flatnonzero(np.diff(of, prepend=of[0] - 1))
    whole = np.split(np.arange(len(of), dtype=np.int64), firsts[1:])
    for index in draws.permutation(len(whole)):
        yield whole[index]


def _filled(dialogues: Iterator[IntArray], size: int) -> list[IntArray]:
    """Passes of whole dialogues, of `size` utterances at most, unless one dialogue alone has more."""
    passes: list[list[IntArray]] = []
    room = 0
    for rows in dialogues:
        if not passes or len(rows) > room:
            passes.append([])
            room = size
        passes[-1].append(rows)
        room -= len(rows)
    return [np.concatenate(parts) for parts in passes]
