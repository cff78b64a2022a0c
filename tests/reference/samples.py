"""Golden checkpoints, and the same weights in every other form that people keep them in."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture, PlmKind, UnimodalSizes
from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.reference.pickled import tensors_of
from tests.golden import GOLDEN

KINDS: tuple[PlmKind, ...] = ("roberta", "bert")
NAMES = {"roberta": "RoBERTa", "bert": "BERT"}
V_ONLY = Architecture("V", unimodal=UnimodalSizes(48, 12, 6, 16, 2))


def folder(kind: str) -> Path:
    return GOLDEN / kind / "pretrained_model" / f"FacialMMT-{NAMES[kind]}"


def plm_dir(kind: str) -> Path:
    return GOLDEN / kind / "pretrained_model" / f"{kind}-large"


def multimodal(kind: str) -> Path:
    return folder(kind) / f"multimodal_T+A+V_{NAMES[kind]}.pt"


def faces(kind: str) -> Path:
    return folder(kind) / f"best_swin_{NAMES[kind]}_structure.pt"


def vision_only(kind: str) -> Path:
    return GOLDEN / kind / "pretrained_model" / "FacialMMT-unimodal" / "unimodal_model_V.pt"


@cache
def settings(kind: str) -> dict[str, Any]:
    return json.loads((GOLDEN / kind / "settings.json").read_text())  # type: ignore[no-any-return]


@cache
def expected(kind: str) -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / kind / "expected.npz") as arrays:
        return dict(arrays)


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """A pickle's tensors with the published names, derived buffers and all."""
    return {name: torch.tensor(array) for name, array in tensors_of(read_pickle(path), path).items()}
