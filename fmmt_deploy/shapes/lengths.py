"""The lengths in a data set: of its texts, and of what the pipeline computes together. No face is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.errors import DataError
from fmmt_deploy.pipeline.inputs import face_counts
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet

__all__ = ["PERCENTILES", "Distribution", "Lengths", "distribution", "lengths_of"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Lengths:
    """What there is to compute.

    Attributes:
        texts: Tokens of every text that is encoded, in the data set's order: a dialogue, or a window of a long one.
        groups: Texts that are encoded together, and the tokens of the longest: (dialogues, tokens).
        utterances: Of every step: those that are fused together.
        faces: Of every utterance.
        step_faces: Of every step.
        batch_size: Utterances that a step has at most.
    """

    texts: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    utterances: tuple[int, ...]
    faces: tuple[int, ...]
    step_faces: tuple[int, ...]
    batch_size: int

    def named(self) -> dict[str, tuple[int, ...]]:
        """Every kind of length that is there, by what people call it."""
        lengths = {
            "tokens of a dialogue": self.texts,
            "dialogues of a group": tuple(dialogues for dialogues, _ in self.groups),
            "tokens of a group, padded": tuple(tokens for _, tokens in self.groups),
            "utterances of a step": self.utterances,
            "faces of an utterance": self.faces,
            "faces of a step": self.step_faces,
        }
        return {name: found for name, found in lengths.items() if found}


@dataclass(frozen=True, slots=True)
class Distribution:
    """How one kind of length is distributed; percentiles are nearest-rank."""

    what: str
    count: int
    mean: float
    lowest: int
    p50: int
    p90: int
    p99: int
    highest: int


def lengths_of(bundle: Bundle, dataset: DataSet, batch_size: int) -> Lengths:
    """Counts what the pipeline would compute, with the model's own tokenizer and grouping.

    Args:
        bundle: The model.
        dataset: The dialogues; labels are not needed.
        batch_size: Utterances that are fused together.

    Raises:
        DataError: There is nothing to count, or a text can't be encoded.
    """
    if not dataset.order:
        raise DataError(f"{dataset.source} holds no utterance.", fix="Give a data set, or another --split.")
    pipeline = Pipeline(bundle, Engines("none", {}), batch_size=batch_size)
    architecture = bundle.manifest.architecture
    everybody = [u for dialogue in dataset.dialogues for u in dialogue.utterances]
    faces = tuple(face_counts(everybody, architecture))
    if architecture.plm is None:
        batches = [min(batch_size, len(everybody) - i) for i in range(0, len(everybody), batch_size)]
        return Lengths((), (), tuple(batches), faces, (), batch_size)
    groups = pipeline.plan(dataset)
    steps = [[member.utterance for member in step] for group in groups for step in pipeline.steps(group)]
    texts = [
        len(window)
        for dialogue in dataset.dialogues
        for group in pipeline.plan(DataSet(dialogue.id, (dialogue,), tuple(u.id for u in dialogue.utterances)))
        for window in group.windows
    ]
    return Lengths(
        texts=tuple(texts),
        groups=tuple((len(group.windows), max(map(len, group.windows))) for group in groups),
        utterances=tuple(map(len, steps)),
        faces=faces,
        step_faces=tuple(sum(face_counts(step, architecture)) for step in steps),
        batch_size=batch_size,
    )


def distribution(what: str, lengths: Sequence[int]) -> Distribution:
    """Describes at least one length."""
    p50, p90, p99 = (int(np.percentile(lengths, p, method="inverted_cdf")) for p in PERCENTILES)
    return Distribution(what, len(lengths), float(np.mean(lengths)), min(lengths), p50, p90, p99, max(lengths))
