"""Reads the older release's data sets: a `.dt`, the pickled torch Dataset that holds token ids and all features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture, PlmSizes
from fmmt_deploy.data.annotations import ProfileEntry, parsed_faces, parsed_profile
from fmmt_deploy.data.assembly import agreed_labels, assembled, audio_sizes, checked_faces, vision_sizes
from fmmt_deploy.data.features import Features, Sizes, checked_features, checked_labels
from fmmt_deploy.data.layout import FaceFinder
from fmmt_deploy.data.pickles import Node, check_plain, read_pickle
from fmmt_deploy.data.text import SEPARATORS
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import EMOTIONS, DataSet, TokenizedDialogue

__all__ = ["dt_fields", "read_dt"]


def read_dt(
    path: Path,
    architecture: Architecture,
    base: Path,
    faces_dir: Path | None = None,
    csv_labels: tuple[Path, dict[str, int]] | None = None,
) -> DataSet:
    """Read a `.dt`.

    Args:
        path: The file.
        architecture: What the model expects.
        base: The folder its face paths are relative to.
        faces_dir: Where the face images are, if elsewhere.
        csv_labels: The CSV and its labels, to be checked against the file's own.

    Raises:
        DataError: If it is damaged, contradicts itself or the model, or was tokenised for another language model.
    """
    fields = dt_fields(path)
    profile = parsed_profile(_need(fields, "utt_profile", path), f"{path.name}: utt_profile", path)
    audio = _features(fields, "audio", path, profile, audio_sizes(architecture))
    vision = _features(fields, "vision", path, profile, vision_sizes(architecture))
    if vision is None:
        raise DataError(f"{path.name} has no vision features", path=path)
    ids = [entry.utterance for entry in profile]
    own = checked_labels(_need(fields, "labels", path), path, len(ids), len(EMOTIONS))
    sources = [] if csv_labels is None else [csv_labels]
    labels = agreed_labels(profile, (path, dict(zip(ids, own, strict=True))), *sources)
    if architecture.plm is None:
        no_faces: list[tuple[Path, ...]] = [()] * len(ids)
        return assembled(path, profile, None, vision, no_faces, labels, {})
    listed = parsed_faces(_need(fields, "utt_face_path", path), f"{path.name}: utt_face_path", path)
    faces = checked_faces(profile, listed, vision, FaceFinder(base, faces_dir), path)
    return assembled(path, profile, audio, vision, faces, labels, _tokens(fields, path, profile, architecture.plm))


def dt_fields(path: Path) -> dict[str, object]:
    """Return a `.dt`'s attributes by name; large arrays are mapped.

    Raises:
        DataError: If it can't be read, or is no such object.
    """
    value = read_pickle(path, DataError)
    fields = value.state if isinstance(value, Node) else value
    if not isinstance(fields, dict):
        raise DataError(f"{path.name} is not a pickled data set", path=path)
    check_plain(fields, path)
    return fields


def _need(fields: dict[str, object], name: str, path: Path) -> object:
    if name not in fields:
        raise DataError(f"{path.name} has no attribute {name}", fix="Use the .pkl files instead.", path=path)
    return fields[name]


def _features(
    fields: dict[str, object], kind: str, path: Path, profile: Sequence[ProfileEntry], sizes: Sizes | None
) -> Features | None:
    if sizes is None:
        return None
    values, mask = _need(fields, f"{kind}_feature", path), _need(fields, f"{kind}_utterance_mask", path)
    return checked_features(values, mask, kind, path, [entry.utterance for entry in profile], sizes)


def _tokens(
    fields: dict[str, object], path: Path, profile: Sequence[ProfileEntry], plm: PlmSizes
) -> dict[str, TokenizedDialogue]:
    names = ("text_input_ids", "text_input_mask", "text_sep_mask")
    ids, mask, separators = (_matrix(_need(fields, name, path), name, path) for name in names)
    if not ids.shape == mask.shape == separators.shape:
        raise DataError(f"{path.name}: {', '.join(names)} have different shapes", path=path)
    if ids.size and not 0 <= ids.min() <= ids.max() < plm.vocab_size:
        what = f"{path.name} has token {ids.max()}, the model's vocabulary ends at {plm.vocab_size - 1}"
        raise DataError(what, fix="Use the .dt made for this language model.", path=path)
    dialogues: dict[str, TokenizedDialogue] = {}
    for entry in profile:
        if not 0 <= entry.dialogue_index < len(ids):
            raise DataError(f"{path.name} has no row {entry.dialogue_index} for {entry.dialogue}", path=path)
        if entry.dialogue not in dialogues:
            row = entry.dialogue_index
            tokens = _dialogue(ids[row], mask[row], separators[row], f"{path.name}: {entry.dialogue}", path, plm)
            dialogues[entry.dialogue] = tokens
        found = len(dialogues[entry.dialogue].lengths)
        if found != entry.dialogue_length:
            what = (
                f"{path.name}: {entry.dialogue} has {found} turns of tokens, its profile says {entry.dialogue_length}"
            )
            raise DataError(what, path=path)
    return dialogues


def _matrix(value: object, name: str, path: Path) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "iu":
        raise DataError(f"{path.name}: {name} is not a table of whole numbers", path=path)
    return value


def _dialogue(
    ids: NDArray[Any], mask: NDArray[Any], separators: NDArray[Any], name: str, path: Path, plm: PlmSizes
) -> TokenizedDialogue:
    """Find the turns of one row: each ends where the separator mask is 1, the next begins behind the separators."""
    length = int(np.count_nonzero(mask))
    ends = np.flatnonzero(separators)
    gap = SEPARATORS[plm.kind]
    if (mask != (np.arange(len(mask)) < length)).any() or length > plm.max_tokens:
        why = f"Its mask must be ones followed by zeros, at most {plm.max_tokens} ones."
        raise DataError(f"{name} has an impossible token mask", why=why, path=path)
    starts = np.concatenate([[1], ends[:-1] + gap]).astype(np.int64)
    lengths = ends - starts[: len(ends)]
    other = {"roberta": "BERT", "bert": "RoBERTa"}[plm.kind]
    if not len(ends) or ends[-1] != length - 1 or (lengths < 0).any() or not _separated(ids, ends, gap):
        what = f"{name} does not have its turns separated as {plm.kind} needs it"
        raise DataError(what, fix=f"If the file was made for {other}, use that model's checkpoint.", path=path)
    tokens = ids[:length].astype(np.int64)
    return TokenizedDialogue(tokens, tuple(starts.tolist()), tuple(lengths.tolist()))


def _separated(ids: NDArray[Any], ends: NDArray[Any], gap: int) -> bool:
    """Say whether every turn is followed by as many equal separators as the language model has between turns."""
    separator = ids[ends[0]]
    behind = ends[:-1] + 1
    doubled = (ids[behind] == separator) & ~np.isin(behind, ends)  # an empty turn's own separator does not count
    return bool((ids[ends] == separator).all() and (doubled.all() if gap == 2 else not doubled.any()))
