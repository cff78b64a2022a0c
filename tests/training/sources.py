"""Stand-ins for a training's data, its validation and its watcher; as a program (under torchrun) it trains."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from fmmt_deploy.architecture import Architecture, SwinSizes, UnimodalSizes
from fmmt_deploy.evaluation.evaluation import Evaluation, evaluate
from fmmt_deploy.reference.model import DropRates, ReferenceModel
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.training.batches import FaceBatch, TargetBatch
from fmmt_deploy.training.draws import generator
from fmmt_deploy.training.settings import FaceSettings, RunSettings, Settings, TargetSettings
from fmmt_deploy.training.trainer import Trained, Training, Validate, train
from fmmt_deploy.training.watching import EpochRecord, StepRecord, is_main_process

SMALL = replace(
    PRESETS["tiny"],
    swin=SwinSizes(embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), feature_size=16, linear_size=8),
)
"""Every part of the model, in as little time a step as can be."""

VISION = Architecture("V", unimodal=UnimodalSizes(48, 12, 6, 16, 2))


@dataclass
class Utterances:
    """Random ones, each in a dialogue of its own; `passes` a step, of `size` together over all processes."""

    architecture: Architecture = SMALL
    count: int = 12
    size: int = 4
    passes: int = 1
    seed: int = 0
    broken: str = ""
    fingerprint: str = "random"

    def steps(self, epoch: int) -> int:  # noqa: ARG002 - a protocol's signature
        return -(-self.count // (self.size * self.passes))

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Generator[tuple[TargetBatch, ...], None, None]:
        rows = generator(self.seed, "shuffle", epoch).permutation(self.count)
        for step in range(first, self.steps(epoch)):
            mine = rows[step * self.size * self.passes :][: self.size * self.passes]
            yield tuple(
                self.batch(mine[at : at + self.size][rank::processes], len(mine))
                for at in range(0, len(mine), self.size)
            )

    def batch(self, rows: np.ndarray, of: int) -> TargetBatch:
        weight = 1 / of if len(rows) else 0.0
        rows = rows if len(rows) else np.array([0])
        items = [self._utterance(int(row)) for row in rows]
        faces = torch.from_numpy(np.concatenate([item.pop("faces") for item in items]))
        inputs = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
        if self.architecture.modality != "V":
            inputs["text_row"] = torch.arange(len(rows))
            inputs["face_index"] = torch.arange(2 * len(rows)).reshape(-1, 2).repeat(1, 3)
        return TargetBatch(
            inputs,
            faces,
            torch.from_numpy(rows % 7),
            torch.full((len(rows),), weight),
            tuple(f"dia{row}_utt0" for row in rows),
        )

    def _utterance(self, row: int) -> dict[str, np.ndarray]:
        draws = np.random.default_rng([self.seed, row])
        vision = draws.standard_normal((6, 16)).astype(np.float32)
        if f"dia{row}_utt0" == self.broken:
            vision[0, 0] = np.nan
        mask = (np.arange(6) < 2).astype(np.float32)
        if self.architecture.modality == "V":
            return {"vision": vision, "vision_mask": mask, "faces": np.empty((0, 224, 224, 3), np.uint8)}
        return {
            "input_ids": draws.integers(4, 1000, 12),
            "attention_mask": np.ones(12, np.int64),
            "text_start": np.array(1),
            "text_length": np.array(draws.integers(1, 9)),
            "audio": draws.standard_normal((14, 24)).astype(np.float32),
            "audio_length": np.array(draws.integers(1, 14)),
            "vision": vision,
            "vision_mask": mask,
            "noise": draws.gumbel(size=(6, 7)).astype(np.float32),
            "faces": draws.integers(0, 255, (2, 224, 224, 3), dtype=np.uint8),
        }


@dataclass
class Portraits:
    """Random faces."""

    count: int = 6
    size: int = 3
    seed: int = 0
    fingerprint: str = "random"

    def steps(self, epoch: int) -> int:  # noqa: ARG002 - a protocol's signature
        return -(-self.count // self.size)

    def batches(
        self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Generator[FaceBatch, None, None]:
        rows = generator(self.seed, "faces", epoch).permutation(self.count)
        for step in range(first, self.steps(epoch)):
            all_rows = rows[step * self.size :][: self.size]
            mine = all_rows[rank::processes]
            pixels = [np.random.default_rng([9, row]).standard_normal((3, 224, 224)) for row in mine]
            yield FaceBatch(
                torch.from_numpy(np.array(pixels, np.float32).reshape(-1, 3, 224, 224)),
                torch.from_numpy(mine % 7),
                len(mine) / len(all_rows),
                tuple(f"face{row}.jpg" for row in mine),
            )


@dataclass
class Seen:
    """A watcher that remembers."""

    notes: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)

    def close(self) -> None:
        pass


def validate(model: ReferenceModel) -> Evaluation:
    """Scores that depend on the weights, as real ones do."""
    digest = hashlib.sha256(model.state_dict()[next(iter(model.state_dict()))].cpu().numpy().tobytes()).digest()
    return scores(digest[0] / 255)


def scores(share: float) -> Evaluation:
    """Of ten utterances, of which a share is decided rightly."""
    labels = [number % 7 for number in range(10)]
    decided = [label if number < share * 10 else (label + 1) % 7 for number, label in enumerate(labels)]
    return evaluate([str(number) for number in range(10)], labels, np.eye(7, dtype=np.float32)[decided])


def small_model(architecture: Architecture = SMALL, drop: float = 0.0) -> ReferenceModel:
    """The same one each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ReferenceModel(architecture, drop=DropRates(drop, drop, drop))


def small_settings(
    epochs: int = 2, precision: str = "fp32", save_minutes: float = 1000.0, **target: object
) -> Settings:
    """In which the weights do move within a few steps."""
    return Settings(
        faces=FaceSettings(learning_rate=1e-3),
        target=TargetSettings(epochs=epochs, learning_rate=1e-3, **target),  # type: ignore[arg-type]
        run=RunSettings(precision=precision, workers=0, save_minutes=save_minutes),  # type: ignore[arg-type]
    )


def small_training(
    folder: Path,
    architecture: Architecture = SMALL,
    settings: Settings | None = None,
    resume: bool = False,
    drop: float = 0.0,
    target: Utterances | None = None,
    faces: Portraits | None = None,
    watcher: Seen | None = None,
    validation: Validate | None = None,
) -> tuple[Trained, ReferenceModel, Seen]:
    """Trains a small model on the CPU; gives what came of it, the last weights, and what was told."""
    model, seen = small_model(architecture, drop), watcher or Seen()
    training = Training(
        model=model,
        settings=settings or small_settings(),
        target=target or Utterances(architecture),
        faces=faces or (Portraits() if architecture.swin is not None else None),
        validate=validation or validate,
        watcher=seen,
        folder=folder,
        tokenizer=None,
    )
    return train(training, resume=resume, device="cpu"), model, seen


def weights_hash(model: ReferenceModel) -> str:
    """Of all weights and statistics, in order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def train_and_report(folder: Path, drop: float, save_minutes: float, kind: type[Utterances] = Utterances) -> None:
    """Trains a small model, resuming what is there.

    The main process leaves `last.safetensors`, before the last epoch is done with, and a `report.json` of its steps.
    """

    def validation(model: ReferenceModel) -> Evaluation:
        save_file(model.state_dict(), folder / "new.safetensors")
        (folder / "new.safetensors").replace(folder / "last.safetensors")
        return validate(model)

    settings = small_settings(save_minutes=save_minutes)
    # The last pass has one utterance and the last step one face: fewer than processes.
    target, faces = kind(count=13, passes=2), Portraits(count=7)
    _, _, seen = small_training(folder, SMALL, settings, True, drop, target, faces, validation=validation)
    report = {
        "losses": [record.loss for record in seen.steps],
        "norms": [record.gradient_norm for record in seen.steps],
        "cases": [record.cases for record in seen.steps],
    }
    if is_main_process():
        (folder / "report.json").write_text(json.dumps(report))


class InterruptedInside(Utterances):
    """One process gets SIGINT while it makes its third pass; the others don't."""

    made = 0

    def batch(self, rows: np.ndarray, of: int) -> TargetBatch:
        InterruptedInside.made += 1
        if InterruptedInside.made == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(rows, of)


if __name__ == "__main__":
    other = InterruptedInside if sys.argv[2:] == ["interrupted"] and not is_main_process() else Utterances
    try:
        train_and_report(Path(sys.argv[1]), drop=0.0, save_minutes=1000.0, kind=other)
    except KeyboardInterrupt:
        sys.exit(130)
