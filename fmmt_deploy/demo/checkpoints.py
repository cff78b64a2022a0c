"""Writes the demo's trained models as the published checkpoints are."""

from __future__ import annotations

from typing import Any

import torch

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.demo.paths import DemoPaths, TrainedModel, trained_run
from fmmt_deploy.demo.published import save_faces, save_multimodal, save_unimodal
from fmmt_deploy.reference.checkpoints import read_checkpoint
from fmmt_deploy.reference.loading import model_from_checkpoint
from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["write_checkpoints"]


def write_checkpoints(paths: DemoPaths, plm: PlmKind) -> None:
    """Writes the model with this language model, its face model, and the vision-only model.

    Args:
        paths: Where to.
        plm: Which language model.
    """
    model = _trained(plm)
    _add_pooler(model.plm.plm)
    save_multimodal(model.plm, model.fusion, paths.multimodal)
    save_faces(model.swin, paths.swin)
    save_unimodal(_trained("v-only").unimodal, paths.unimodal)


def _trained(name: TrainedModel) -> ReferenceModel:
    checkpoint = read_checkpoint(trained_run(name))
    return model_from_checkpoint(checkpoint, **checkpoint.settings)


def _add_pooler(plm: Any) -> None:
    """Published checkpoints have one, though nothing reads it."""
    with torch.random.fork_rng(devices=[]):
        plm.pooler = type(plm)(plm.config, add_pooling_layer=True).pooler.requires_grad_(False)
    plm.pooler.dense.weight.zero_()  # the same checkpoint every time
    plm.pooler.dense.bias.zero_()
