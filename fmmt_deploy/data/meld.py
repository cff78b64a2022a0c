"""Reads the published layout: `.pkl` features, `.json` words, faces and profiles, and MELD's own CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.annotations import (
    Annotation,
    ProfileEntry,
    parsed_faces,
    parsed_json,
    parsed_profile,
    read_annotations,
    read_file,
    read_texts,
)
from fmmt_deploy.data.assembly import agreed_labels, assembled, audio_sizes, checked_faces, vision_sizes
from fmmt_deploy.data.features import Features, Sizes, checked_features, checked_labels
from fmmt_deploy.data.layout import FaceFinder, FileIndex
from fmmt_deploy.data.pickles import read_arrays
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import EMOTIONS, DataSet

__all__ = ["csv_names", "pickle_name", "read_meld", "split_arrays"]

_FOLDER = "T+A+V"
_WITHOUT_FEATURES = {"train": "dia125_utt3", "val": "dia110_utt7", "test": "dia220_utt0"}
"""MELD's utterances whose clips are broken: in its CSV, but not among the published features."""


def csv_names(split: str) -> tuple[str, ...]:
    """Return the names a split's CSV may have; MELD calls the validation split `dev`."""
    return (f"{split}_sent_emo.csv", "dev_sent_emo.csv") if split == "val" else (f"{split}_sent_emo.csv",)


def read_meld(files: FileIndex, split: str, architecture: Architecture, faces_dir: Path | None = None) -> DataSet:
    """Read a split in the published layout.

    Args:
        files: The folder's files.
        split: train, val or test.
        architecture: What the model expects.
        faces_dir: Where the face images are, if not where the data set lists them.

    Raises:
        DataError: If a file is missing or damaged, or files contradict each other or the model.
    """
    if architecture.modality == "V":
        return _read_vision_only(files, split, architecture)
    path = files.need([f"{split}_utt_profile.json"], [_FOLDER])
    profile = parsed_profile(parsed_json(read_file(path), path.name, path), path.name, path)
    csv_path = files.need(csv_names(split))
    annotations = read_annotations(csv_path)
    audio, audio_labels = _features(files, split, "audio", [_FOLDER], profile, audio_sizes(architecture))
    vision, vision_labels = _features(files, split, "vision", [_FOLDER], profile, vision_sizes(architecture))
    labels = agreed_labels(profile, _csv_labels(csv_path, annotations), *audio_labels, *vision_labels)
    texts = _texts(files.need([f"{split}_text.json"]), profile, annotations)
    path = files.need([f"{split}_facseqs_160_paths_final.json"], [_FOLDER])
    listed = parsed_faces(parsed_json(read_file(path), path.name, path), path.name, path)
    faces = checked_faces(profile, listed, vision, FaceFinder(files.root, faces_dir), path)
    return assembled(files.root, profile, audio, vision, faces, labels, texts)


def _read_vision_only(files: FileIndex, split: str, architecture: Architecture) -> DataSet:
    path = files.need([pickle_name(split, "vision")], ["V", _FOLDER])
    csv_path, profile_path = files.find(csv_names(split)), files.find([f"{split}_utt_profile.json"], [_FOLDER])
    annotations = () if csv_path is None else read_annotations(csv_path)
    if profile_path is not None:
        text = read_file(profile_path)
        profile = parsed_profile(parsed_json(text, profile_path.name, profile_path), profile_path.name, profile_path)
    elif csv_path is not None:
        profile = _profile_from_csv(annotations, split)
    else:
        profile = _profile_of_rows(split_arrays(path, split))
    vision, labels = _features(files, split, "vision", ["V", _FOLDER], profile, vision_sizes(architecture))
    given = [] if csv_path is None else [_csv_labels(csv_path, annotations)]
    no_faces: list[tuple[Path, ...]] = [()] * len(profile)
    return assembled(files.root, profile, None, vision, no_faces, agreed_labels(profile, *given, *labels), {})


def pickle_name(split: str, kind: str) -> str:
    """Return the name of a split's file of audio or vision features."""
    return f"meld_{split}_{kind}_utt.pkl"


def _features(
    files: FileIndex,
    split: str,
    kind: str,
    folders: Sequence[str],
    profile: Sequence[ProfileEntry],
    sizes: Sizes | None,
) -> tuple[Features, list[tuple[Path, Mapping[str, int]]]]:
    """Return a pickle's features, and its labels if it has any."""
    if sizes is None:
        raise DataError(f"this model takes no {kind} features, so no data set fits it")
    path = files.need([pickle_name(split, kind)], folders)
    arrays = split_arrays(path, split)
    utterances = [entry.utterance for entry in profile]
    if kind not in arrays or f"{kind}_utt_mask" not in arrays:
        raise DataError(f"{path.name} has no {kind} or no {kind}_utt_mask", path=path)
    features = checked_features(arrays[kind], arrays[f"{kind}_utt_mask"], kind, path, utterances, sizes)
    if "labels" not in arrays:
        return features, []
    labels = checked_labels(arrays["labels"], path, len(profile), len(EMOTIONS))
    return features, [(path, dict(zip(utterances, labels, strict=True)))]


def split_arrays(path: Path, split: str) -> dict[str, object]:
    """Return what such a file holds, by name; large arrays are mapped.

    Raises:
        DataError: If it can't be read, or holds anything else.
    """
    content = read_arrays(path)
    arrays = content.get(split) if isinstance(content, dict) else None
    if not isinstance(arrays, dict):
        raise DataError(f'{path.name} is not {{"{split}": {{arrays by name}}}}', path=path)
    return arrays


def _csv_labels(path: Path, annotations: Sequence[Annotation]) -> tuple[Path, Mapping[str, int]]:
    return path, {annotation.utterance: annotation.label for annotation in annotations}


def _texts(
    path: Path, profile: Sequence[ProfileEntry], annotations: Sequence[Annotation]
) -> dict[str, tuple[str, ...]]:
    """Return each dialogue's texts, in the order of the CSV.

    An utterance without features may have stayed in its dialogue: the profile's dialogue length says whether it did.
    """
    texts = read_texts(path)
    featured = {entry.utterance for entry in profile}
    missing = next((name for name in (entry.utterance for entry in profile) if name not in texts), None)
    if missing is not None:
        raise DataError(f"{path.name} has no {missing}", path=path)
    turns: dict[str, list[str]] = {}
    for annotation in annotations:
        if annotation.utterance in texts:
            turns.setdefault(annotation.dialogue, []).append(annotation.utterance)
    for entry in profile:
        names = turns.get(entry.dialogue, [])
        if len(names) != entry.dialogue_length:
            turns[entry.dialogue] = names = [name for name in names if name in featured]
        if len(names) != entry.dialogue_length or names[entry.position] != entry.utterance:
            what = f"{entry.utterance} should be turn {entry.position} of {entry.dialogue_length} of {entry.dialogue}"
            why = f"The CSV and {path.name} give that dialogue {len(names)} turns, in another order or number."
            raise DataError(what, why=why, fix="All files must be of one release.", path=path)
    return {dialogue: tuple(texts[name] for name in names) for dialogue, names in turns.items()}


def _profile_from_csv(annotations: Sequence[Annotation], split: str) -> tuple[ProfileEntry, ...]:
    kept = [annotation for annotation in annotations if annotation.utterance != _WITHOUT_FEATURES.get(split)]
    turns: dict[str, list[str]] = {}
    for annotation in kept:
        turns.setdefault(annotation.dialogue, []).append(annotation.utterance)
    rows = {dialogue: index for index, dialogue in enumerate(turns)}
    places = {name: position for names in turns.values() for position, name in enumerate(names)}
    return tuple(
        ProfileEntry(a.utterance, a.dialogue, rows[a.dialogue], len(turns[a.dialogue]), places[a.utterance])
        for a in kept
    )


def _profile_of_rows(arrays: Mapping[str, object]) -> tuple[ProfileEntry, ...]:
    """With neither profile nor CSV, every row is a dialogue of its own, named by its index."""
    shape: tuple[int, ...] = getattr(arrays.get("vision"), "shape", ()) or (0,)
    return tuple(ProfileEntry(f"utt{index}", f"dia{index}", index, 1, 0) for index in range(shape[0]))
