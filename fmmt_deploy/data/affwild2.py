"""Reads the expression labels of Aff-Wild2 (EXPR, as in the ABAW challenges) and finds the faces they belong to.

`cropped_aligned/<video>/00001.jpg` is the first frame of `…EXPR…/Train_Set/<video>.txt`, whose first line names the
classes; one number a frame follows. `<name>_left` and `<name>_right` are videos of their own.

Source: Kollias and Zafeiriou, "Aff-Wild2" (2019), as released for the ABAW challenges from 2022 on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fmmt_deploy.data.annotations import read_file
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import EMOTIONS, IntArray

__all__ = ["CLASSES", "FrameSet", "read_affwild2"]

CLASSES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
"""As the first line of a label file has them: index = label."""

_OURS = ("neutral", "anger", "disgust", "fear", "joy", "sadness", "surprise")
_LABELS = np.array([EMOTIONS.index(name) for name in _OURS], np.int64)
_OTHER, _NOT_ANNOTATED = len(_OURS), -1
_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
_IMAGES = "cropped_aligned"
_FIX_RELEASE = "Labels and cropped_aligned images must be of the same release."


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Labelled faces.

    Attributes:
        source: Where they came from, for messages.
        paths: Their images, (N,).
        labels: (N,), indices into `EMOTIONS`.
        skipped: How many frames were left out, by reason.
    """

    source: str
    paths: tuple[Path, ...]
    labels: IntArray
    skipped: Mapping[str, int]


def read_affwild2(root: Path, split: Literal["train", "val"]) -> FrameSet:
    """Read the frames of a split that have a face and one of MELD's seven emotions.

    Args:
        root: The folder under which labels and images are, however deep.
        split: Which.

    Raises:
        DataError: If a folder is missing or there more than once, a label file is damaged, a video has images beyond
            its last label or no images, or no frame can be used.
    """
    annotations, images = _found(root, split)
    files = sorted(Path(entry) for entry in _entries(annotations) if entry.name.endswith(".txt"))
    videos = _videos(images)
    skipped = {"not annotated (-1)": 0, "Other": 0, "no face image": 0}
    paths: list[Path] = []
    labels: list[IntArray] = []
    for file in files:
        found = _read_labels(file)
        folder = videos.get(file.stem)
        if folder is None:
            what = f"{file.name}: there is no folder of images for the video {file.stem} in {images[0]}"
            raise DataError(what, fix=_FIX_RELEASE, path=file)
        numbers = _frames(folder, len(found), file)
        skipped["not annotated (-1)"] += int((found == _NOT_ANNOTATED).sum())
        skipped["Other"] += int((found == _OTHER).sum())
        usable = (found >= 0) & (found < _OTHER)
        seen = np.zeros(len(found), np.bool_)
        seen[numbers - 1] = True
        skipped["no face image"] += int((usable & ~seen).sum())
        kept = np.flatnonzero(usable & seen)
        paths += [folder / f"{index + 1:05d}.jpg" for index in kept.tolist()]
        labels.append(_LABELS[found[kept]])
    if not paths:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise DataError(f"{annotations} labels no face that could be used", why=f"Left out: {reasons}.", path=root)
    return FrameSet(str(root), tuple(paths), np.concatenate(labels), skipped)


def _found(root: Path, split: str) -> tuple[Path, tuple[Path, ...]]:
    """The folder of a split's labels, and those of images, which come in several parts."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder", fix="Give the folder that holds Aff-Wild2.", path=root)
    labels, images = [], []
    for folder in _folders(root):
        if folder.name.startswith(_IMAGES):
            images.append(folder)
        elif folder.name == _FOLDERS[split] and "EXPR" in folder.parent.name.upper():
            labels.append(folder)
    if not labels:
        fix = f"Expected …EXPR…/{_FOLDERS[split]} with one text file a video."
        raise DataError(f"{root} holds no expression labels of the {split} split", fix=fix, path=root)
    if len(labels) > 1:
        what = f"{root} holds {_FOLDERS[split]} more than once: {labels[0]} and {labels[1]}"
        raise DataError(what, fix="Take one away, or give the folder that holds only the right one.", path=root)
    if not images:
        fix = f"Expected {_IMAGES}/<video>/00001.jpg."
        raise DataError(f"{root} holds no folder {_IMAGES}", fix=fix, path=root)
    return labels[0], tuple(images)


def _folders(root: Path) -> Iterator[Path]:
    """All folders but those of images; half a million files are not to be walked through."""
    visited: set[tuple[int, int]] = set()
    for folder, names, _ in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names.sort()
        inner = [name for name in names if name.startswith(_IMAGES)]  # an archive unpacked into a folder of its name
        if Path(folder).name.startswith(_IMAGES) and folder != str(root):
            names[:] = inner
            if inner:
                continue
        yield Path(folder)


def _videos(images: tuple[Path, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in images:
        for entry in _entries(folder):
            if not entry.is_dir():
                continue
            if entry.name in found:
                what = f"the video {entry.name} is there more than once: {found[entry.name]} and {entry.path}"
                raise DataError(what, fix="Take one away.", path=entry.path)
            found[entry.name] = Path(entry.path)
    return found


def _read_labels(path: Path) -> IntArray:
    lines = read_file(path).removeprefix("\ufeff").split()
    if not lines or tuple(lines[0].split(",")) != CLASSES:
        found = repr(lines[0][:100]) if lines else "nothing"
        what = f"{path.name} should begin with the line {','.join(CLASSES)}, and begins with {found}"
        raise DataError(what, fix="Use the EXPR labels of a release from 2022 on.", path=path)
    try:
        labels = np.array([int(line) for line in lines[1:]], np.int64)
    except (ValueError, OverflowError) as problem:
        raise DataError(f"{path.name} has a label that is no number", why=str(problem)[:300], path=path) from problem
    for index in np.flatnonzero((labels < _NOT_ANNOTATED) | (labels > _OTHER))[:1]:
        what = (
            f"{path.name}: the label of frame {index + 1} is {labels[index]}, labels are {_NOT_ANNOTATED} to {_OTHER}"
        )
        raise DataError(what, path=path)
    return labels


def _frames(folder: Path, labels: int, source: Path) -> IntArray:
    """The numbers of the frames that have an image; no file is looked at."""
    names = [entry.name for entry in _entries(folder)]
    numbers = np.array([int(name[:-4]) for name in names if _is_frame(name)], np.int64)
    last = int(numbers.max(initial=0))
    if last > labels:
        what = (
            f"the video {source.stem} has an image of frame {last}, and {source.name} ends with that of frame {labels}"
        )
        raise DataError(what, fix=_FIX_RELEASE + " Else take the images behind the last label away.", path=folder)
    return numbers


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise DataError(f"the folder {folder} can't be read", why=reason, path=folder) from problem


def _is_frame(name: str) -> bool:
    number, _, suffix = name.partition(".")
    return suffix == "jpg" and len(number) == 5 and number.isascii() and number.isdigit() and number != "00000"
