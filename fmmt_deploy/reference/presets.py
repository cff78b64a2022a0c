"""Architectures to size a machine with, and models of them with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmSizes, SwinSizes

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["PRESETS", "Preset", "random_model"]

Preset = Literal["full", "tiny"]

PRESETS: dict[Preset, Architecture] = {
    "full": Architecture(
        modality="T+A+V",
        swin=SwinSizes(),
        plm=PlmSizes(
            kind="roberta",
            vocab_size=50265,
            hidden_size=1024,
            layers=24,
            heads=16,
            intermediate_size=4096,
            max_tokens=512,
            layer_norm_eps=1e-5,
        ),
        fusion=FusionSizes(
            hidden_size=768,
            heads=12,
            text_length=38,
            audio_length=132,
            audio_size=768,
            audio_layers=5,
            vision_length=130,
            vision_size=512,
            vision_layers=2,
            crossmodal_layers=2,
        ),
    ),
    "tiny": Architecture(
        modality="T+A+V",
        swin=SwinSizes(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), feature_size=32, linear_size=16),
        plm=PlmSizes(
            kind="roberta",
            vocab_size=1000,
            hidden_size=64,
            layers=2,
            heads=4,
            intermediate_size=128,
            max_tokens=512,
            layer_norm_eps=1e-5,
        ),
        fusion=FusionSizes(
            hidden_size=48,
            heads=12,
            text_length=38,
            audio_length=14,
            audio_size=24,
            audio_layers=2,
            vision_length=6,
            vision_size=16,
            vision_layers=1,
            crossmodal_layers=2,
        ),
    ),
}
"""`full` is the published T+A+V model (RoBERTa-large, Swin-T); `tiny` has every part of it, small."""


def random_model(architecture: Architecture, seed: int = 0) -> ReferenceModel:
    """A model with PyTorch's own initial weights, the same for the same seed.

    Raises:
        ImportError: PyTorch and what goes with it are missing; the presets themselves do without.
    """
    import torch

    from fmmt_deploy.reference.model import ReferenceModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ReferenceModel(architecture)
