"""The fingerprint differs wherever a model would read something else, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.data.fingerprint import fingerprint
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue, TokenizedDialogue, Utterance


def made(folder: Path, name: str = "face") -> DataSet:
    folder.mkdir(exist_ok=True)
    faces = tuple(folder / f"{name}{number}.jpg" for number in range(2))
    for number, path in enumerate(faces):
        path.write_bytes(bytes([number]) * 10)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows[2:] = 0
    utterances = (
        Utterance("dia0_utt0", 0, 3, faces, rows, 2, rows * 2, 2),
        Utterance("dia0_utt1", 1, None, (), None, 0, None, 0),
    )
    tokens = TokenizedDialogue(np.array([0, 5, 6, 2]), (0, 2), (2, 2))
    dialogue = Dialogue("dia0", ("one", "two"), tokens, utterances)
    return DataSet(str(folder), (dialogue,), ("dia0_utt0", "dia0_utt1"))


def with_dialogue(**changes: Any) -> Callable[[DataSet], DataSet]:
    return lambda data: replace(data, dialogues=(replace(data.dialogues[0], **changes),))


def with_utterance(**changes: Any) -> Callable[[DataSet], DataSet]:
    def change(data: DataSet) -> DataSet:
        first, *rest = data.dialogues[0].utterances
        return with_dialogue(utterances=(replace(first, **changes), *rest))(data)

    return change


def with_rows(name: str, row: int) -> Callable[[DataSet], DataSet]:
    def change(data: DataSet) -> DataSet:
        rows = getattr(data.dialogues[0].utterances[0], name).copy()
        rows[row, 1] += 1
        return with_utterance(**{name: rows})(data)

    return change


def without_the_last_face(data: DataSet) -> DataSet:
    return with_utterance(faces=data.dialogues[0].utterances[0].faces[:1])(data)


def with_faces_swapped(data: DataSet) -> DataSet:
    return with_utterance(faces=data.dialogues[0].utterances[0].faces[::-1])(data)


@pytest.mark.parametrize(
    "change",
    [
        with_dialogue(id="dia1"),
        with_dialogue(texts=("onet", "wo")),
        with_dialogue(tokens=None),
        with_dialogue(tokens=TokenizedDialogue(np.array([0, 5, 7, 2]), (0, 2), (2, 2))),
        with_dialogue(tokens=TokenizedDialogue(np.array([0, 5, 6, 2]), (0, 1), (2, 2))),
        with_utterance(id="dia0_utt9"),
        with_utterance(position=1),
        with_utterance(label=4),
        with_utterance(label=None),
        with_utterance(audio_length=1),
        with_rows("audio", 0),
        with_rows("vision", 1),
        without_the_last_face,
        with_faces_swapped,
        lambda data: replace(data, order=data.order[::-1]),
    ],
)
def test_another_where_a_model_reads_something_else(tmp_path: Path, change: Callable[[DataSet], DataSet]) -> None:
    data = made(tmp_path / "a")
    assert fingerprint(change(data)) != fingerprint(data)


def test_the_same_elsewhere(tmp_path: Path) -> None:
    assert fingerprint(made(tmp_path / "a")) == fingerprint(made(tmp_path / "b", "other name "))


def test_padding_is_not_read(tmp_path: Path) -> None:
    data = made(tmp_path / "a")
    assert fingerprint(with_rows("audio", 3)(data)) == fingerprint(data)


def test_every_byte_of_a_face_counts(tmp_path: Path) -> None:
    data = made(tmp_path / "a")
    before = fingerprint(data)
    face = data.dialogues[0].utterances[0].faces[1]
    face.write_bytes(face.read_bytes()[:-1] + b"x")
    assert fingerprint(data) != before
    face.unlink()
    with pytest.raises(DataError, match=r"face1\.jpg"):
        fingerprint(data)
