"""The arrays that the graphs take, made from utterances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture, FusionSizes
from fmmt_deploy.engines.protocol import Value
from fmmt_deploy.errors import DataError
from fmmt_deploy.pipeline.noise import Noise
from fmmt_deploy.pipeline.plan import Member
from fmmt_deploy.types import EMOTIONS, FloatArray, IntArray, Utterance

__all__ = ["face_counts", "fusion_inputs", "utterance_inputs", "vision_inputs"]

Arrays = dict[str, NDArray[Any]]


def face_counts(utterances: Sequence[Utterance], architecture: Architecture) -> list[int]:
    """How many faces of each utterance are used: one a vision row, at most V."""
    return [min(u.vision_length, architecture.vision_length) for u in utterances]


def fusion_inputs(
    members: Sequence[Member], sizes: FusionSizes, token_states: Value, face_logits: Value, noise: Noise
) -> dict[str, Value]:
    """Everything `fusion` takes for some utterances.

    Args:
        members: The utterances (U), and where their words are.
        sizes: The model's sizes.
        token_states: Of their group, (D, T, H).
        face_logits: Of these utterances' faces, one after the other, (N, 7).
        noise: Gumbel draws, or none.
    """
    if 0 in face_logits.shape:
        face_logits = np.zeros((1, len(EMOTIONS)), np.float32)  # graphs take no empty array; no row refers to it
    return {"token_states": token_states, **utterance_inputs(members, sizes, noise), "face_logits": face_logits}


def utterance_inputs(members: Sequence[Member], sizes: FusionSizes, noise: Noise) -> Arrays:
    """What `fusion` takes, but for the other two graphs' outputs; see `fusion_inputs`."""
    utterances = [member.utterance for member in members]
    counts = [min(u.vision_length, sizes.vision_length) for u in utterances]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slots = np.arange(sizes.vision_length)
    index = np.where(slots < np.array(counts)[:, None], first[:, None] + slots, 0)
    draws = [noise(u.id, count, sizes.vision_length) for u, count in zip(utterances, counts, strict=True)]
    return {
        "text_row": _integers(member.row for member in members),
        "text_start": _integers(member.start for member in members),
        "text_length": _integers(member.length for member in members),
        "audio": _stacked(utterances, "audio"),
        "audio_length": _integers(u.audio_length for u in utterances),
        **vision_inputs(utterances, sizes.vision_length),
        "face_index": index.astype(np.int64),
        "noise": np.stack(draws),
    }


def vision_inputs(utterances: Sequence[Utterance], vision_length: int) -> Arrays:
    """Vision features (U, V, d) and their mask (U, V)."""
    lengths = np.array([[u.vision_length] for u in utterances])
    mask = (np.arange(vision_length) < lengths).astype(np.float32)
    return {"vision": _stacked(utterances, "vision"), "vision_mask": mask}


def _stacked(utterances: Sequence[Utterance], modality: str) -> FloatArray:
    rows = [getattr(u, modality) for u in utterances]
    for utterance, features in zip(utterances, rows, strict=True):
        if features is None:
            raise DataError(
                f"Utterance {utterance.id} has no {modality} features.",
                fix="This model needs them: give a data set that holds them.",
            )
    return np.stack(rows).astype(np.float32, copy=False)


def _integers(values: Any) -> IntArray:
    return np.fromiter(values, np.int64)
