"""Decoded faces are decoded once, by whichever process is first, and a full disk stops no training."""

import errno
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.data.faces import read_face
from fmmt_deploy.errors import DataError
from fmmt_deploy.training import face_cache
from fmmt_deploy.training.face_cache import FACE_BYTES, FaceCache
from fmmt_deploy.types import PixelArray
from tests.golden import GOLDEN

FACES = sorted((GOLDEN / "roberta/faces").glob("*.jpg"))[:5]
ROOM = 8 * FACE_BYTES / 2**30


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were decoded."""
    paths: list[Path] = []

    def read(path: Path) -> PixelArray:
        paths.append(path)
        return read_face(path)

    monkeypatch.setattr(face_cache, "read_face", read)
    return paths


def test_each_face_is_decoded_once(decoded: list[Path], tmp_path: Path) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    for _ in range(3):
        for number, path in enumerate(FACES):
            np.testing.assert_array_equal(cache.read(number, path), read_face(path))
    assert (decoded, cache.capacity, cache.note) == (FACES, 5, "")


def test_faces_beyond_its_size_are_decoded_each_time(decoded: list[Path], tmp_path: Path) -> None:
    cache = FaceCache(5, 2.5 * FACE_BYTES / 2**30, tmp_path)
    for _ in range(2):
        for number, path in enumerate(FACES):
            np.testing.assert_array_equal(cache.read(number, path), read_face(path))
    assert cache.capacity == 2
    assert decoded == FACES + FACES[2:]


def test_a_face_that_another_process_read_is_there(decoded: list[Path], tmp_path: Path) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    other = multiprocessing.get_context("fork").Process(target=cache.read, args=(1, FACES[1]))
    other.start()
    other.join()
    assert other.exitcode == 0
    np.testing.assert_array_equal(cache.read(1, FACES[1]), read_face(FACES[1]))
    cache.read(2, FACES[2])
    assert decoded == FACES[2:3]


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    cache.read(0, FACES[0])
    assert list(tmp_path.iterdir()) == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    cache.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    np.testing.assert_array_equal(cache.read(0, FACES[0]), read_face(FACES[0]))


def test_none_is_kept_where_none_is_asked_for(decoded: list[Path], tmp_path: Path) -> None:
    cache = FaceCache(5, 0, tmp_path)
    cache.read(0, FACES[0])
    cache.read(0, FACES[0])
    assert (len(decoded), cache.note) == (2, "")


def test_a_disk_with_little_room_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = (1 << 30) + 3 * FACE_BYTES
    monkeypatch.setattr(face_cache.shutil, "disk_usage", lambda _: type("", (), {"free": free}))
    cache = FaceCache(5, ROOM, tmp_path)
    assert cache.capacity == 3
    assert "1.0 GiB free: 3 decoded faces are kept instead of 5" in cache.note


def test_a_disk_that_becomes_full_stops_nothing(
    decoded: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    cache.read(0, FACES[0])

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(face_cache.os, "pwrite", full)
    for _ in range(2):
        np.testing.assert_array_equal(cache.read(1, FACES[1]), read_face(FACES[1]))
        np.testing.assert_array_equal(cache.read(0, FACES[0]), read_face(FACES[0]))
    assert decoded == [FACES[0], FACES[1], FACES[1]]
    assert [record.getMessage() for record in caplog.records] == [
        "no more faces are kept, the rest is decoded each time: [Errno 28] No space left on device"
    ]


def test_a_face_that_was_not_written_whole_is_not_there(
    decoded: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    monkeypatch.setattr(face_cache.os, "pwrite", lambda *_: 17)
    cache.read(0, FACES[0])
    np.testing.assert_array_equal(cache.read(0, FACES[0]), read_face(FACES[0]))
    assert len(decoded) == 2


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    cache = FaceCache(5, ROOM, tmp_path / "absent")
    assert cache.capacity == 0
    assert "Faces are decoded anew each time" in cache.note


def test_a_damaged_face_is_an_error_and_is_not_kept(tmp_path: Path) -> None:
    cache = FaceCache(5, ROOM, tmp_path)
    damaged = tmp_path / "face.jpg"
    damaged.write_bytes(FACES[0].read_bytes()[:-100])
    for _ in range(2):
        with pytest.raises(DataError, match=r"face\.jpg is a JPEG that breaks off"):
            cache.read(0, damaged)
