"""The sizes of a data set's features, read off its files: what a new model must have to be trained on them.

Nothing is read that needs not be: arrays are mapped, and only their shapes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmmt_deploy.architecture import Modality
from fmmt_deploy.data.dataset import find_dt, is_published
from fmmt_deploy.data.dt import dt_fields
from fmmt_deploy.data.features import Sizes
from fmmt_deploy.data.jsonl import jsonl_values, mapped_rows
from fmmt_deploy.data.layout import FileIndex
from fmmt_deploy.data.meld import pickle_name, split_arrays
from fmmt_deploy.errors import DataError

__all__ = ["FeatureSizes", "feature_sizes"]

_FOLDERS = {"T+A+V": ("T+A+V",), "V": ("V", "T+A+V")}


@dataclass(frozen=True, slots=True)
class FeatureSizes:
    """Rows and numbers a row of each modality's features.

    Attributes:
        audio: None for a vision-only model.
        vision: Without the seven face probabilities.
    """

    audio: Sizes | None
    vision: Sizes


def feature_sizes(path: Path, split: str, modality: Modality) -> FeatureSizes:
    """Read the sizes off a split's files, which are found as `read_data` finds them.

    Args:
        path: The folder, or a `.dt` or `.jsonl` file.
        split: train, val or test.
        modality: Of the model to be made. The published vision-only features are others than the multimodal ones.

    Raises:
        DataError: If there is no such split, or an array is missing, damaged or of another shape than features have.
    """
    if path.suffix == ".jsonl" and path.is_file():
        return _of_jsonl(path, modality)
    if path.suffix == ".dt" and path.is_file():
        return _of_dt(path, modality)
    files = FileIndex(path)
    if is_published(files, split):
        return _of_pickles(files, split, modality)
    old = find_dt(files, split, "roberta") or find_dt(files, split, "bert")  # they differ in tokens only
    if old is not None:
        return _of_dt(old, modality)
    lines = files.find([f"{split}.jsonl"])
    if lines is not None:
        return _of_jsonl(lines, modality)
    fix = f"Expected {pickle_name(split, 'vision')} and the files beside it, or a .dt or {split}.jsonl."
    raise DataError(f"{path} holds no {split} split of a data set", fix=fix, path=path)


def _kinds(modality: Modality) -> tuple[str, ...]:
    return ("audio", "vision") if modality == "T+A+V" else ("vision",)


def _of_pickles(files: FileIndex, split: str, modality: Modality) -> FeatureSizes:
    found = {}
    for kind in _kinds(modality):
        path = files.need([pickle_name(split, kind)], _FOLDERS[modality])
        found[kind] = _sizes_of(split_arrays(path, split).get(kind), kind, path)
    return FeatureSizes(found.get("audio"), found["vision"])


def _of_dt(path: Path, modality: Modality) -> FeatureSizes:
    fields = dt_fields(path)
    found = {kind: _sizes_of(fields.get(f"{kind}_feature"), kind, path) for kind in _kinds(modality)}
    return FeatureSizes(found.get("audio"), found["vision"])


def _sizes_of(value: object, kind: str, path: Path) -> Sizes:
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.dtype.kind != "f" or 0 in value.shape:
        found = f"the shape {value.shape}" if isinstance(value, np.ndarray) else "nothing of that kind"
        what = f"{path.name}: {kind} should be an array (utterances, rows, numbers a row), and there is {found}"
        raise DataError(what, path=path)
    return Sizes(int(value.shape[1]), int(value.shape[2]))


def _of_jsonl(path: Path, modality: Modality) -> FeatureSizes:
    """The longest utterance's rows; all must have the same numbers a row."""
    found: dict[str, Sizes] = {}
    if not any(True for _ in _targets(path)):
        raise DataError(f"{path} has no utterances to classify", path=path)
    for kind, name, file in _listed(path, _kinds(modality)):
        rows, size = mapped_rows(file, name).shape
        known = found.get(kind, Sizes(0, size))
        if known.size != size:
            what = f"{name} has {size} numbers a row, those before it have {known.size}"
            raise DataError(what, fix="Extract all of a modality's features in the same way.", path=file)
        found[kind] = Sizes(max(known.length, rows), size)
    for kind in _kinds(modality):
        if kind not in found or not found[kind].length or not found[kind].size:
            raise DataError(f"{path.name} has no {kind} features, and the model needs them", path=path)
    return FeatureSizes(found.get("audio"), found["vision"])


def _listed(path: Path, kinds: tuple[str, ...]) -> Iterator[tuple[str, str, Path]]:
    """The feature files that are listed."""
    for where, turn in _targets(path):
        for kind in kinds:
            if isinstance(file := turn.get(kind), str):
                yield kind, f"{where}: {str(turn.get('id'))[:80]}: {kind}", path.parent / file


def _targets(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The turns that are not only context; what else may be wrong with a line, reading the data set tells."""
    for where, value in jsonl_values(path):
        turns = value.get("utterances") if isinstance(value, dict) else None
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("target", True):
                yield where, turn
