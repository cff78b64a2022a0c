"""What a model card tells of a run, collected from what was prepared, from its folder, and from what came of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.affwild2 import FrameSet
from fmmt_deploy.data.content import content_of, text_from_digests
from fmmt_deploy.training.ablation import Ablation
from fmmt_deploy.training.scoring import SplitScores
from fmmt_deploy.types import EMOTIONS, DataSet

if TYPE_CHECKING:
    from fmmt_deploy.training.preparing import Prepared
    from fmmt_deploy.training.run import Outcome

__all__ = ["CardFacts", "DataFacts", "Machine", "card_facts", "data_of_faces", "data_of_split"]

_PACKAGES = ("fmmt-deploy", "torch", "timm", "transformers", "accelerate", "numpy")


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Data that a model was trained or scored on.

    Attributes:
        name: What it is called in the card.
        cases: Utterances, or faces.
        dialogues: That the utterances are of; None of faces.
        counts: Cases of each emotion, (7,).
        digest: Of what they hold, wherever and under whatever names it is kept; nothing where none is made.
    """

    name: str
    cases: int
    dialogues: int | None
    counts: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What computed.

    Attributes:
        device: A GPU's name, or the CPU's kind.
        processes: That trained together.
        system: Operating system and architecture.
        versions: Of Python and packages.
    """

    device: str
    processes: int
    system: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything that a model card tells of a run.

    Attributes:
        name: Of the run.
        day: When it was finished.
        architecture: The model's.
        tau: Temperature of the face probabilities.
        threshold: Confidence a face must exceed.
        parameters: Of each part.
        checkpoint: SHA-256 of its weights.
        source: Name of the data set.
        data: What it was trained and scored on.
        notes: What was skipped, and other things to know.
        settings: Name, value and source of each.
        starting: SHA-256 of every file the start was read from, by name.
        seconds: That the epochs took.
        machine: What computed.
        best_epoch: Whose model it is.
        epochs: That were made.
        stopped_early: Whether for want of better ones.
        scores: By split.
        ablation: If one was made.
    """

    name: str
    day: date
    architecture: Architecture
    tau: float
    threshold: float
    parameters: Mapping[str, int]
    checkpoint: str
    source: str
    data: Sequence[DataFacts]
    notes: Sequence[str]
    settings: Sequence[tuple[str, str, str]]
    starting: Mapping[str, str]
    seconds: float
    machine: Machine
    best_epoch: int
    epochs: int
    stopped_early: bool
    scores: Mapping[str, SplitScores]
    ablation: Ablation | None


def card_facts(prepared: Prepared, outcome: Outcome) -> CardFacts:
    """Collects them once a training is over and scored.

    Raises:
        DataError: A face or the log can't be read.
        CheckpointError: The best checkpoint can't.
    """
    from fmmt_deploy.reference.loading import parts_of_model
    from fmmt_deploy.reference.run_folder import WEIGHTS
    from fmmt_deploy.reference.weights import sha256_of
    from fmmt_deploy.training.jsonl_log import read_log
    from fmmt_deploy.training.logs import LOG

    request, model = prepared.request, prepared.start.model
    splits = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
    data = [data_of_split(name, split) for name, split in splits.items() if split is not None]
    if prepared.faces is not None:
        data.append(data_of_faces(prepared.faces.frames))
    return CardFacts(
        name=outcome.folder.resolve().name,
        day=datetime.now(UTC).date(),
        architecture=model.architecture,
        tau=model.tau,
        threshold=model.threshold,
        parameters={part: sum(p.numel() for p in each.parameters()) for part, each in parts_of_model(model).items()},
        checkpoint=sha256_of(outcome.best / WEIGHTS),
        source=request.data.resolve().name,
        data=data,
        notes=outcome.notes,
        settings=request.effective.rows(),
        starting=prepared.start.sha256,
        seconds=sum(epoch.seconds for epoch in read_log(outcome.folder / LOG).epochs),
        machine=_machine(prepared.device),
        best_epoch=outcome.best_epoch,
        epochs=outcome.epochs,
        stopped_early=outcome.stopped_early,
        scores=outcome.scores,
        ablation=outcome.ablation,
    )


def data_of_split(name: str, dataset: DataSet) -> DataFacts:
    """Facts of a split; its digest is of what `fmmt_deploy.data.content` finds utterances again by.

    Raises:
        DataError: A face's file can't be read.
    """
    digests = frozenset().union(*(content.digests for content in content_of(dataset)))
    labels = [u.label for dialogue in dataset.dialogues for u in dialogue.utterances if u.label is not None]
    digest = hashlib.sha256(text_from_digests(digests).encode()).hexdigest()
    return DataFacts(name, len(dataset.order), len(dataset.dialogues), _counted(labels), digest)


def data_of_faces(frames: FrameSet) -> DataFacts:
    """Facts of labelled faces; they are far too many to be read for a digest."""
    return DataFacts(
        f"faces ({Path(frames.source).name})", len(frames.paths), None, _counted(frames.labels.tolist()), ""
    )


def _counted(labels: Sequence[int]) -> tuple[int, ...]:
    counts = np.bincount(np.array(labels, np.int64), minlength=len(EMOTIONS))
    return tuple(counts.tolist())


def _machine(device: str) -> Machine:
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    if device != "cpu":
        from torch.cuda import get_device_name

        name = get_device_name(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun says
    return Machine(name, processes, f"{platform.system()} {platform.machine()}", versions)
