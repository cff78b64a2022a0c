r"""Reads dialogues that are not MELD: a plain JSONL, one dialogue a line.

```
{"id": "d1", "utterances": [{"id": "d1_0", "text": "Hey!", "label": "joy", "faces": ["f/0.jpg", "f/1.jpg"],
                             "audio": "d1_0_audio.npy", "vision": "d1_0_vision.npy"}, …]}
```

Paths are relative to the JSONL. `audio` and `vision` are two-dimensional `.npy` files, `(rows, size)`, as many rows as
there are; here they are padded with zeros, or cut, to the rows that the model reads (what is cut is logged). `label`,
`faces`, `audio` and `vision` may be left out; a turn with `"target": false` is context only: its words are read with
the dialogue, it is not classified and needs nothing else.
"""

from __future__ import annotations

import logging
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.annotations import label_from_name, parsed_json, read_file
from fmmt_deploy.data.assembly import audio_sizes, check_says_something, vision_sizes
from fmmt_deploy.data.features import Sizes
from fmmt_deploy.data.layout import FaceFinder
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, FloatArray, Utterance

__all__ = ["jsonl_values", "mapped_rows", "read_jsonl"]

_LOG = logging.getLogger(__name__)
_KEYS = frozenset({"id", "text", "label", "faces", "audio", "vision", "target"})
_NOT_NPY = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    tokenize.TokenError,
)
"""What NumPy raises for a header that is none; it parses it as Python."""


@dataclass(slots=True)
class _Reader:
    """What reading one file needs at every utterance."""

    path: Path
    finder: FaceFinder
    audio: Sizes | None
    vision: Sizes
    cut: dict[str, list[int]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


def read_jsonl(path: Path, architecture: Architecture, faces_dir: Path | None = None) -> DataSet:
    """Read a JSONL of dialogues.

    Args:
        path: The file.
        architecture: What the model expects.
        faces_dir: Where the face images are, if not where the file lists them.

    Raises:
        DataError: If a line is not as the module describes, an id stands twice, a file is missing or of another size
            than the model expects, or an utterance has nothing the model could read.
    """
    finder = FaceFinder(path.parent, faces_dir)
    reader = _Reader(path, finder, audio_sizes(architecture), vision_sizes(architecture))
    dialogues = tuple(_dialogue(reader, value, where) for where, value in jsonl_values(path))
    order = tuple(utterance.id for dialogue in dialogues for utterance in dialogue.utterances)
    if not order:
        raise DataError(f"{path} has no utterances to classify", path=path)
    name, times = Counter(dialogue.id for dialogue in dialogues).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path.name} has the dialogue {name[:80]} twice", path=path)
    for kind, rows in reader.cut.items():
        _LOG.warning("%s: %s of %d utterances was cut, the longest had %d rows", path.name, kind, len(rows), max(rows))
    return DataSet(str(path), dialogues, order)


def jsonl_values(path: Path) -> Iterator[tuple[str, object]]:
    """Yield each line's value, with where it stands.

    Raises:
        DataError: If the file can't be read, or a line is no JSON.
    """
    for number, line in enumerate(read_file(path).removeprefix("\ufeff").split("\n"), start=1):
        if line.strip():
            where = f"{path.name}, line {number}"
            yield where, parsed_json(line, where, path)


def _dialogue(reader: _Reader, value: object, where: str) -> Dialogue:
    match value:
        case {"id": str(name), "utterances": [*turns], **rest} if turns and not rest:
            texts = tuple(_text(turn, where, reader.path) for turn in turns)
            targets = [(index, turn) for index, turn in enumerate(turns) if turn.get("target", True)]
            utterances = tuple(_utterance(reader, turn, index, where) for index, turn in targets)
            return Dialogue(name, texts, None, utterances)
    raise DataError(f'{where} is not {{"id": …, "utterances": [at least one]}}', path=reader.path)


def _text(turn: object, where: str, path: Path) -> str:
    if not isinstance(turn, dict) or not isinstance(turn.get("text"), str) or not isinstance(turn.get("id"), str):
        raise DataError(f"{where}: an utterance has no id or no text", path=path)
    unknown = sorted(turn.keys() - _KEYS)
    if unknown:
        what = f"{where}: {turn['id'][:80]} has the unknown key {unknown[0][:80]!r}"
        raise DataError(what, fix=f"Known: {', '.join(sorted(_KEYS))}.", path=path)
    if not isinstance(turn.get("target", True), bool):
        raise DataError(f"{where}: target of {turn['id'][:80]} is neither true nor false", path=path)
    return str(turn["text"])


def _utterance(reader: _Reader, turn: dict[str, object], position: int, where: str) -> Utterance:
    name = str(turn["id"])
    where = f"{where}: {name[:80]}"
    if name in reader.seen:
        raise DataError(f"{where} is there twice", path=reader.path)
    reader.seen.add(name)
    label = turn.get("label")
    audio, audio_length = _features(reader, turn.get("audio"), "audio", reader.audio, where)
    vision, vision_length = _features(reader, turn.get("vision"), "vision", reader.vision, where)
    utterance = Utterance(
        id=name,
        position=position,
        label=None if label is None else label_from_name(label, where, reader.path),
        faces=() if reader.audio is None else _faces(reader, turn.get("faces"), vision_length, where),
        audio=audio,
        audio_length=audio_length,
        vision=vision,
        vision_length=vision_length,
    )
    has_words = reader.audio is not None and bool(str(turn["text"]).strip())
    check_says_something(utterance, has_words, reader.path.name)
    return utterance


def _faces(reader: _Reader, listed: object, rows: int, where: str) -> tuple[Path, ...]:
    faces = [] if listed is None else listed
    paths = [face for face in faces if isinstance(face, str)] if isinstance(faces, list) else []
    if paths != faces:
        raise DataError(f"{where}: faces is not a list of paths", path=reader.path)
    if min(len(paths), reader.vision.length) != rows:
        what = f"{where} has {len(paths)} faces and {rows} rows of vision features"
        raise DataError(what, fix="One row a face, in the same order.", path=reader.path)
    return reader.finder.find(paths[: reader.vision.length], where, reader.path)


def _features(
    reader: _Reader, listed: object, kind: str, sizes: Sizes | None, where: str
) -> tuple[FloatArray | None, int]:
    """Return one modality padded or cut to the model's rows, and how many of them are real."""
    if sizes is None:
        return None, 0
    padded = np.zeros((sizes.length, sizes.size), np.float32)
    if listed is None:
        return padded, 0
    if not isinstance(listed, str):
        raise DataError(f"{where}: {kind} is not the path of a .npy file", path=reader.path)
    rows, found = _read_npy(reader.path.parent / listed, sizes, f"{where}: {kind}")
    if found > sizes.length:
        reader.cut.setdefault(kind, []).append(found)
    padded[: len(rows)] = rows
    return padded, len(rows)


def _read_npy(path: Path, sizes: Sizes, name: str) -> tuple[FloatArray, int]:
    """Return the rows the model reads, and how many there were."""
    array = mapped_rows(path, name)
    if array.shape[1] != sizes.size:
        raise _misshapen(name, str(sizes.size), array.shape, path)
    with np.errstate(over="ignore"):
        rows = np.array(array[: sizes.length], np.float32)
    if not np.isfinite(rows).all():
        raise DataError(f"{name} has a number that is NaN or infinite: {path}", path=path)
    return rows, int(array.shape[0])


def mapped_rows(path: Path, name: str) -> NDArray[Any]:
    """Open a `.npy` of features, `(rows, size)`, without reading it.

    Args:
        path: The file.
        name: What it is, for messages.

    Raises:
        DataError: If it is not there, is no `.npy`, or holds anything but rows of floating-point numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # mapped, so that a header that announces terabytes allocates nothing
            array: object = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as problem:
        raise DataError(f"{name} is not there: {path}", path=path) from problem
    except _NOT_NPY as problem:
        raise DataError(f"{name}: {path} is no .npy file", why=str(problem)[:300], path=path) from problem
    shape: tuple[int, ...] = getattr(array, "shape", ())
    if not isinstance(array, np.ndarray) or len(shape) != 2 or array.dtype.kind != "f":
        raise _misshapen(name, "size", shape, path)
    return array


def _misshapen(name: str, size: str, shape: tuple[int, ...], path: Path) -> DataError:
    what = f"{name} should have the shape (rows, {size}) and be floating point, and has {shape}"
    return DataError(what, fix="Extract it with the features that the model was trained on.", path=path)
