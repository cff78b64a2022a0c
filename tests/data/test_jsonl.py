"""The plain JSONL of dialogues."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.errors import DataError
from tests.data.published import VISION_ONLY, architecture, write_jsonl


def test_dialogues_are_read_padded_and_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jsonl(tmp_path)
    with caplog.at_level(logging.WARNING):
        data = read_data(path, "any", architecture())
    assert data.order == ("a", "b", "d")
    (first, second), (third,) = (dialogue.utterances for dialogue in data.dialogues)
    np.testing.assert_array_equal(first.audio[:3], np.load(tmp_path / "a.npy"))
    assert first.audio.shape == (14, 24)
    assert not first.audio[3:].any()
    assert (first.audio_length, first.vision_length, first.label) == (3, 1, 4)
    assert first.faces == (tmp_path / "0.jpg",)
    np.testing.assert_array_equal(second.audio, np.load(tmp_path / "long.npy")[:14])
    assert (second.audio_length, second.label) == (14, None)
    assert "test.jsonl: audio of 1 utterances was cut, the longest had 20 rows" in caplog.text
    assert (third.position, third.audio_length, third.faces) == (1, 0, ())
    assert data.dialogues[1].texts == ("No.", "Yes.")


def test_a_folder_with_only_the_jsonl_of_a_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path)
    assert read_data(tmp_path, "test", architecture()).order == ("a", "b", "d")


def test_a_vision_model_reads_only_vision(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, lambda dialogues: dialogues.pop())
    data = read_data(path, "test", VISION_ONLY)
    assert [u.vision_length for u in data.dialogues[0].utterances] == [1, 2]
    with pytest.raises(DataError, match="d has nothing the model could read"):
        read_data(write_jsonl(tmp_path), "test", VISION_ONLY)


def turn(dialogues: list[Any], **changes: object) -> None:
    dialogues[0]["utterances"][0].update(changes)


CASES: list[tuple[Callable[[list[Any]], object], str]] = [
    (lambda d: turn(d, label="bored"), r"line 1: a: unknown label 'bored'"),
    (lambda d: turn(d, label=3), "unknown label a int"),
    (lambda d: turn(d, text=None), "line 1: an utterance has no id or no text"),
    (lambda d: turn(d, id=1), "no id or no text"),
    (lambda d: turn(d, id="b"), "b is there twice"),
    (lambda d: turn(d, lable="joy"), "a has the unknown key 'lable'\nKnown: audio"),
    (lambda d: turn(d, target="no"), "target of a is neither true nor false"),
    (lambda d: turn(d, faces="0.jpg"), "faces is not a list"),
    (lambda d: turn(d, faces=[1]), "faces is not a list"),
    (lambda d: turn(d, faces=[]), "a has 0 faces and 1 rows"),
    (lambda d: turn(d, faces=["none.jpg"]), "face none.jpg of .* is not there"),
    (lambda d: turn(d, audio=7), "audio is not the path"),
    (lambda d: turn(d, audio="none.npy"), "audio is not there"),
    (lambda d: turn(d, audio="v1.npy"), r"should have the shape \(rows, 24\).* has \(1, 16\)"),
    (lambda d: turn(d, audio="0.jpg"), "is no .npy file"),
    (lambda d: turn(d, audio="nan.npy"), "NaN or infinite"),
    (lambda d: turn(d, audio="huge.npy"), "is no .npy file"),
    (lambda d: turn(d, audio="pickle.npy"), "is no .npy file"),
    (lambda d: turn(d, audio="integers.npy"), "be floating point"),
    (lambda d: turn(d, audio="flat.npy"), r"has \(24,\)"),
    (lambda d: turn(d, text="\ud800"), "not valid JSON"),
    (lambda d: d[1].update(id="d1"), "dialogue d1 twice"),
    (lambda d: d[0].update(utterances=[]), "line 1 is not"),
    (lambda d: d[0].update(extra=1), "line 1 is not"),
    (lambda d: d.__setitem__(0, [1]), "line 1 is not"),
    (lambda d: d.clear(), "no utterances to classify"),
    (lambda d: (d.pop(0), d[0]["utterances"].pop()), "no utterances to classify"),
    (lambda d: d[1]["utterances"][1].update(text=" "), "d has nothing the model could read"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_damaged_dialogues(tmp_path: Path, change: Callable[[list[Any]], object], message: str) -> None:
    np.save(tmp_path / "nan.npy", np.full((2, 24), np.nan, np.float32))
    np.save(tmp_path / "integers.npy", np.zeros((2, 24), int))
    np.save(tmp_path / "flat.npy", np.zeros(24, np.float32))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 24), }"
    header = header.ljust(117) + b"\n"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    path = write_jsonl(tmp_path, change)
    with pytest.raises(DataError, match=message):
        read_data(path, "test", architecture())


@pytest.mark.parametrize(("content", "message"), [(b"{", "line 1 is not valid JSON"), (b"\xff", "as UTF-8")])
def test_a_file_that_is_no_jsonl(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "x.jsonl", "test", architecture())


def test_deeply_nested_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match="not valid JSON"):
        read_data(tmp_path / "x.jsonl", "test", architecture())
    assert json.loads("[]") == []


def test_a_pickle_named_npy_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.mkdir, (tmp_path / "pwned",))

    (tmp_path / "evil.npy").write_bytes(pickle.dumps(Payload.__reduce__(Payload())))
    path = write_jsonl(tmp_path, lambda d: turn(d, audio="evil.npy"))
    with pytest.raises(DataError, match=r"no \.npy file"):
        read_data(path, "test", architecture())
    assert not (tmp_path / "pwned").exists()
