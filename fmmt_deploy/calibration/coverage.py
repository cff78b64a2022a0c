"""The audit of what was calibrated on: how much, which classes and lengths, compared with which test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.content import (
    UtteranceContent,
    content_of,
    text_from_digests,
)
from fmmt_deploy.data.text import DialogueTokenizer, text_windows
from fmmt_deploy.types import EMOTIONS, DataSet, Utterance

__all__ = [
    "FEWEST_DIALOGUES",
    "FEWEST_UTTERANCES",
    "Bin",
    "Coverage",
    "Reading",
    "Spread",
    "coverage_of",
    "is_small",
]

FEWEST_DIALOGUES = 8
"""Each half, on which scales are compared, still has four."""

FEWEST_UTTERANCES = 32
"""Four or five of each of the seven emotions, if they were even."""

_FEW_FACES = 64
_FEW_OF_A_CLASS = 4


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a histogram.

    Attributes:
        up_to: The largest length that counts here: 0, 1 or a power of two.
        count: How many there are, longer than the bar before.
    """

    up_to: int
    count: int


@dataclass(frozen=True, slots=True)
class Spread:
    """How one kind of length is distributed; percentiles are nearest-rank."""

    count: int
    lowest: int
    p5: int
    p50: int
    p95: int
    highest: int
    histogram: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was asked for, and what it was compared with.

    Attributes:
        split: train or val.
        seed: Which dialogues were chosen.
        left_out: Dialogues that are in a test split, too, and were left out.
        compared_with: Test splits that hold none of it; empty where none was found.
    """

    split: str
    seed: int
    left_out: int
    compared_with: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was calibrated on.

    Attributes:
        source: Where it came from.
        reading: How it was chosen.
        dialogues: How many.
        utterances: How many.
        repeated: Utterances of which all was there before, in another dialogue.
        faces: How many the model looks at.
        emotions: Utterances by emotion; all seven are there.
        unlabelled: Utterances without one.
        dialogue_tokens: Of every text that is encoded; None if the model reads no words.
        faces_per_utterance: One a vision row.
        audio_rows: None if the data set has no audio.
        vision_rows: None if it has no vision features.
        digests: Of what the utterances hold (`data.content`), as Base64: 11 characters a digest, at most seven an
            utterance.
        warnings: What it does not cover, in words.
    """

    source: str
    reading: Reading
    dialogues: int
    utterances: int
    repeated: int
    faces: int
    emotions: Mapping[str, int]
    unlabelled: int
    dialogue_tokens: Spread | None
    faces_per_utterance: Spread | None
    audio_rows: Spread | None
    vision_rows: Spread | None
    digests: str
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Emotions that no utterance is labelled with."""
        return tuple(name for name in EMOTIONS if not self.emotions[name])


def is_small(dataset: DataSet) -> bool:
    """Say whether it is too little to take ranges from, unless that is asked for."""
    return len(dataset.dialogues) < FEWEST_DIALOGUES or len(dataset.order) < FEWEST_UTTERANCES


def coverage_of(
    dataset: DataSet, architecture: Architecture, tokenizer: DialogueTokenizer | None, reading: Reading
) -> Coverage:
    """Audit a data set.

    Args:
        dataset: At least one utterance.
        architecture: The model's.
        tokenizer: Of the model; None if it reads no words or the data set holds tokens.
        reading: How it was chosen.

    Raises:
        DataError: A text can't be encoded, or a face's file can't be read.
    """
    everybody = [u for dialogue in dataset.dialogues for u in dialogue.utterances]
    labels = [None if u.label is None else EMOTIONS[u.label] for u in everybody]
    contents = content_of(dataset)
    seen = {
        "dialogue_tokens": _tokens(dataset, architecture, tokenizer),
        "faces_per_utterance": [] if architecture.swin is None else [u.vision_length for u in everybody],
        "audio_rows": [u.audio_length for u in everybody if u.audio is not None],
        "vision_rows": [u.vision_length for u in everybody if u.vision is not None],
    }
    faces, repeated = sum(seen["faces_per_utterance"]), _repeated(contents)
    emotions = {name: labels.count(name) for name in EMOTIONS}
    warnings = (
        *_about_reading(reading, dataset, repeated),
        *_about_classes(emotions, labels.count(None)),
        *_about_lengths(seen, architecture, everybody),
    )
    return Coverage(
        source=dataset.source,
        reading=reading,
        dialogues=len(dataset.dialogues),
        utterances=len(everybody),
        repeated=repeated,
        faces=faces,
        emotions=emotions,
        unlabelled=labels.count(None),
        **{name: _spread(lengths) for name, lengths in seen.items()},
        digests=text_from_digests(digest for content in contents for digest in content.digests),
        warnings=warnings,
    )


def _tokens(dataset: DataSet, architecture: Architecture, tokenizer: DialogueTokenizer | None) -> list[int]:
    if architecture.plm is None or architecture.fusion is None:
        return []
    length = architecture.fusion.text_length
    return [len(w.input_ids) for dialogue in dataset.dialogues for w in text_windows(dialogue, tokenizer, length)]


def _spread(lengths: Sequence[int]) -> Spread | None:
    if not lengths:
        return None
    p5, p50, p95 = (int(np.percentile(lengths, p, method="inverted_cdf")) for p in (5, 50, 95))
    bars: dict[int, int] = {}
    for length in lengths:
        up_to = 1 << (length - 1).bit_length() if length else 0
        bars[up_to] = bars.get(up_to, 0) + 1
    histogram = tuple(Bin(up_to, bars[up_to]) for up_to in sorted(bars))
    return Spread(len(lengths), min(lengths), p5, p50, p95, max(lengths), histogram)


def _repeated(contents: Sequence[UtteranceContent]) -> int:
    owner: dict[bytes, str] = {}
    repeated = 0
    for content in contents:
        owners = {owner.setdefault(digest, content.dialogue) for digest in content.digests}
        repeated += bool(owners) and content.dialogue not in owners
    return repeated


def _about_reading(reading: Reading, dataset: DataSet, repeated: int) -> Iterator[str]:
    dialogues, utterances = len(dataset.dialogues), len(dataset.order)
    if not reading.compared_with:
        yield "no test split found to compare with: nothing says that none of it is calibrated on"
    if reading.left_out:
        yield f"{reading.left_out} dialogues are in a test split as well and were left out"
    if is_small(dataset):
        yield f"only {dialogues} dialogues with {utterances} utterances, which was allowed"
    if repeated:
        yield f"{repeated} of {utterances} utterances only repeat what others hold"


def _about_classes(emotions: Mapping[str, int], unlabelled: int) -> Iterator[str]:
    present = [name for name, count in emotions.items() if count]
    missing = [name for name, count in emotions.items() if not count]
    few = [f"{name} ({count})" for name, count in emotions.items() if 0 < count < _FEW_OF_A_CLASS]
    if not present:
        yield "no utterance has a label: which emotions are covered can't be said"
        return
    if unlabelled:
        yield f"{unlabelled} utterances have no label: which emotions they cover can't be said"
    if len(present) == 1:
        yield f"all labelled utterances are of one emotion, {present[0]}"
    elif missing:
        yield f"no utterance of {', '.join(missing)}"
    if few and len(present) > 1:
        yield f"few utterances of {', '.join(few)}"


def _about_lengths(
    seen: Mapping[str, Sequence[int]], architecture: Architecture, everybody: Sequence[Utterance]
) -> Iterator[str]:
    tokens = seen["dialogue_tokens"]
    room = 0 if architecture.plm is None else architecture.plm.max_tokens
    if tokens and 4 * max(tokens) < room:
        yield f"only short dialogues: the longest has {max(tokens)} tokens, the model reads up to {room}"
    if architecture.swin is not None and sum(seen["faces_per_utterance"]) < _FEW_FACES:
        yield f"only {sum(seen['faces_per_utterance'])} faces; {_FEW_FACES} and more are better"
    if architecture.fusion is not None and not any(u.audio_length for u in everybody):
        yield "no utterance has audio"
    if not any(u.vision_length for u in everybody):
        yield "no utterance has vision features"
