"""Runs a bundle's engines over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Engines, Tensor, Value
from fmmt_deploy.engines.ranges import shape_ranges
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.pipeline.inputs import face_counts, fusion_inputs, vision_inputs
from fmmt_deploy.pipeline.noise import Noise, no_noise
from fmmt_deploy.pipeline.plan import Group, Member, padded_tokens, plan_groups
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS, DataSet, FloatArray, PixelArray

__all__ = ["Clock", "Pending", "Pipeline", "Prediction", "Served", "StageName"]

StageName = Literal["prepare", "swin", "plm", "fusion"]
_NO_FACES: FloatArray = np.zeros((0, len(EMOTIONS)), np.float32)
Clock = Callable[[StageName], AbstractContextManager[object]]
"""Enclose a stage's work, to time it."""


class Served(Protocol):
    """A model that can be asked: a bundle, or one that is being trained."""

    @property
    def architecture(self) -> Architecture:
        """Its sizes, and what it reads."""
        ...

    def tokenizer_json(self) -> str | None:
        """The text of its `tokenizer.json`, where it reads text."""
        ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer for one utterance.

    Attributes:
        utterance: Its id.
        logits: (7,).
        kept_faces: Which of its faces the gate let through (all, where it would have let none).
        face_logits: (F, 7), what the face model answered for each face that is used, in order; (0, 7) where none is.
    """

    utterance: str
    logits: FloatArray
    kept_faces: tuple[int, ...]
    face_logits: FloatArray = field(default_factory=lambda: _NO_FACES)

    @property
    def probabilities(self) -> FloatArray:
        """Softmax of the logits, (7,)."""
        powers = np.exp(self.logits - self.logits.max())
        shares: FloatArray = powers / powers.sum()
        return shares

    @property
    def label(self) -> str:
        """The likeliest emotion; the first of equals."""
        return EMOTIONS[int(self.logits.argmax())]


@dataclass(frozen=True, slots=True)
class Step:
    """Utterances of one group that are fused together, with their faces read."""

    members: tuple[Member, ...]
    faces: PixelArray


@dataclass(frozen=True, slots=True)
class Pending:
    """Utterances whose answers are being computed."""

    members: tuple[Member, ...]
    face_logits: Value
    outputs: Mapping[str, Tensor]

    def predictions(self) -> list[Prediction]:
        """The answers; waits for them.

        Raises:
            FmmtError: The model answered NaN.
        """
        logits, kept = self.outputs["logits"].numpy(), self.outputs["kept"].numpy()
        found = arrays_from_values({"face_logits": self.face_logits})["face_logits"]
        if not np.isfinite(found).all():  # NaN exceeds no threshold: the gate would quietly drop the face
            raise _overflowed("The face model answered NaN or infinity.")
        ends = np.cumsum([min(member.utterance.vision_length, kept.shape[1]) for member in self.members])
        faces = np.split(found, ends[:-1])
        return [
            _prediction(member.utterance.id, row, np.flatnonzero(mask), rows)
            for member, row, mask, rows in zip(self.members, logits, kept, faces, strict=True)
        ]


class Pipeline:
    """Batched inference. An answer does not depend on batch size, order or grouping.

    Args:
        model: The model.
        engines: Its graphs, opened.
        batch_size: Utterances that are fused together.
        face_batch: Faces that go through `swin` together; default what suits the engines.
        threads: Threads that read and decode faces ahead of the model.
        clock: Encloses each stage's work.
    """

    def __init__(
        self,
        model: Served,
        engines: Engines,
        *,
        batch_size: int = 8,
        face_batch: int | None = None,
        threads: int = 2,
        clock: Clock = nullcontext,
    ) -> None:
        self.engines, self.architecture = engines, model.architecture
        self.batch_size, self.face_batch = batch_size, face_batch or engines.face_batch
        self.threads, self._clock = threads, clock
        self.tokenizer: DialogueTokenizer | None = None
        plm = self.architecture.plm
        if plm is not None and (text := model.tokenizer_json()) is not None:
            self.tokenizer = DialogueTokenizer(text, plm.kind, plm.max_tokens, self.architecture.context)

    def run(self, dataset: DataSet, noise: Noise = no_noise) -> Iterator[Prediction]:
        """Answers every utterance of a data set, in the order that is quickest; see `in_order`.

        Raises:
            DataError: A face can't be read, or the data lack a modality the model needs.
            FmmtError: The model answered NaN.
        """
        if self.architecture.unimodal is not None:
            yield from self._run_unimodal(dataset)
            return
        pending: Pending | None = None
        for group, steps in self._prepared(self.plan(dataset)):
            token_states = self.encode(group)
            for step in steps:
                before, pending = pending, self.launch(step, token_states, noise)
                if before is not None:  # it was computed while this step's inputs went to the device
                    yield from before.predictions()
        if pending is not None:
            yield from pending.predictions()

    def in_order(self, dataset: DataSet, noise: Noise = no_noise) -> list[Prediction]:
        """Answers every utterance, in the data set's own order."""
        answers = {prediction.utterance: prediction for prediction in self.run(dataset, noise)}
        return [answers[utterance] for utterance in dataset.order]

    def plan(self, dataset: DataSet) -> tuple[Group, ...]:
        """Groups of dialogues that are encoded together; tokenises their texts."""
        assert self.architecture.fusion is not None
        with self._clock("prepare"):
            return plan_groups(dataset, self.tokenizer, self.architecture.fusion.text_length, self.batch_size)

    def steps(self, group: Group) -> Iterator[tuple[Member, ...]]:
        """The group's utterances, so many as are fused together."""
        for first in range(0, len(group.members), self.batch_size):
            yield group.members[first : first + self.batch_size]

    def read(self, members: Sequence[Member]) -> Step:
        """Reads the faces that some utterances use."""
        utterances = [member.utterance for member in members]
        counts = face_counts(utterances, self.architecture)
        paths = [p for u, count in zip(utterances, counts, strict=True) for p in u.faces[:count]]
        with self._clock("prepare"):
            faces = read_faces(paths, self.threads) if paths else np.empty((0, FACE_PIXELS, FACE_PIXELS, 3), np.uint8)
        return Step(tuple(members), faces)

    def encode(self, group: Group) -> Tensor:
        """Token states (D, T, H) of a group's text."""
        with self._clock("plm"):
            ids, mask = padded_tokens(group.windows, self.engines.token_multiple, self._longest_text())
            return self.engines["plm"].start({"input_ids": ids, "attention_mask": mask})["token_states"]

    def _longest_text(self) -> int:
        """Tokens that the model, and the widest profile of its engine, take; padding must not go beyond."""
        assert self.architecture.plm is not None
        most, ranges = self.architecture.plm.max_tokens, shape_ranges(self.engines["plm"])
        return min(most, max(profile["input_ids"][2][1] for profile in ranges)) if ranges else most

    def fuse(self, step: Step, token_states: Value, noise: Noise = no_noise) -> list[Prediction]:
        """Answers the utterances of a step."""
        return self.launch(step, token_states, noise).predictions()

    def launch(self, step: Step, token_states: Value, noise: Noise = no_noise) -> Pending:
        """Begins to answer the utterances of a step; what passes between the graphs stays where it is computed."""
        return self.join(step.members, token_states, self.look(step), noise)

    def look(self, step: Step) -> Value:
        """Face logits (N, 7) of a step's faces."""
        if not len(step.faces):
            return np.empty((0, len(EMOTIONS)), np.float32)
        with self._clock("swin"):
            return self.engines["swin"].start({"faces": step.faces}, self.face_batch)["face_logits"]

    def join(
        self, members: tuple[Member, ...], token_states: Value, face_logits: Value, noise: Noise = no_noise
    ) -> Pending:
        """Begins to fuse what the other two graphs said about some utterances, be it these engines' or others'."""
        assert self.architecture.fusion is not None
        with self._clock("fusion"):
            inputs = fusion_inputs(members, self.architecture.fusion, token_states, face_logits, noise)
            return Pending(members, face_logits, self.engines["fusion"].start(inputs))

    def _prepared(self, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Iterator[Step]]]:
        """Each group with its steps, whose faces are read while the step before is computed."""
        work = [members for group in groups for members in self.steps(group)]
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as reader:
            ahead = _ahead(reader, self.read, work)
            for group in groups:
                count = len(list(self.steps(group)))
                yield group, (next(ahead) for _ in range(count))

    def _run_unimodal(self, dataset: DataSet) -> Iterator[Prediction]:
        utterances = [u for dialogue in dataset.dialogues for u in dialogue.utterances]
        for first in range(0, len(utterances), self.batch_size):
            batch = utterances[first : first + self.batch_size]
            with self._clock("fusion"):
                inputs = vision_inputs(batch, self.architecture.vision_length)
                logits = self.engines["unimodal"].run(inputs)["logits"]
            counts = face_counts(batch, self.architecture)
            for utterance, row, count in zip(batch, logits, counts, strict=True):
                yield _prediction(utterance.id, row, np.arange(count))


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[tuple[Member, ...]], Step], work: list[tuple[Member, ...]]
) -> Iterator[Step]:
    """Reads one step ahead of the one that is asked for."""
    pending = reader.submit(read, work[0]) if work else None
    for following in (*work[1:], None):
        assert pending is not None
        step = pending.result()
        pending = reader.submit(read, following) if following is not None else None
        yield step


def _prediction(
    utterance: str,
    logits: FloatArray,
    kept: np.ndarray[tuple[int], np.dtype[np.intp]],
    face_logits: FloatArray = _NO_FACES,
) -> Prediction:
    if not np.isfinite(logits).all():
        raise _overflowed(f"The model answered {logits} for utterance {utterance}.")
    return Prediction(utterance, logits, tuple(kept.tolist()), face_logits)


def _overflowed(what: str) -> FmmtError:
    return FmmtError(
        what,
        why="Its weights or its inputs overflowed on the way.",
        fix="Run `fmmt parity` on this bundle and engine.",
    )
