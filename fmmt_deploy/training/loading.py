"""What a trainer is fed with: an epoch's steps, made ahead of it from a data set or from labelled faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.affwild2 import FrameSet
from fmmt_deploy.data.faces import decoded_face
from fmmt_deploy.data.text import DialogueTokenizer, text_windows
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.pipeline.inputs import face_counts, utterance_inputs, vision_inputs
from fmmt_deploy.pipeline.noise import Noise, gumbel_noise, no_noise
from fmmt_deploy.pipeline.plan import Group, padded_tokens, plan_groups
from fmmt_deploy.training.augmentation import augmented_face, jittered
from fmmt_deploy.training.batches import FaceBatch, TargetBatch
from fmmt_deploy.training.draws import generator, seed_of
from fmmt_deploy.training.face_cache import FaceCache
from fmmt_deploy.training.fingerprints import fingerprint_of_dialogues
from fmmt_deploy.training.planning import Share, class_weights, own_part, plan_faces, plan_target, shares
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.workers import NO_WORKERS, can_fork, made_ahead
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS, DataSet, Dialogue, IntArray, PixelArray, Utterance

__all__ = ["FaceData", "TargetData"]

_TOKEN_MULTIPLE = 8
"""T is padded to this, which GPUs are quicker with; padding changes no answer."""


class TargetData:
    """The utterances that emotions are learnt from.

    Args:
        dataset: With labels.
        architecture: Of the model.
        tokenizer_json: The text of its `tokenizer.json`, where it reads words.
        settings: The target task's, and how it is run.

    Attributes:
        notes: What a person should know about the data.
        labels_count: Utterances of each emotion, (7,).

    Raises:
        DataError: If it has no utterance, one without a label, or one with words that can't be read.
    """

    def __init__(
        self, dataset: DataSet, architecture: Architecture, tokenizer_json: str | None, settings: Settings
    ) -> None:
        self._architecture, self._settings = architecture, settings
        self._dialogues = tuple(dialogue for dialogue in dataset.dialogues if dialogue.utterances)
        self._utterances = tuple(u for dialogue in self._dialogues for u in dialogue.utterances)
        self._of = tuple(row for row, dialogue in enumerate(self._dialogues) for _ in dialogue.utterances)
        labels = _checked_labels(self._utterances, dataset.source)
        self.labels_count = np.bincount(labels, minlength=len(EMOTIONS))
        self._weights = class_weights(labels, settings.target.class_weights)[labels]
        self._tokenizer = _tokenizer(architecture, tokenizer_json)
        if architecture.fusion is not None:
            for dialogue in self._dialogues:  # what can't be read is told now, not after an hour
                text_windows(dialogue, self._tokenizer, architecture.fusion.text_length)
        self._counts = [0] * len(self._utterances)
        if architecture.swin is not None:
            self._counts = face_counts(self._utterances, architecture)
        self._first_face = np.concatenate([[0], np.cumsum(self._counts)])
        self._cache = FaceCache(int(self._first_face[-1]), settings.run.face_cache_gib)
        self.notes = tuple(note for note in (*self._odd(dataset), self._cache.note, _about_workers(settings)) if note)

    @cached_property
    def fingerprint(self) -> str:
        """Differs where the data do."""
        return fingerprint_of_dialogues(self._dialogues)

    def steps(self, epoch: int) -> int:
        """How many steps an epoch (from 1) has; where whole dialogues are shuffled, epochs differ by a few."""
        return len(self._plan(epoch))

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Generator[tuple[TargetBatch, ...], None, None]:
        """An epoch's steps, each a tuple of passes.

        Args:
            epoch: From 1.
            first: How many steps to leave out, as they were made before.
            rank: Which process this is, from 0.
            processes: How many train together.

        Raises:
            DataError: If a face can't be read.
            EnvironmentProblem: If a worker was killed.
        """
        steps = [shares(step, self._weights, rank, processes) for step in self._plan(epoch)[first:]]
        passes = [share for step in steps for share in step]
        made = made_ahead(partial(self._batch, epoch), passes, self._settings.run.workers)
        for step in steps:
            yield tuple(islice(made, len(step)))

    def _plan(self, epoch: int) -> tuple[tuple[IntArray, ...], ...]:
        return plan_target(self._of, self._settings.target, self._settings.run.seed, epoch)

    def _batch(self, epoch: int, share: Share) -> TargetBatch:
        weights = dict(zip(share.rows.tolist(), share.weights.tolist(), strict=True))
        if self._architecture.fusion is None:
            rows = list(weights)
            utterances = [self._utterances[row] for row in rows]
            inputs = vision_inputs(utterances, self._architecture.vision_length)
        else:
            group, rows = self._group(share.rows)
            utterances = [self._utterances[row] for row in rows]
            ids, mask = self._padded(group)
            noise = self._noise(epoch)
            own = utterance_inputs(group.members, self._architecture.fusion, noise)
            inputs = {"input_ids": ids, "attention_mask": mask, **own}
        return TargetBatch(
            inputs={name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()},
            faces=torch.from_numpy(self._faces(epoch, rows)),
            labels=torch.tensor([utterance.label for utterance in utterances]),
            weights=torch.tensor([weights[row] for row in rows]),
            names=tuple(utterance.id for utterance in utterances),
        )

    def _group(self, rows: IntArray) -> tuple[Group, list[int]]:
        """The text that these utterances are read with, and their rows in the group's order."""
        row_of = {self._utterances[row].id: int(row) for row in rows}
        chosen: dict[int, list[Utterance]] = {}
        for row in sorted(row_of.values()):
            chosen.setdefault(self._of[row], []).append(self._utterances[row])
        dialogues = tuple(self._part(row, targets) for row, targets in chosen.items())
        assert self._architecture.fusion is not None
        part = DataSet("", dialogues, tuple(row_of))
        (group,) = plan_groups(part, self._tokenizer, self._architecture.fusion.text_length, len(rows))
        return group, [row_of[member.utterance.id] for member in group.members]

    def _part(self, row: int, targets: Sequence[Utterance]) -> Dialogue:
        return replace(self._dialogues[row], utterances=tuple(targets))

    def _padded(self, group: Group) -> tuple[IntArray, IntArray]:
        assert self._architecture.plm is not None
        return padded_tokens(group.windows, _TOKEN_MULTIPLE, self._architecture.plm.max_tokens)

    def _noise(self, epoch: int) -> Noise:
        if self._settings.target.noise == "none":
            return no_noise
        return gumbel_noise(seed_of(self._settings.run.seed, "noise", epoch))

    def _faces(self, epoch: int, rows: Sequence[int]) -> PixelArray:
        faces = np.empty((sum(self._counts[row] for row in rows), FACE_PIXELS, FACE_PIXELS, 3), np.uint8)
        first = 0
        for row in rows:
            utterance, count = self._utterances[row], self._counts[row]
            own = faces[first : first + count]
            for index, path in enumerate(utterance.faces[:count]):
                own[index] = self._cache.read(int(self._first_face[row]) + index, path)
            if count:
                draws = generator(self._settings.run.seed, "jitter", epoch, utterance.id)
                own[:] = jittered(own, self._settings.target.jitter, draws)
            first += count
        return faces

    def _odd(self, dataset: DataSet) -> Iterator[str]:
        empty = len(dataset.dialogues) - len(self._dialogues)
        if empty:
            yield f"{dataset.source}: {empty} dialogues have no utterance to classify and are left out."
        absent = [name for name, count in zip(EMOTIONS, self.labels_count, strict=True) if not count]
        if absent:
            yield f"{dataset.source}: no utterance is labelled {', '.join(absent)}; that can't be learnt."
        faceless = sum(not count for count in self._counts)
        if faceless and self._architecture.swin is not None:
            yield f"{dataset.source}: {faceless} of {len(self._utterances)} utterances have no face."


class FaceData:
    """The labelled faces that the face model learns from.

    Args:
        frames: Their files.
        settings: The face phase's, and how it is run.

    Attributes:
        frames: Their files.
        notes: What a person should know about the data.

    Raises:
        DataError: If there are fewer than two faces.
    """

    def __init__(self, frames: FrameSet, settings: Settings) -> None:
        if len(frames.paths) < 2:
            what = f"{frames.source} has {len(frames.paths)} labelled faces, at least two are needed"
            raise DataError(what, why="BatchNorm needs several at a time.", path=frames.source)
        self.frames, self._settings = frames, settings
        skipped = ", ".join(f"{count} {reason}" for reason, count in frames.skipped.items() if count)
        counts = Counter(frames.labels.tolist())
        absent = [name for label, name in enumerate(EMOTIONS) if not counts[label]]
        self.notes = (
            *([f"{frames.source}: {len(frames.paths)} faces; left out: {skipped}."] if skipped else []),
            *([f"{frames.source}: no face is labelled {', '.join(absent)}."] if absent else []),
            *([_about_workers(settings)] if _about_workers(settings) else []),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Differs where the data do: names and labels."""
        digest = blake2b(self.frames.labels.tobytes(), digest_size=16)
        for path in self.frames.paths:
            digest.update(_name(path).encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()

    def steps(self, epoch: int) -> int:
        """How many steps an epoch (from 1) has."""
        return len(self._plan(epoch))

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Generator[FaceBatch, None, None]:
        """An epoch's steps; see `TargetData.batches`.

        Raises:
            UsageError: If a step has fewer faces than there are processes.
            DataError: If a face can't be read.
            EnvironmentProblem: If a worker was killed.
        """
        plan = self._plan(epoch)[first:]
        least = min((len(rows) for rows in plan), default=processes)
        if least < processes:
            what = f"a step of {least} faces can't be shared by {processes} processes"
            raise UsageError(what, fix=f"Set faces.batch_size to {8 * processes} or more.")
        own = [(own_part(rows, rank, processes), len(rows)) for rows in plan]
        yield from made_ahead(partial(self._batch, epoch), own, self._settings.run.workers)

    def _plan(self, epoch: int) -> tuple[IntArray, ...]:
        return plan_faces(len(self.frames.paths), self._settings.faces, self._settings.run.seed, epoch)

    def _batch(self, epoch: int, part: tuple[IntArray, int]) -> FaceBatch:
        rows, of = part
        pixels = torch.empty((len(rows), 3, FACE_PIXELS, FACE_PIXELS))
        for index, row in enumerate(rows.tolist()):
            draws = generator(self._settings.run.seed, "augment", epoch, row)
            face = augmented_face(decoded_face(self.frames.paths[row]), self._settings.faces, draws)
            pixels[index] = torch.from_numpy(face)
        return FaceBatch(
            pixels=pixels,
            labels=torch.from_numpy(self.frames.labels[rows]),
            share=len(rows) / of,
            names=tuple(_name(self.frames.paths[row]) for row in rows.tolist()),
        )


def _name(face: Path) -> str:
    """Its video and number, wherever they lie."""
    return "/".join(face.parts[-2:])


def _checked_labels(utterances: Sequence[Utterance], source: str) -> IntArray:
    if not utterances:
        raise DataError(f"{source} has no utterances to learn from", path=source)
    unlabelled = [utterance.id for utterance in utterances if utterance.label is None]
    if unlabelled:
        what = (
            f"{source}: {len(unlabelled)} of {len(utterances)} utterances have no label, the first is {unlabelled[0]}"
        )
        fix = "Label them, or make them context: in a JSONL with target: false."
        raise DataError(what, fix=fix, path=source)
    return np.array([utterance.label for utterance in utterances], np.int64)


def _tokenizer(architecture: Architecture, json: str | None) -> DialogueTokenizer | None:
    plm = architecture.plm
    return (
        None if plm is None or json is None else DialogueTokenizer(json, plm.kind, plm.max_tokens, architecture.context)
    )


def _about_workers(settings: Settings) -> str:
    return NO_WORKERS if settings.run.workers and not can_fork() else ""
