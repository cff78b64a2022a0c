"""The published way of training, to be compared with: each utterance alone, its whole dialogue padded and encoded anew.

A dialogue of nine utterances is so encoded nine times, each time in as many positions as the language model has.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fmmt_deploy.training.batches import TargetBatch

__all__ = ["published_passes"]


def published_passes(batch: TargetBatch, max_tokens: int) -> tuple[TargetBatch, ...]:
    """Takes a pass apart into the published ones, whose losses have the same sum: the weights stay as they are.

    Args:
        batch: Of a T+A+V model.
        max_tokens: What dialogues are padded to; 512 as published.
    """
    return tuple(_alone(batch, row, max_tokens) for row in range(len(batch.labels)))


def _alone(batch: TargetBatch, row: int, max_tokens: int) -> TargetBatch:
    own = slice(row, row + 1)
    texts = ("input_ids", "attention_mask")
    inputs = {name: tensor[own] for name, tensor in batch.inputs.items() if name not in texts}
    dialogue = int(inputs["text_row"])
    for name in texts:
        inputs[name] = _padded(batch.inputs[name][dialogue : dialogue + 1], max_tokens)
    inputs["text_row"] = torch.zeros_like(inputs["text_row"])
    seen = inputs["face_index"][inputs["vision_mask"] > 0]
    slots = torch.arange(inputs["face_index"].shape[1], device=seen.device)[None]
    inputs["face_index"] = torch.where(inputs["vision_mask"] > 0, slots, 0)
    return replace(
        batch,
        inputs=inputs,
        faces=batch.faces[seen],
        labels=batch.labels[own],
        weights=batch.weights[own],
        names=batch.names[own],
    )


def _padded(tokens: Tensor, length: int) -> Tensor:
    return F.pad(tokens, (0, length - tokens.shape[1]))
