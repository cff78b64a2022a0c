"""Reads the text files of the published layout: MELD's CSV, and the JSON files of words, faces and profiles."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.errors import DataError
from fmmt_deploy.types import EMOTIONS

__all__ = [
    "Annotation",
    "ProfileEntry",
    "label_from_name",
    "parsed_faces",
    "parsed_json",
    "parsed_profile",
    "read_annotations",
    "read_file",
    "read_texts",
]

_COLUMNS = ("Emotion", "Dialogue_ID", "Utterance_ID")
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of MELD's CSV."""

    utterance: str
    dialogue: str
    label: int


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """Where an utterance with features stands.

    Attributes:
        utterance: For example `dia0_utt0`.
        dialogue: For example `dia0`.
        dialogue_index: Its dialogue's row in the data set.
        dialogue_length: Turns of that dialogue.
        position: Which of these it is, from 0.
    """

    utterance: str
    dialogue: str
    dialogue_index: int
    dialogue_length: int
    position: int


def read_annotations(path: Path) -> tuple[Annotation, ...]:
    """Read MELD's `{split}_sent_emo.csv` (UTF-8, CRLF), in its order.

    Raises:
        DataError: If it can't be read, lacks a column, has an unknown emotion, or an utterance twice.
    """
    reader = csv.DictReader(io.StringIO(read_file(path).removeprefix("\ufeff"), newline=""), strict=True)
    rows: dict[str, Annotation] = {}
    try:
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path.name} has no column {missing[0]}", path=path)
        for row in reader:
            annotation = _annotation(row, f"{path.name}, line {reader.line_num}", path)
            if annotation.utterance in rows:
                raise DataError(f"{path.name} has {annotation.utterance} twice", path=path)
            rows[annotation.utterance] = annotation
    except csv.Error as problem:
        raise DataError(
            f"{path.name} is not a CSV, near line {reader.line_num}", why=str(problem), path=path
        ) from problem
    return tuple(rows.values())


def _annotation(row: Mapping[str, str | None], where: str, path: Path) -> Annotation:
    emotion, *numbers = ((row[column] or "").strip() for column in _COLUMNS)
    for number in numbers:
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise DataError(f"{where}: {number[:50]!r} is not the number of a dialogue or utterance", path=path)
    dialogue, utterance = (int(number) for number in numbers)
    return Annotation(f"dia{dialogue}_utt{utterance}", f"dia{dialogue}", label_from_name(emotion, where, path))


def label_from_name(emotion: object, where: str, path: Path) -> int:
    """Return the index of an emotion's name.

    Raises:
        DataError: If there is no such emotion, naming those there are.
    """
    if not isinstance(emotion, str) or emotion.lower() not in EMOTIONS:
        shown = repr(emotion)[:50] if isinstance(emotion, str) else f"a {type(emotion).__name__}"
        raise DataError(f"{where}: unknown label {shown}", fix=f"Known: {', '.join(EMOTIONS)}.", path=path)
    return EMOTIONS.index(emotion.lower())


def read_texts(path: Path) -> dict[str, str]:
    """Read `{split}_text.json`: `{"dia0_utt0": {"txt": ["…"]}}`.

    Raises:
        DataError: If it can't be read or is laid out in another way.
    """
    texts: dict[str, str] = {}
    for utterance, value in _object(parsed_json(read_file(path), path.name, path), path.name, path).items():
        match value:
            case {"txt": [str(text)]}:
                texts[utterance] = text
            case _:
                raise DataError(f'{path.name}: {utterance[:80]} is not {{"txt": ["one text"]}}', path=path)
    return texts


def parsed_faces(value: object, name: str, path: Path) -> dict[str, tuple[str, ...]]:
    """Parse the lists of face images: `{"dia0_utt0": [paths]}`.

    Raises:
        DataError: If it is anything else.
    """
    faces: dict[str, tuple[str, ...]] = {}
    for utterance, paths in _object(value, name, path).items():
        if not isinstance(paths, list | tuple) or not all(isinstance(face, str) for face in paths):
            raise DataError(f"{name}: {utterance[:80]} has no list of face image paths", path=path)
        faces[utterance] = tuple(paths)
    return faces


def parsed_profile(value: object, name: str, path: Path) -> tuple[ProfileEntry, ...]:
    """Parse an utterance profile: `{"0": [utterance, dialogue, dialogue index, dialogue length, position]}`.

    Raises:
        DataError: If it is anything else, its indices have gaps, or an utterance or position is there twice.
    """
    listed = {str(key): entry for key, entry in _object(value, name, path, keys=(str, int)).items()}
    entries = []
    for index in range(len(listed)):
        match listed.get(str(index)):
            case [str(utterance), str(dialogue), int(row), int(length), int(position)] if 0 <= position < length:
                entries.append(ProfileEntry(utterance, dialogue, row, length, position))
            case _:
                what = f"{name}: entry {index} of {len(listed)} is not [utterance, dialogue, index, length, position]"
                raise DataError(what, path=path)
    _check_unique([entry.utterance for entry in entries], name, path)
    _check_unique([f"turn {entry.position} of {entry.dialogue}" for entry in entries], name, path)
    rows = {(entry.dialogue, entry.dialogue_index, entry.dialogue_length) for entry in entries}
    if not len(rows) == len({row[0] for row in rows}) == len({row[1] for row in rows}):
        raise DataError(f"{name} gives a dialogue two rows or lengths, or two dialogues one row", path=path)
    return tuple(entries)


def _check_unique(values: list[str], name: str, path: Path) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise DataError(f"{name} has {value[:80]} twice", path=path)
        seen.add(value)


def _object(value: object, name: str, path: Path, keys: tuple[type, ...] = (str,)) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, keys) for key in value):
        raise DataError(f"{name} is not a JSON object by utterance", path=path)
    return value


def parsed_json(text: str, name: str, path: Path) -> object:
    """Parse JSON in which no key stands twice and all text is valid Unicode.

    Raises:
        DataError: If it does not parse.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_unique_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can't be encoded
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{name} is not valid JSON", why=str(problem)[:300], path=path) from problem
    return value


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {again[:80]!r} stands twice")
    return found


def read_file(path: Path) -> str:
    """Read a text file as UTF-8.

    Raises:
        DataError: If it can't be read, is absurdly large, or is not UTF-8.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", path=path)
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} can't be read as UTF-8 text", why=str(problem)[:300], path=path) from problem
