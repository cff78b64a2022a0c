"""Makes the demo's models, fits them a little, and writes them as the published checkpoints are."""

from __future__ import annotations

from typing import Any

import torch

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmKind, PlmSizes, SwinSizes, UnimodalSizes
from fmmt_deploy.demo.dataset import WrittenSplit
from fmmt_deploy.demo.fitting import fit_multimodal, fit_unimodal
from fmmt_deploy.demo.paths import DemoPaths
from fmmt_deploy.demo.published import save_faces, save_multimodal, save_unimodal
from fmmt_deploy.demo.story import all_phrases
from fmmt_deploy.demo.tokenizer import write_tokenizer
from fmmt_deploy.reference.presets import random_model

__all__ = ["write_checkpoints"]

HIDDEN, HEADS, LAYERS = 48, 12, 2
TEXT_ROWS = 38


def write_checkpoints(paths: DemoPaths, plm: PlmKind, split: WrittenSplit, seed: int) -> None:
    """Writes both models, their language model's configuration and its vocabulary.

    Args:
        paths: Where to.
        plm: Which language model.
        split: What to teach them on.
        seed: For the random weights they begin with.
    """
    tokenizer = write_tokenizer(paths.plm, plm, all_phrases())
    model = random_model(_multimodal(plm, tokenizer.get_vocab_size(), split), seed)
    fit_multimodal(model, split, tokenizer, plm)
    language: Any = model.plm.plm
    _add_pooler(language)
    language.config.to_json_file(paths.plm / "config.json", use_diff=False)
    save_multimodal(model.plm, model.fusion, paths.multimodal)
    save_faces(model.swin, paths.swin)
    vision_only = random_model(Architecture(modality="V", unimodal=_unimodal(split)), seed)
    fit_unimodal(vision_only, split)
    save_unimodal(vision_only.unimodal, paths.unimodal)


def _multimodal(plm: PlmKind, vocab_size: int, split: WrittenSplit) -> Architecture:
    """Every part of the published model, small enough that all of it runs in seconds."""
    eps, types = (1e-5, 1) if plm == "roberta" else (1e-12, 2)
    (_, audio_rows, audio_size), (_, vision_rows, vision_size) = split.audio.shape, split.vision.shape
    return Architecture(
        modality="T+A+V",
        swin=SwinSizes(embed_dim=16, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), feature_size=64, linear_size=64),
        plm=PlmSizes(plm, vocab_size, 64, 2, 4, 128, 512, eps, types),
        fusion=FusionSizes(
            hidden_size=HIDDEN,
            heads=HEADS,
            text_length=TEXT_ROWS,
            audio_length=audio_rows,
            audio_size=audio_size,
            audio_layers=LAYERS,
            vision_length=vision_rows,
            vision_size=vision_size,
            vision_layers=LAYERS,
            crossmodal_layers=LAYERS,
        ),
    )


def _unimodal(split: WrittenSplit) -> UnimodalSizes:
    _, rows, columns = split.vision.shape
    return UnimodalSizes(HIDDEN, HEADS, rows, columns, LAYERS)


def _add_pooler(plm: Any) -> None:
    """Published checkpoints have one, though nothing reads it."""
    with torch.random.fork_rng(devices=[]):
        plm.pooler = type(plm)(plm.config, add_pooling_layer=True).pooler.requires_grad_(False)
    plm.pooler.dense.weight.zero_()  # the same checkpoint for the same seed
    plm.pooler.dense.bias.zero_()
