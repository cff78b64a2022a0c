"""Dialogues to measure with: of the shape of MELD's test set, made from a seed; and the tokens of any."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmSizes, UnimodalSizes
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.export.samples import sample_faces
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, Dialogue, TokenizedDialogue, Utterance

__all__ = ["MELD_TOKENS", "meld_shaped", "tokens_of_dialogues"]

MELD_TOKENS = {
    32: 25, 64: 40, 96: 48, 128: 30, 192: 66, 256: 46, 320: 17, 384: 6, 448: 1, 512: 1,
}  # fmt: skip
"""Histogram of tokens a dialogue in MELD's test set: upper edge → dialogues (280 of them, 134 tokens on average)."""

TOKENS_PER_UTTERANCE = 134 / 9.3
CROP_PIXELS = 160
IMAGES = 16


def meld_shaped(architecture: Architecture, folder: Path, dialogues: int, faces: float, seed: int = 0) -> DataSet:
    """Makes dialogues whose lengths are evenly spaced quantiles of MELD's, with random content.

    Args:
        architecture: The model they are for.
        folder: Where face images are written to.
        dialogues: How many.
        faces: Mean number of faces an utterance; each has from half to one and a half times as many, at most V.
        seed: Of everything random.
    """
    rng = np.random.default_rng(seed)
    crops = sample_faces(rng, IMAGES)["faces"][:, :CROP_PIXELS, :CROP_PIXELS]
    paths = [folder / f"face_{i}.jpg" for i in range(IMAGES)]
    for path, crop in zip(paths, crops, strict=True):
        cv2.imwrite(str(path), crop)
    made = [
        _dialogue(rng, f"dia{i}", tokens, architecture, paths, faces) for i, tokens in enumerate(_lengths(dialogues))
    ]
    order = tuple(u.id for dialogue in made for u in dialogue.utterances)
    several, many = "s" * (dialogues != 1), "s" * (faces != 1)
    source = f"MELD-shaped: {dialogues} dialogue{several}, {faces:g} face{many} an utterance"
    return DataSet(source, tuple(made), order)


def tokens_of_dialogues(bundle: Bundle, dataset: DataSet) -> list[int]:
    """Tokens that are encoded for each dialogue, without padding; zeros for a model that reads none."""
    if bundle.manifest.architecture.plm is None:
        return [0] * len(dataset.dialogues)
    pipeline = Pipeline(bundle, Engines("none", {}))
    parts = (DataSet(d.id, (d,), tuple(u.id for u in d.utterances)) for d in dataset.dialogues)
    return [sum(len(window) for group in pipeline.plan(part) for window in group.windows) for part in parts]


def _lengths(dialogues: int) -> list[int]:
    """Tokens of each dialogue: quantiles (i + ½) / n of the histogram, linear within its bins."""
    edges = np.array([2, *MELD_TOKENS])
    cumulated = np.concatenate([[0], np.cumsum(list(MELD_TOKENS.values()))]) / sum(MELD_TOKENS.values())
    return [int(n) for n in np.interp((np.arange(dialogues) + 0.5) / dialogues, cumulated, edges)]


def _dialogue(
    rng: np.random.Generator, name: str, tokens: int, architecture: Architecture, paths: list[Path], faces: float
) -> Dialogue:
    turns = max(1, round(tokens / TOKENS_PER_UTTERANCE))
    sizes = architecture.fusion or architecture.unimodal
    assert sizes is not None
    utterances = tuple(_utterance(rng, f"{name}_utt{i}", i, sizes, paths, faces) for i in range(turns))
    encoded = None if architecture.plm is None else _tokens(rng, tokens, turns, architecture.plm)
    return Dialogue(name, None, encoded, utterances)


def _tokens(rng: np.random.Generator, tokens: int, turns: int, plm: PlmSizes) -> TokenizedDialogue:
    """Random words in turns of equal length, between the special tokens of the published layout."""
    own = max(1, tokens // turns - 2)
    starts = tuple(1 + i * (own + 2) for i in range(turns))
    ids = rng.integers(min(5, plm.vocab_size - 1), plm.vocab_size, starts[-1] + own + 1)
    return TokenizedDialogue(ids[: plm.max_tokens], starts, (own,) * turns)


def _utterance(
    rng: np.random.Generator,
    name: str,
    position: int,
    sizes: FusionSizes | UnimodalSizes,
    paths: list[Path],
    faces: float,
) -> Utterance:
    count = min(sizes.vision_length, int(rng.integers(round(faces / 2), round(faces * 1.5) + 1)))
    vision = np.zeros((sizes.vision_length, sizes.vision_size), np.float32)
    vision[:count] = rng.standard_normal((count, sizes.vision_size))
    audio, heard = None, 0
    if isinstance(sizes, FusionSizes):
        heard = int(rng.integers(1, sizes.audio_length + 1))
        audio = np.zeros((sizes.audio_length, sizes.audio_size), np.float32)
        audio[:heard] = rng.standard_normal((heard, sizes.audio_size))
    chosen = tuple(paths[i] for i in rng.integers(0, len(paths), count))
    return Utterance(name, position, None, chosen, audio, heard, vision, count)
