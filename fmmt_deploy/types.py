"""The values that pass between the parts: label names, dialogues and utterances. NumPy only.

Symbols used in every shape: D dialogues, U utterances, T tokens, N faces of a batch, H hidden size, A audio positions,
V vision positions, C = 7 emotions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.names import EMOTIONS, GRAPHS, GraphName

__all__ = [
    "EMOTIONS",
    "FACE_PIXELS",
    "GRAPHS",
    "BoolArray",
    "DataSet",
    "Dialogue",
    "FloatArray",
    "GraphName",
    "IntArray",
    "PixelArray",
    "TokenizedDialogue",
    "Utterance",
]

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
PixelArray: TypeAlias = NDArray[np.uint8]

FACE_PIXELS = 224
"""Height and width of a face as the Swin reads it."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance and its features.

    Attributes:
        id: For example `dia0_utt0`.
        position: Which turn of its dialogue it is, from 0 (ids may have gaps, positions have none).
        label: Index into `EMOTIONS`, or None where unknown.
        faces: Paths of its face images in order; a model uses the first V.
        audio: `(A, audio_size)`, rows from `audio_length` on are zero; None if the data set has no audio.
        audio_length: Real audio rows.
        vision: `(V, vision_size)`, rows from `vision_length` on are zero; None if the data set has none.
        vision_length: Real vision rows.
    """

    id: str
    position: int
    label: int | None
    faces: tuple[Path, ...]
    audio: FloatArray | None
    audio_length: int
    vision: FloatArray | None
    vision_length: int


@dataclass(frozen=True, slots=True)
class TokenizedDialogue:
    """A dialogue as one token sequence, without padding.

    Attributes:
        input_ids: `(T,)`.
        starts: For each turn, the index of its first own token.
        lengths: For each turn, how many own tokens it has (not yet cut to the model's text length).
    """

    input_ids: IntArray
    starts: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation: the words of every turn, and the utterances that are to be classified.

    Attributes:
        id: For example `dia0`.
        texts: One text a turn, or None where the data set holds tokens only (`.dt`) or no text at all.
        tokens: The token sequence, where the data set came tokenised (`.dt`), else None.
        utterances: Those with features, by position; `position` indexes `texts`.
    """

    id: str
    texts: tuple[str, ...] | None
    tokens: TokenizedDialogue | None
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A split of a data set, ready to run.

    Attributes:
        source: Where it came from, for messages and receipts.
        dialogues: In the data set's order.
        order: Utterance ids in the data set's own order, which outputs keep.
    """

    source: str
    dialogues: tuple[Dialogue, ...]
    order: tuple[str, ...]
