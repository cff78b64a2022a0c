"""One hash for all that a model reads of a data set, wherever its files are: by it receipts name what was judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, FloatArray, Utterance

__all__ = ["fingerprint"]

_THREADS = 8


def fingerprint(dataset: DataSet) -> str:
    """The SHA-256 of ids, words, tokens, labels, features without padding, and the bytes of face images, in order.

    Names and places of files are not part of it. A full test split has gigabytes of faces: this takes seconds.

    Raises:
        DataError: A face's file can't be read.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for dialogue in dataset.dialogues:
            faces = pool.map(_face, (face for utterance in dialogue.utterances for face in utterance.faces))
            for part in chain(_dialogue(dialogue), faces):
                digest.update(len(part).to_bytes(8, "little") + part)
    digest.update(repr(dataset.order).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _dialogue(dialogue: Dialogue) -> Iterator[bytes]:
    yield repr((dialogue.id, dialogue.texts, len(dialogue.utterances))).encode(errors="surrogatepass")
    tokens = dialogue.tokens
    if tokens is not None:
        yield np.ascontiguousarray(tokens.input_ids, "<i8").tobytes()
        yield repr((tokens.starts, tokens.lengths)).encode()
    for utterance in dialogue.utterances:
        yield from _utterance(utterance)


def _utterance(utterance: Utterance) -> Iterator[bytes]:
    yield repr((utterance.id, utterance.position, utterance.label, len(utterance.faces))).encode(errors="surrogatepass")
    for values, length in ((utterance.audio, utterance.audio_length), (utterance.vision, utterance.vision_length)):
        yield repr(length if values is None else (length, values.shape[1])).encode()
        yield _rows(values, length)


def _rows(values: FloatArray | None, length: int) -> bytes:
    """Without the padding, which is another for another model."""
    return b"" if values is None else np.ascontiguousarray(values[:length], "<f4").tobytes()


def _face(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise DataError(f"face image {path} can't be read", why=reason, path=path) from problem
