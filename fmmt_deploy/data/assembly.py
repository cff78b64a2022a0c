"""Puts utterances, words, features and faces together to a `DataSet`, whatever files they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.annotations import ProfileEntry
from fmmt_deploy.data.features import Features, Sizes
from fmmt_deploy.data.layout import FaceFinder
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, TokenizedDialogue, Utterance

__all__ = [
    "agreed_labels",
    "assembled",
    "audio_sizes",
    "check_says_something",
    "checked_faces",
    "vision_sizes",
]


def vision_sizes(architecture: Architecture) -> Sizes:
    """Return what a model expects of vision features.

    Raises:
        DataError: If the model takes none.
    """
    sizes = architecture.fusion or architecture.unimodal
    if sizes is None:
        raise DataError("this model takes no vision features, so no data set fits it")
    return Sizes(sizes.vision_length, sizes.vision_size)


def audio_sizes(architecture: Architecture) -> Sizes | None:
    """Return what a model expects of audio features, or None if it takes none."""
    sizes = architecture.fusion
    return None if sizes is None else Sizes(sizes.audio_length, sizes.audio_size)


def checked_faces(
    profile: Sequence[ProfileEntry],
    listed: Mapping[str, Sequence[str]],
    vision: Features,
    finder: FaceFinder,
    source: Path,
) -> tuple[tuple[Path, ...], ...]:
    """Return the face images of every utterance, the first V at most.

    Raises:
        DataError: If an utterance is not listed, has another number of faces than vision rows (V counts as any number
            from V on), or a file is not there.
    """
    limit = vision.values.shape[1]
    faces = []
    for entry, length in zip(profile, vision.lengths, strict=True):
        paths = listed.get(entry.utterance)
        if paths is None:
            raise DataError(f"{source.name} has no faces listed for {entry.utterance}, not even none", path=source)
        if min(len(paths), limit) != length:
            what = f"{source.name}: {entry.utterance} has {len(paths)} faces and vision features of {length}"
            raise DataError(what, fix="Both must come from the same faces; extract them again.", path=source)
        faces.append(finder.find(paths[:limit], entry.utterance, source))
    return tuple(faces)


def agreed_labels(profile: Sequence[ProfileEntry], *sources: tuple[Path, Mapping[str, int]]) -> tuple[int | None, ...]:
    """Return the label of every utterance, as all sources that have labels agree.

    Args:
        profile: The utterances.
        sources: Files with their labels by utterance id.

    Raises:
        DataError: If one lacks an utterance, or two differ.
    """
    labels: dict[str, tuple[int, Path]] = {}
    for path, given in sources:
        for entry in profile:
            label = given.get(entry.utterance)
            if label is None:
                raise DataError(f"{path.name} has no {entry.utterance}", path=path)
            first, before = labels.setdefault(entry.utterance, (label, path))
            if first != label:
                what = f"the label of {entry.utterance} is {first} in {before.name} and {label} in {path.name}"
                raise DataError(what, fix="The files belong to different data sets or orders.", path=path)
    return tuple(labels[entry.utterance][0] if entry.utterance in labels else None for entry in profile)


def check_says_something(utterance: Utterance, has_words: bool, source: str) -> None:
    """Refuse an utterance with neither words nor audio nor vision: the model's attention over it is 0/0.

    Raises:
        DataError: If it is one.
    """
    if not has_words and not utterance.audio_length and not utterance.vision_length:
        what = f"{source}: {utterance.id} has nothing the model could read: no words, no audio, no face"
        raise DataError(what, fix="Take it out of the data set.", path=source)


def assembled(
    source: Path,
    profile: Sequence[ProfileEntry],
    audio: Features | None,
    vision: Features,
    faces: Sequence[tuple[Path, ...]],
    labels: Sequence[int | None],
    words: Mapping[str, tuple[str, ...] | TokenizedDialogue | None],
) -> DataSet:
    """Build the data set.

    Args:
        source: Where it came from.
        profile: The U utterances, in the data set's order.
        audio: Of the same utterances, or None.
        vision: Of the same utterances.
        faces: Of the same utterances.
        labels: Of the same utterances.
        words: By dialogue id, one text a turn, or the tokens, or None.

    Raises:
        DataError: If an utterance has nothing a model could read.
    """
    members: dict[str, list[Utterance]] = {}
    for index, entry in enumerate(profile):
        utterance = Utterance(
            id=entry.utterance,
            position=entry.position,
            label=labels[index],
            faces=faces[index],
            audio=None if audio is None else audio.values[index],
            audio_length=0 if audio is None else audio.lengths[index],
            vision=vision.values[index],
            vision_length=vision.lengths[index],
        )
        check_says_something(utterance, _has_words(words.get(entry.dialogue), entry.position), str(source))
        members.setdefault(entry.dialogue, []).append(utterance)
    dialogues = tuple(_dialogue(name, words.get(name), utterances) for name, utterances in members.items())
    return DataSet(str(source), dialogues, tuple(entry.utterance for entry in profile))


def _has_words(words: tuple[str, ...] | TokenizedDialogue | None, position: int) -> bool:
    if isinstance(words, TokenizedDialogue):
        return words.lengths[position] > 0
    return words is not None and bool(words[position].strip())


def _dialogue(
    name: str, words: tuple[str, ...] | TokenizedDialogue | None, utterances: Sequence[Utterance]
) -> Dialogue:
    tokens = words if isinstance(words, TokenizedDialogue) else None
    texts = words if isinstance(words, tuple) else None
    return Dialogue(name, texts, tokens, tuple(sorted(utterances, key=lambda utterance: utterance.position)))
