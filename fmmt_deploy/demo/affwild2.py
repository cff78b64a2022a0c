"""Writes drawn faces in the layout of Aff-Wild2 (Kollias et al., 2019), for the first phase of a training."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from fmmt_deploy.demo.faces import draw_face, write_image
from fmmt_deploy.types import EMOTIONS

__all__ = ["write_affwild2"]

HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
"""First line of every annotation; its lines below are numbers of these."""

LOOKS = ("neutral", "anger", "disgust", "fear", "joy", "sadness", "surprise")
"""The same in our names."""

OTHER, NOT_ANNOTATED = 7, -1

SIZE = 112
"""Pixels of an image, as those of Aff-Wild2."""

UNCLEAR, MISSING, UNUSED = 0.1, 0.03, 0.04
"""Shares: of neutral faces, blurred; of frames, without an image; of stretches, Other, and as many not annotated."""

Split = Literal["Train_Set", "Validation_Set"]


def write_affwild2(directory: Path, split: Split, videos: int, frames: int, seed: int) -> None:
    """Writes `cropped_aligned/` and `annotations/EXPR_Set/` of one split.

    Args:
        directory: Where to; the other split's files stay.
        split: As its folder is named.
        videos: How many.
        frames: Of each.
        seed: For the same faces again.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    annotations = directory / "annotations" / "EXPR_Set" / split
    annotations.mkdir(parents=True, exist_ok=True)
    for number in range(videos):
        video = f"{split.split('_')[0].lower()}-{number + 1}"
        images = directory / "cropped_aligned" / video
        images.mkdir(parents=True, exist_ok=True)
        labels = _labels(rng, frames)
        (annotations / f"{video}.txt").write_text("\n".join([HEADER, *map(str, labels)]) + "\n", encoding="utf-8")
        for frame, label in enumerate(labels, start=1):
            look, unclear = _look(rng, label)
            pixels = draw_face(look, rng, unclear, SIZE)
            if rng.random() >= MISSING:
                write_image(images / f"{frame:05}.jpg", pixels)


def _labels(rng: np.random.Generator, frames: int) -> list[int]:
    """Numbers of `HEADER`, in stretches, as a face keeps its expression for a while; about as many of each."""
    labels: list[int] = []
    while len(labels) < frames:
        draw = rng.random()
        label = OTHER if draw < UNUSED else NOT_ANNOTATED if draw < 2 * UNUSED else int(rng.integers(len(LOOKS)))
        labels += [label] * int(rng.integers(2, 9))
    return labels[:frames]


def _look(rng: np.random.Generator, label: int) -> tuple[int, bool]:
    """Which emotion is drawn, an index into `EMOTIONS`, and whether the face is blurred."""
    look = EMOTIONS.index(LOOKS[label]) if 0 <= label < len(LOOKS) else int(rng.integers(len(EMOTIONS)))
    return look, look == 0 and rng.random() < UNCLEAR
