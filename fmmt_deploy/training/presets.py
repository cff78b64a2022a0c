"""Architectures to size a machine with, and models of them with random weights."""

from __future__ import annotations

from typing import Literal

import torch

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmSizes, SwinSizes
from fmmt_deploy.training.model import ReferenceModel

__all__ = ["PRESETS", "Preset", "random_model"]

Preset = Literal["full", "tiny"]

PRESETS: dict[Preset, Architecture] = {
    "full": Architecture(
        modality="T+A+V",
        swin=SwinSizes(),
        plm=PlmSizes("roberta", 50265, 1024, 24, 16, 4096, 512, 1e-5),
        fusion=FusionSizes(768, 12, 38, 132, 768, 5, 130, 512, 2, 2),
    ),
    "tiny": Architecture(
        modality="T+A+V",
        swin=SwinSizes(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), feature_size=32, linear_size=16),
        plm=PlmSizes("roberta", 1000, 64, 2, 4, 128, 512, 1e-5),
        fusion=FusionSizes(48, 12, 38, 14, 24, 2, 6, 16, 1, 2),
    ),
}
"""`full` is the published T+A+V model (RoBERTa-large, Swin-T); `tiny` has every part of it, small."""


def random_model(architecture: Architecture, seed: int = 0) -> ReferenceModel:
    """A model with PyTorch's own initial weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ReferenceModel(architecture)
