"""Opens a data set, whatever its form: the published `.pkl` files, the older `.dt`, or a plain JSONL of dialogues."""

from __future__ import annotations

from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.annotations import read_annotations
from fmmt_deploy.data.dt import read_dt
from fmmt_deploy.data.jsonl import read_jsonl
from fmmt_deploy.data.layout import FileIndex
from fmmt_deploy.data.meld import csv_names, read_meld
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet

__all__ = ["find_dt", "first_dialogues", "has_split", "is_published", "read_data"]


def first_dialogues(dataset: DataSet, limit: int | None) -> DataSet:
    """The first `limit` dialogues of a data set; all of it where there is no limit."""
    if limit is None:
        return dataset
    dialogues = dataset.dialogues[:limit]
    chosen = {u.id for dialogue in dialogues for u in dialogue.utterances}
    return DataSet(dataset.source, dialogues, tuple(u for u in dataset.order if u in chosen))


def read_data(path: Path, split: str, architecture: Architecture, faces_dir: Path | None = None) -> DataSet:
    """Read one split of a data set for one model.

    In a folder the published `.pkl` files come first, then a `.dt` made for the model's language model, then
    `{split}.jsonl`; all are found by name, however deep. Faces are checked to be there and decoded later.

    Args:
        path: The folder, or a `.dt` or `.jsonl` file.
        split: train, val or test (of a file given itself, it is not used).
        architecture: The sizes that the data must have, and which modalities the model reads.
        faces_dir: Where the face images are, if not where the data set lists them.

    Raises:
        DataError: If there is no data set, or anything in it is missing, damaged or contradictory.
    """
    if path.suffix == ".jsonl" and path.is_file():
        return read_jsonl(path, architecture, faces_dir)
    if path.suffix == ".dt" and path.is_file():
        return read_dt(path, architecture, path.parent, faces_dir)
    files = FileIndex(path)
    if is_published(files, split):
        return read_meld(files, split, architecture, faces_dir)
    old = find_dt(files, split, _kind(architecture))
    if old is not None:
        csv = files.find(csv_names(split))
        labels = None if csv is None else (csv, {row.utterance: row.label for row in read_annotations(csv)})
        return read_dt(old, architecture, files.root, faces_dir, labels)
    lines = files.find([f"{split}.jsonl"])
    if lines is not None:
        return read_jsonl(lines, architecture, faces_dir)
    fix = f"Expected meld_{split}_vision_utt.pkl and the files beside it, or a .dt or {split}.jsonl."
    raise DataError(f"{path} holds no {split} split of a data set", fix=fix, path=path)


def has_split(path: Path, split: str, architecture: Architecture) -> bool:
    """Say whether a folder holds a split, be it intact or not.

    Raises:
        DataError: If there is no such folder, or it holds the split more than once.
    """
    files = FileIndex(path)
    found = is_published(files, split) or find_dt(files, split, _kind(architecture)) or files.find([f"{split}.jsonl"])
    return bool(found)


def is_published(files: FileIndex, split: str) -> bool:
    """Say whether a folder holds a split in the published layout."""
    return files.has(f"meld_{split}_vision_utt.pkl") or files.has(f"meld_{split}_audio_utt.pkl")


def find_dt(files: FileIndex, split: str, kind: str) -> Path | None:
    """Return the split's `.dt`; the name ends in its language model's (`roberta-large`, `bert-large`).

    Raises:
        DataError: If there are several.
    """
    start = f"meld_multimodal_{split}_T+A+V_{kind}"
    return files.match(lambda file: file.suffix == ".dt" and file.name.startswith(start))


def _kind(architecture: Architecture) -> str:
    return "" if architecture.plm is None else architecture.plm.kind
