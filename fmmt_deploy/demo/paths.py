"""Where the demo's files are: named and laid out as the published release is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.architecture import PlmKind

__all__ = ["DemoPaths", "TrainedModel", "demo_paths", "trained_run"]

TrainedModel: TypeAlias = Literal["roberta", "bert", "v-only"]
"""What was trained with `training/demo.toml` and is part of this package."""

TRAINED = Path(__file__).parent / "trained"


@dataclass(frozen=True, slots=True)
class DemoPaths:
    """Where things are.

    Attributes:
        data: The data set, for `--data`.
        checkpoint: Folder with the multimodal and the face checkpoint, for `--ckpt`.
        multimodal: `multimodal_T+A+V_*.pt`.
        swin: `best_swin_*.pt`.
        unimodal: `unimodal_model_V.pt`.
        plm: Folder with configuration and vocabulary, for `--plm-dir`.
    """

    data: Path
    checkpoint: Path
    multimodal: Path
    swin: Path
    unimodal: Path
    plm: Path


def demo_paths(directory: Path, plm: PlmKind) -> DemoPaths:
    """The files of a demo in `directory`, whether they are there yet or not."""
    models = directory / "pretrained_model"
    name = {"roberta": "RoBERTa", "bert": "BERT"}[plm]
    checkpoint = models / f"FacialMMT-{name}"
    return DemoPaths(
        data=directory,
        checkpoint=checkpoint,
        multimodal=checkpoint / f"multimodal_T+A+V_{name}.pt",
        swin=checkpoint / f"best_swin_{name}.pt",
        unimodal=models / "FacialMMT-unimodal" / "unimodal_model_V.pt",
        plm=models / f"{plm}-large",
    )


def trained_run(model: TrainedModel) -> Path:
    """The run folder of a model that was trained on the demo's data, for `--ckpt`; part of this package."""
    return TRAINED / model
