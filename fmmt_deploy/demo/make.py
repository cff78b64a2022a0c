"""Makes the demo's data: a data set in the published formats, faces for the first phase, a language model's folder.

And, on request, the models that were trained on it, as the published release has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.bundle.swapping import swapped
from fmmt_deploy.demo.paths import DemoPaths, demo_paths
from fmmt_deploy.errors import UsageError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text

__all__ = ["AFFWILD2", "LANGUAGE_MODEL", "DemoData", "make_demo", "make_demo_data"]

AUDIO, VISION = (14, 24), (6, 16)
"""Rows and columns of the features."""

DIALOGUES = {"test": 64, "train": 200, "val": 24}
"""Of every split; what is said, heard and seen in one is in no other."""

VIDEOS: dict[Literal["Train_Set", "Validation_Set"], tuple[int, int]] = {
    "Train_Set": (12, 140),
    "Validation_Set": (3, 60),
}
"""Of labelled faces: how many, and frames of each."""

AFFWILD2, LANGUAGE_MODEL = "affwild2", "language-model"
"""Folders beside the published ones."""

MARKER, SCHEMA = "demo.json", "fmmt.demo-data/1"
"""By this file a folder is known to be made here."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """What was made.

    Attributes:
        folder: All of it, for `--data`.
        affwild2: Labelled faces, for `--aux-data`.
        language_model: Configuration and vocabulary, which `fmmt train` finds in `folder`.
        checkpoint: Folder with the published form of the trained model, for `--ckpt`; None if not asked for.
        utterances: With features, by split.
        bytes: Of all files.
    """

    folder: Path
    affwild2: Path
    language_model: Path
    checkpoint: Path | None
    utterances: Mapping[str, int]
    bytes: int


def make_demo(directory: Path, plm: PlmKind = "roberta", seed: int = 0) -> DemoPaths:
    """Writes data and trained models in the published formats; needs the `torch` extra.

    Args:
        directory: Where to; made if absent, an earlier demo's is replaced.
        plm: Which language model's names, formats and tokenizer.
        seed: For other dialogues and faces; the models are the same ones.
    """
    make_demo_data(directory, plm, seed, models=True, force=True)
    return demo_paths(directory, plm)


def make_demo_data(
    directory: Path, plm: PlmKind = "roberta", seed: int = 0, *, models: bool = False, force: bool = False
) -> DemoData:
    """Writes everything that `fmmt train --config training/demo.toml` reads, whole or not at all.

    Args:
        directory: Where to; made if absent.
        plm: Which language model.
        seed: For other dialogues and faces.
        models: Also the trained models, as published checkpoints; needs the `torch` extra.
        force: Whether data that were made here before are replaced; anything else never is.

    Raises:
        UsageError: Something is there that is not to be replaced.
        EnvironmentProblem: It can't be written; a full disk, for one.
    """
    check_replaceable(directory, force)
    with swapped(directory, durable=False) as folder:  # thousands of small files, to be made again in seconds
        utterances = _write_splits(folder, seed)
        _write_faces(folder / AFFWILD2, seed)
        _write_models(folder, plm, models)
        made = {"schema": SCHEMA, "seed": seed, "plm": plm, "utterances": utterances}
        (folder / MARKER).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return DemoData(
        folder=directory,
        affwild2=directory / AFFWILD2,
        language_model=directory / LANGUAGE_MODEL,
        checkpoint=demo_paths(directory, plm).checkpoint if models else None,
        utterances=utterances,
        bytes=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
    )


def check_replaceable(directory: Path, force: bool) -> None:
    """Says before any work is done whether data may be made there.

    Raises:
        UsageError: Something is there that is not to be replaced.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not _is_demo(directory):
        what = f"{directory} exists and was not made by fmmt make-demo-data, so it is never replaced."
        raise UsageError(what, fix="Give another path, or remove it yourself.", path=directory)
    if not force:
        raise UsageError(f"The demo's data {directory} exist.", fix="Add --force to replace them.", path=directory)


def _is_demo(directory: Path) -> bool:
    try:
        made = json_object_from_text((directory / MARKER).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, JsonValueError):
        return False
    return made.get("schema") == SCHEMA


def _write_splits(folder: Path, seed: int) -> dict[str, int]:
    from fmmt_deploy.demo.dataset import write_split
    from fmmt_deploy.demo.story import Run, make_story, runs_of

    said: set[Run] = set()
    counts: dict[str, int] = {}
    for split, dialogues in DIALOGUES.items():
        story = make_story(split, dialogues, VISION[0], seed, said)
        said.update(*map(runs_of, story))
        write_split(folder, split, story, audio=AUDIO, vision=VISION, seed=seed)
        counts[split] = sum(turn.has_features for turns in story for turn in turns)
    return counts


def _write_faces(folder: Path, seed: int) -> None:
    from fmmt_deploy.demo.affwild2 import write_affwild2

    for split, (videos, frames) in VIDEOS.items():
        write_affwild2(folder, split, videos, frames, seed)


def _write_models(folder: Path, plm: PlmKind, models: bool) -> None:
    from fmmt_deploy.demo.language_model import write_language_model

    write_language_model(folder / LANGUAGE_MODEL, plm)
    if models:
        from fmmt_deploy.demo.checkpoints import write_checkpoints

        paths = demo_paths(folder, plm)
        write_language_model(paths.plm, plm)
        write_checkpoints(paths, plm)
