"""Aff-Wild2's labels and faces, as the ABAW challenges lay them out."""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fmmt_deploy.data import affwild2
from fmmt_deploy.data.affwild2 import read_affwild2
from fmmt_deploy.errors import DataError

HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
NAMES: dict[Literal["train", "val"], str] = {"train": "Train_Set", "val": "Validation_Set"}


def labels_of(root: Path, split: Literal["train", "val"] = "train") -> Path:
    return root / "6th ABAW Annotations" / "EXPR_Recognition_Challenge" / NAMES[split]


def add_video(root: Path, name: str, labels: str, frames: str, split: Literal["train", "val"] = "train") -> Path:
    """A video with labels like "0 -1 7" and images of frames like "1 3"."""
    file = labels_of(root, split) / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([HEADER, *labels.split()]) + "\n")
    folder = root / "images" / "cropped_aligned" / name
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames.split():
        (folder / f"{int(frame):05d}.jpg").touch()
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_video(tmp_path, "1-30-1280x720", "0 1 2 3 4 5 6 7 -1 4", "1 2 3 4 5 6 7 8 9")
    add_video(tmp_path, "46-30_left", "-1 6 6", "2 3")
    add_video(tmp_path, "46-30_right", "5", "1")
    add_video(tmp_path, "100-29", "3 3", "1 2", "val")
    return tmp_path


def frames_of(found: affwild2.FrameSet) -> dict[str, int]:
    return {"/".join(p.parts[-2:]): int(label) for p, label in zip(found.paths, found.labels, strict=True)}


def test_frames_with_a_face_and_a_label_in_meld_s_order(root: Path) -> None:
    found = read_affwild2(root, "train")
    assert frames_of(found) == {  # neutral, surprise, fear, sadness, joy, disgust, anger
        "1-30-1280x720/00001.jpg": 0,
        "1-30-1280x720/00002.jpg": 6,
        "1-30-1280x720/00003.jpg": 5,
        "1-30-1280x720/00004.jpg": 2,
        "1-30-1280x720/00005.jpg": 4,
        "1-30-1280x720/00006.jpg": 3,
        "1-30-1280x720/00007.jpg": 1,
        "46-30_left/00002.jpg": 1,
        "46-30_left/00003.jpg": 1,
        "46-30_right/00001.jpg": 3,
    }
    assert found.skipped == {"not annotated (-1)": 2, "Other": 1, "no face image": 1}
    assert found.labels.dtype == np.int64
    assert all(path.is_file() for path in found.paths)
    assert frames_of(read_affwild2(root, "val")) == {"100-29/00001.jpg": 2, "100-29/00002.jpg": 2}


def test_the_folders_may_be_anywhere_and_in_parts(root: Path) -> None:
    expected = frames_of(read_affwild2(root, "train"))
    images = root / "images"
    part = images / "cropped_aligned_new_50_vids"
    part.mkdir()
    (images / "cropped_aligned" / "46-30_left").rename(part / "46-30_left")
    (images / "cropped_aligned").rename(images / "unpacked")
    (images / "cropped_aligned").mkdir()  # an archive unpacked into a folder of its own name
    (images / "unpacked").rename(images / "cropped_aligned" / "cropped_aligned")
    (root / "6th ABAW Annotations" / "VA_Estimation_Challenge" / "Train_Set").mkdir(parents=True)
    assert frames_of(read_affwild2(root, "train")) == expected


def test_files_that_are_no_frames_are_passed_over(root: Path) -> None:
    folder = root / "images" / "cropped_aligned" / "46-30_right"
    for name in (".DS_Store", "Thumbs.db", "00002.png", "99999_1.jpg", "00000.jpg", "x0001.jpg"):
        (folder / name).touch()
    labels_of(root).joinpath(".DS_Store").touch()
    assert len(read_affwild2(root, "train").paths) == 10


def test_labels_of_windows(root: Path) -> None:
    file = labels_of(root) / "46-30_right.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_affwild2(root, "train").paths) == 10


def test_no_image_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: pytest.fail(f"asked for {path}"))
    walked: list[str] = []
    walk = os.walk

    def noted(*args: object, **kwargs: object) -> object:
        for entry in walk(*args, **kwargs):  # type: ignore[call-overload]
            walked.append(Path(entry[0]).name)
            yield entry

    monkeypatch.setattr(affwild2.os, "walk", noted)
    assert len(read_affwild2(root, "train").paths) == 10
    assert "cropped_aligned" in walked
    assert "46-30_left" not in walked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "begins with nothing"),
        ("valence,arousal\n0.1,0.2\n", "46-30_right.txt should begin with the line Neutral.* begins with 'valence"),
        (HEADER.removesuffix(",Other") + "\n0\n", "should begin with the line"),
        (HEADER + "\n8\n", "the label of frame 1 is 8, labels are -1 to 7"),
        (HEADER + "\n0\n-2\n", "the label of frame 2 is -2"),
        (HEADER + "\n0.5\n", "has a label that is no number"),
        (HEADER + "\n99999999999999999999\n", "has a label that is no number"),
    ],
)
def test_damaged_labels_are_refused(root: Path, content: str, message: str) -> None:
    (labels_of(root) / "46-30_right.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_affwild2(root, "train")


def test_a_video_of_more_frames_than_labels_is_refused(root: Path) -> None:
    add_video(root, "46-30_right", "5 5", "1 2 3")
    with pytest.raises(
        DataError, match=r"video 46-30_right has an image of frame 3, and .* ends with that of frame 2"
    ) as e:
        read_affwild2(root, "train")
    assert "same release" in e.value.fix


def test_a_video_without_images_is_refused(root: Path) -> None:
    (root / "images" / "cropped_aligned" / "46-30_right" / "00001.jpg").unlink()
    assert len(read_affwild2(root, "train").paths) == 9
    (root / "images" / "cropped_aligned" / "46-30_right").rmdir()
    with pytest.raises(DataError, match="no folder of images for the video 46-30_right"):
        read_affwild2(root, "train")


def test_a_video_twice_is_refused(root: Path) -> None:
    (root / "other" / "cropped_aligned" / "46-30_left").mkdir(parents=True)
    with pytest.raises(DataError, match="the video 46-30_left is there more than once"):
        read_affwild2(root, "train")


def test_labels_twice_are_refused(root: Path) -> None:
    (root / "old" / "EXPR_Set" / "Train_Set").mkdir(parents=True)
    with pytest.raises(DataError, match="Train_Set more than once"):
        read_affwild2(root, "train")
    assert len(read_affwild2(root, "val").paths) == 2


def test_no_labels_no_images_no_folder(root: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read_affwild2(root / "absent", "train")
    with pytest.raises(DataError, match="holds no folder cropped_aligned"):
        read_affwild2(root / "6th ABAW Annotations", "train")
    with pytest.raises(DataError, match="holds no expression labels of the train split"):
        read_affwild2(root / "images", "train")


def test_nothing_that_could_be_used_is_refused(tmp_path: Path) -> None:
    add_video(tmp_path, "1", "7 -1 0", "1 2")
    with pytest.raises(DataError, match="no face that could be used") as raised:
        read_affwild2(tmp_path, "train")
    assert raised.value.why == "Left out: 1 not annotated (-1), 1 Other, 1 no face image."
