"""Inputs that exercise every branch of a model, made from a seed: the self-test of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import FusionSizes, PlmSizes, UnimodalSizes
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS

__all__ = ["sample_dialogues", "sample_faces", "sample_utterances", "sample_vision"]

Inputs = Mapping[str, NDArray[Any]]


def sample_faces(rng: np.random.Generator, count: int) -> Inputs:
    """Smooth coloured images with some grain, `faces` (count, 224, 224, 3)."""
    y, x = np.mgrid[0:FACE_PIXELS, 0:FACE_PIXELS] / FACE_PIXELS
    waves = rng.uniform(-4, 4, (count, 1, 1, 3, 3)) * np.pi
    image = np.sin(waves[..., 0] * x[..., None] + waves[..., 1] * y[..., None] + waves[..., 2])
    image = 127 + 90 * image + rng.normal(0, 12, image.shape)
    return {"faces": image.clip(0, 255).astype(np.uint8)}


def sample_dialogues(rng: np.random.Generator, sizes: PlmSizes, lengths: tuple[int, ...]) -> Inputs:
    """Random tokens in dialogues of the given lengths, padded with id 0."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(min(5, sizes.vocab_size - 1), sizes.vocab_size, mask.shape)
    return {"input_ids": ids * mask, "attention_mask": mask}


def sample_utterances(
    rng: np.random.Generator, sizes: FusionSizes, token_states: NDArray[Any], face_logits: NDArray[Any]
) -> Inputs:
    """One utterance a case: no face, one, all; no words, a full text; and noise that opens and shuts the gate."""
    faces, words = sizes.vision_length, sizes.text_length
    counts = np.array([0, 1, faces, max(1, faces // 2), faces])
    tokens, number = token_states.shape[1], len(counts)
    text_length = np.minimum([3, words, 0, 5, words], tokens - 1)
    audio_length = np.array([1, sizes.audio_length, sizes.audio_length // 2, 2, sizes.audio_length])
    noise = rng.gumbel(size=(number, faces, len(EMOTIONS))) * np.array([0, 0, 1, 1, 3])[:, None, None]
    return {
        "token_states": token_states,
        "text_row": np.arange(number) % len(token_states),
        "text_start": np.ones(number, np.int64),
        "text_length": text_length.astype(np.int64),
        "audio": _rows(rng, audio_length, sizes.audio_length, sizes.audio_size),
        "audio_length": audio_length,
        "vision": _rows(rng, counts, faces, sizes.vision_size),
        "vision_mask": (np.arange(faces) < counts[:, None]).astype(np.float32),
        "face_logits": face_logits,
        "face_index": rng.integers(0, len(face_logits), (number, faces)),
        "noise": noise.astype(np.float32),
    }


def sample_vision(rng: np.random.Generator, sizes: UnimodalSizes) -> Inputs:
    """Utterances with no vision row, one, some, and all."""
    counts = np.array([0, 1, max(1, sizes.vision_length // 2), sizes.vision_length])
    return {
        "vision": _rows(rng, counts, sizes.vision_length, sizes.vision_size),
        "vision_mask": (np.arange(sizes.vision_length) < counts[:, None]).astype(np.float32),
    }


def _rows(rng: np.random.Generator, lengths: NDArray[np.int64], rows: int, size: int) -> NDArray[np.float32]:
    real = np.arange(rows) < lengths[:, None]
    return (rng.standard_normal((len(lengths), rows, size)) * real[..., None]).astype(np.float32)
