"""Dialogues of every awkward kind, with made-up features, for the tiny models of `tests.models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from fmmt_deploy.types import DataSet, Dialogue, Utterance

AUDIO, VISION = (14, 24), (6, 16)
"""Rows and columns of the tiny models."""

WORDS = ("so", "you", "are", "what", "now", "the", "party", "never", "Monica", "again", "because", "why", "a", "break")


def conversations(folder: Path) -> tuple[Dialogue, ...]:
    """The dialogues; their faces are written to `folder`.

    `faces` has utterances with none, one, exactly V and more; `alone` is a single utterance; `silent` has an empty text
    and a turn without features; `short` and `long` have 60 turns each, of which the second fits no model and is
    read in windows; of both only some turns are utterances to be answered.
    """
    rng = np.random.default_rng(7)
    images = face_images(rng, folder)
    counts: Mapping[str, Mapping[int, int]] = {
        "faces": {0: 0, 1: 1, 2: 6, 3: 9, 4: 3},
        "alone": {0: 4},
        "silent": {0: 2, 2: 0, 3: 1},
        "short": {0: 1, 30: 2, 59: 0},
        "long": {0: 1, 1: 0, 17: 2, 40: 1, 59: 3},
    }
    turns = {"faces": 5, "alone": 1, "silent": 4, "short": 60, "long": 60}
    length = {"faces": 9, "alone": 4, "silent": 6, "short": 1, "long": 60}
    return tuple(
        Dialogue(
            name,
            texts(rng, turns[name], length[name], empty=(2,) if name == "silent" else ()),
            None,
            tuple(utterance(rng, name, position, count, images) for position, count in faces.items()),
        )
        for name, faces in counts.items()
    )


def face_images(rng: np.random.Generator, folder: Path, count: int = 12) -> list[Path]:
    """Smooth blobs of colour, larger, smaller and as large as the Swin's input."""
    paths = []
    for number in range(count):
        side = (160, 224, 300)[number % 3]
        coarse = rng.integers(0, 256, (4 + number, 4 + number, 3), np.uint8)
        paths.append(folder / f"{number}.jpg")
        assert cv2.imwrite(str(paths[-1]), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    return paths


def texts(rng: np.random.Generator, turns: int, words: int, empty: Sequence[int]) -> tuple[str, ...]:
    return tuple("" if turn in empty else " ".join(rng.choice(WORDS, words)) for turn in range(turns))


def utterance(rng: np.random.Generator, dialogue: str, position: int, faces: int, images: Sequence[Path]) -> Utterance:
    audio_length = int(rng.integers(1, AUDIO[0] + 1))
    vision_length = min(faces, VISION[0])
    chosen = rng.permutation(len(images))[:faces]
    return Utterance(
        id=f"{dialogue}_{position}",
        position=position,
        label=int(rng.integers(7)),
        faces=tuple(images[i] for i in chosen),
        audio=rows(rng, audio_length, AUDIO),
        audio_length=audio_length,
        vision=rows(rng, vision_length, VISION),
        vision_length=vision_length,
    )


def rows(rng: np.random.Generator, length: int, shape: tuple[int, int]) -> np.ndarray:
    real = np.arange(shape[0])[:, None] < length
    return (rng.standard_normal(shape) * real).astype(np.float32)


def dataset(dialogues: Sequence[Dialogue]) -> DataSet:
    """The dialogues as a data set, in the order given."""
    return DataSet("made up", tuple(dialogues), tuple(u.id for dialogue in dialogues for u in dialogue.utterances))


def only(dialogue: Dialogue, positions: Sequence[int]) -> Dialogue:
    """The same conversation, with fewer of its utterances to be answered."""
    return replace(dialogue, utterances=tuple(u for u in dialogue.utterances if u.position in positions))
