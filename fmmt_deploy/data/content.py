"""What an utterance holds, whatever it is called: digests by which the same one is found again in another data set.

Each part that only this utterance can have is a digest of its own: its audio rows, its vision rows, the files of its
first faces, and the words of the three turns around it. So an utterance is found again when its id, label, file names,
split or place are others, and also when only one part is still the same. What many utterances have is no evidence and
gets no digest: a few words ("Okay."), features without any change in them, images of next to no bytes. Words and tokens
of the same dialogue are not compared with each other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, FloatArray, Utterance

__all__ = [
    "DIGEST_BYTES",
    "HASHED_FACES",
    "UtteranceContent",
    "content_of",
    "digests_from_text",
    "distinctive",
    "sharing",
    "text_from_digests",
]

DIGEST_BYTES = 8
"""Of BLAKE2b: among a hundred thousand digests on each side, one pair is equal by chance in two billion comparisons."""

HASHED_FACES = 4
"""Of an utterance, its first; that is enough to know it by, and a split has hundreds of thousands."""

_RUN = 3
"""Turns that are hashed together, or all of a dialogue that has fewer: one alone is said more than once."""

_FEWEST_CHARACTERS, _FEWEST_TOKENS = 48, 16
"""Of such turns; what is shorter is said more than once."""

_FEWEST_BYTES = 1024
"""Of a face's file, compressed; what comes to less is an image of one colour, of whatever size."""


@dataclass(frozen=True, slots=True)
class UtteranceContent:
    """What one utterance holds.

    Attributes:
        dialogue: Its dialogue's id.
        utterance: Its id.
        digests: Of its parts, `DIGEST_BYTES` each; none where it has nothing of its own.
    """

    dialogue: str
    utterance: str
    digests: frozenset[bytes]


def content_of(dataset: DataSet) -> tuple[UtteranceContent, ...]:
    """Hash every utterance of a data set, by dialogue; only digests are kept in memory.

    Raises:
        DataError: If a face's file can't be read.
    """
    return tuple(
        UtteranceContent(dialogue.id, utterance.id, frozenset(_digests(dialogue, utterance)))
        for dialogue in dataset.dialogues
        for utterance in dialogue.utterances
    )


def distinctive(contents: Iterable[UtteranceContent]) -> frozenset[bytes]:
    """Return the digests that stand in one dialogue only: to share them says that an utterance is the same."""
    owner: dict[bytes, str] = {}
    common: set[bytes] = set()
    for content in contents:
        for digest in content.digests:
            if owner.setdefault(digest, content.dialogue) != content.dialogue:
                common.add(digest)
    return frozenset(owner.keys() - common)


def sharing(contents: Iterable[UtteranceContent], digests: AbstractSet[bytes]) -> tuple[UtteranceContent, ...]:
    """Return the utterances that have any of these digests."""
    return tuple(content for content in contents if not content.digests.isdisjoint(digests))


def text_from_digests(digests: Iterable[bytes]) -> str:
    """Return digests, each once and sorted, as Base64."""
    return base64.b64encode(b"".join(sorted(set(digests)))).decode("ascii")


def digests_from_text(text: str) -> frozenset[bytes]:
    """Return what `text_from_digests` was given.

    Raises:
        ValueError: If it is not Base64 of whole digests.
    """
    try:
        joined = base64.b64decode(text, validate=True)
    except binascii.Error as problem:
        raise ValueError(f"digests are not Base64: {problem}") from problem
    if len(joined) % DIGEST_BYTES:
        raise ValueError(f"{len(joined)} bytes are no whole number of digests of {DIGEST_BYTES}")
    return frozenset(joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _digests(dialogue: Dialogue, utterance: Utterance) -> Iterator[bytes]:
    yield from _words(dialogue, utterance.position)
    yield from _rows("audio", utterance.audio, utterance.audio_length)
    yield from _rows("vision", utterance.vision, utterance.vision_length)
    for path in utterance.faces[:HASHED_FACES]:
        yield from _face(path)


def _words(dialogue: Dialogue, position: int) -> Iterator[bytes]:
    """Of the turn, the one before and the one behind it; at a dialogue's ends, of its first or last three."""
    tokens, texts = dialogue.tokens, dialogue.texts
    turns = len(tokens.lengths if tokens is not None else texts or ())
    first = max(0, min(position - _RUN // 2, turns - _RUN))
    run = range(first, min(first + _RUN, turns))
    if tokens is not None:
        own = [tokens.input_ids[tokens.starts[turn] :][: tokens.lengths[turn]] for turn in run]
        if sum(map(len, own)) >= _FEWEST_TOKENS:
            yield _digest("tokens", *(ids.astype("<i8").tobytes() for ids in own))
    elif texts is not None:
        plain = [" ".join(unicodedata.normalize("NFKC", texts[turn]).casefold().split()) for turn in run]
        if sum(map(len, plain)) >= _FEWEST_CHARACTERS:
            yield _digest("text", *(text.encode() for text in plain))


def _rows(kind: str, values: FloatArray | None, length: int) -> Iterator[bytes]:
    if values is None:
        return
    rows = np.ascontiguousarray(values[:length], "<f4")  # without the padding, which is another for another model
    if rows.size and (rows != rows.flat[0]).any():
        yield _digest(kind, rows.tobytes())


def _face(path: Path) -> Iterator[bytes]:
    """Of the file's bytes: decoded pixels differ by a level from one version of a JPEG decoder to the next."""
    try:
        encoded = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise DataError(f"face image {path} can't be read", why=reason, path=path) from problem
    if len(zlib.compress(encoded, 1)) >= _FEWEST_BYTES:
        yield _digest("face", encoded)


def _digest(kind: str, *parts: bytes) -> bytes:
    found = hashlib.blake2b(digest_size=DIGEST_BYTES, person=kind.encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()
