"""The labelled faces that a trainer is fed with, held against the files themselves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmmt_deploy.data.affwild2 import FrameSet
from fmmt_deploy.data.faces import decoded_face
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.training.augmentation import augmented_face
from fmmt_deploy.training.draws import generator
from fmmt_deploy.training.loading import FaceData
from fmmt_deploy.training.settings import FaceSettings, RunSettings, Settings
from tests.golden import GOLDEN

FACES = sorted((GOLDEN / "roberta/faces").glob("*.jpg"))


def frames(count: int, **skipped: int) -> FrameSet:
    return FrameSet("faces", tuple((FACES * 10)[:count]), np.arange(count) % 7, skipped)


def face_settings(count: int = 0, **faces: Any) -> Settings:
    return Settings(faces=FaceSettings(**faces), run=RunSettings(workers=count))


def test_labelled_faces_come_augmented_with_their_labels() -> None:
    made = face_settings(batch_size=4)
    data = FaceData(frames(10), made)
    steps = list(data.batches(1))
    assert [len(batch.labels) for batch in steps] == [4, 4, 2]
    assert [batch.share for batch in steps] == [1, 1, 1]
    seen = [name for batch in steps for name in batch.names]
    assert sorted(seen) == sorted(f"faces/{path.name}" for path in FACES[:10])
    for batch in steps:
        for pixels, label, name in zip(batch.pixels, batch.labels, batch.names, strict=True):
            row = [path.name for path in FACES[:10]].index(name.partition("/")[2])
            draws = generator(1111, "augment", 1, row)
            expected = augmented_face(decoded_face(FACES[row]), made.faces, draws)
            assert label == row % 7
            np.testing.assert_array_equal(pixels.numpy(), expected)


@pytest.mark.parametrize(("processes", "count"), [(2, 0), (1, 2)])
def test_labelled_faces_are_the_same_in_any_worker_and_process(processes: int, count: int) -> None:
    def pixels(data: FaceData, processes: int) -> list[Tensor]:
        ranks = [list(data.batches(2, 1, rank, processes)) for rank in range(processes)]
        assert all(sum(b.share for b in step) == pytest.approx(1) for step in zip(*ranks, strict=True))
        return [torch.cat([batch.pixels for batch in step]) for step in zip(*ranks, strict=True)]

    expected = pixels(FaceData(frames(25), face_settings(batch_size=10)), 1)
    found = pixels(FaceData(frames(25), face_settings(count, batch_size=10)), processes)
    assert [len(step) for step in found] == [10, 5]
    assert all(map(torch.equal, found, expected))


def test_a_limit_is_kept() -> None:
    data = FaceData(frames(30), face_settings(batch_size=10, limit=15))
    assert data.steps(1) == 2
    first, second = ([name for batch in data.batches(epoch) for name in batch.names] for epoch in (1, 2))
    assert len(first) == len(second) == 15
    assert set(first) != set(second)


def test_what_is_odd_in_labelled_faces_is_counted() -> None:
    notes = FaceData(frames(5, Other=3, **{"no face image": 0}), face_settings()).notes
    assert notes == ("faces: 5 faces; left out: 3 Other.", "faces: no face is labelled disgust, anger.")


def test_labelled_faces_that_can_not_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 labelled faces, at least two"):
        FaceData(frames(1), face_settings())
    with pytest.raises(UsageError, match="a step of 2 faces can't be shared by 3 processes"):
        next(FaceData(frames(12), face_settings(batch_size=10)).batches(1, processes=3))
    (tmp_path / "00001.jpg").write_bytes(b"")
    broken = replace(frames(4), paths=(*FACES[:3], tmp_path / "00001.jpg"))
    with pytest.raises(DataError, match=r"00001\.jpg is not an image"):
        list(FaceData(broken, face_settings(1)).batches(1))


def test_labelled_faces_have_a_fingerprint() -> None:
    first, other = frames(10), replace(frames(10), labels=np.zeros(10, np.int64))
    moved = replace(first, source="elsewhere", paths=tuple(Path("/x", *path.parts[-2:]) for path in first.paths))
    prints = [FaceData(found, face_settings()).fingerprint for found in (first, moved, other, frames(9))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
