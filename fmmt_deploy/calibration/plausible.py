"""Whether data are real, as far as that can be told: made-up data have other ranges than what a model is used on.

Told are faces of white noise or of one colour, texts of tokens drawn at random, and features that never change. Not
told are smooth made-up images, features drawn at random (real ones look like it, number by number), and real words in
an order without sense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.faces import decoded_face
from fmmt_deploy.data.text import DialogueTokenizer, text_windows
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, FloatArray, IntArray, PixelArray

__all__ = ["check_plausible", "neighbour_correlation", "repetition"]

SAMPLED_FACES = 32

LEAST_CORRELATION = 0.3
"""Of neighbouring pixels: photographs, also dark and grainy ones, have 0.8 and more, white noise has none."""

FEWEST_TOKENS = 1000
"""With fewer, words repeat too seldom to say anything."""

LEAST_REPETITION = 1.3
"""See `repetition`: 1 and less if tokens are drawn evenly; in a thousand tokens of a language it is 3 and more."""

_FIX = "Calibrate on dialogues that were recorded: of the training or validation split."


def check_plausible(dataset: DataSet, architecture: Architecture, tokenizer: DialogueTokenizer | None) -> None:
    """Refuse data that are made up.

    Args:
        dataset: To calibrate on.
        architecture: The model's.
        tokenizer: Of the model; None if it reads no words or the data set holds tokens.

    Raises:
        DataError: They are, naming what gives it away.
    """
    if architecture.swin is not None:
        _check_faces(dataset)
    for kind in ("audio", "vision"):
        _check_features(dataset, kind)
    if architecture.plm is not None and architecture.fusion is not None:
        _check_words(dataset, tokenizer, architecture.fusion.text_length)


def neighbour_correlation(image: PixelArray) -> float:
    """Correlation of the brightness of horizontal and vertical neighbours, NaN for an image of one colour.

    Args:
        image: (height, width, 3), as decoded: enlarging would correlate any neighbours.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
    grey -= grey.mean()
    variance = float(np.square(grey).mean())
    if variance < 0.25:  # rounding alone
        return float("nan")
    return float((grey[:, 1:] * grey[:, :-1]).mean() + (grey[1:] * grey[:-1]).mean()) / (2 * variance)


def _check_faces(dataset: DataSet) -> None:
    paths = _sampled([path for d in dataset.dialogues for u in d.utterances for path in u.faces[: u.vision_length]])
    found = np.array([neighbour_correlation(decoded_face(path)) for path in paths])
    for wrong, what in ((found < LEAST_CORRELATION, "white noise"), (np.isnan(found), "of one colour")):
        if 2 * wrong.sum() > len(paths):
            raise DataError(
                f"{wrong.sum()} of {len(paths)} faces looked at are {what}, such as {paths[int(wrong.argmax())]}",
                why="Ranges taken from made-up faces are not those of real ones.",
                fix=_FIX,
                path=dataset.source,
            )


def _sampled(paths: Sequence[Path]) -> list[Path]:
    """Evenly from all of them."""
    chosen = np.linspace(0, len(paths) - 1, min(SAMPLED_FACES, len(paths))).round().astype(int)
    return [paths[index] for index in chosen]


def _check_features(dataset: DataSet, kind: str) -> None:
    """Rows that are all the same, in the whole data set."""
    rows, first = 0, None
    for values in _real_rows(dataset, kind):
        rows += len(values)
        first = values[0] if first is None else first
        if (values != first).any():
            return
    if rows > 1:
        raise DataError(
            f"the {kind} features are the same in all {rows} rows of {len(dataset.order)} utterances",
            why="Features that never change were not extracted from anything.",
            fix=_FIX,
            path=dataset.source,
        )


def _real_rows(dataset: DataSet, kind: str) -> Iterator[FloatArray]:
    for dialogue in dataset.dialogues:
        for utterance in dialogue.utterances:
            values: NDArray[Any] | None = getattr(utterance, kind)
            length: int = getattr(utterance, f"{kind}_length")
            if values is not None and length:
                yield values[:length]


def repetition(tokens: IntArray) -> float:
    """How often two tokens are equal, times how many there are: near 1 if drawn evenly, less if hardly any repeats.

    Args:
        tokens: At least two.
    """
    _, counts = np.unique(tokens, return_counts=True)
    pairs = len(tokens) * (len(tokens) - 1)
    return float((counts * (counts - 1)).sum() / pairs * len(counts))


def _check_words(dataset: DataSet, tokenizer: DialogueTokenizer | None, text_length: int) -> None:
    own: list[IntArray] = []
    for dialogue in dataset.dialogues:
        for window in text_windows(dialogue, tokenizer, text_length):
            own += [window.input_ids[start : start + length] for start, length in window.spans.values()]
    tokens = np.concatenate(own) if own else np.zeros(0, np.int64)
    if len(tokens) >= FEWEST_TOKENS and repetition(tokens) < LEAST_REPETITION:
        raise DataError(
            f"the {len(tokens)} tokens of {len(dataset.order)} utterances are drawn at random, not spoken",
            why="In any language a few words are said again and again; here, all are about equally frequent.",
            fix=_FIX,
            path=dataset.source,
        )
