"""Small data sets in every form, made from golden data, to be damaged by tests."""

import csv
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmKind, PlmSizes, SwinSizes, UnimodalSizes
from tests.golden import GOLDEN

__all__ = ["VISION_ONLY", "architecture", "copy_published", "edit_csv", "edit_json", "edit_pickle", "write_jsonl"]

VISION_ONLY = Architecture("V", unimodal=UnimodalSizes(48, 12, 6, 16, 2))


def architecture(kind: PlmKind = "roberta", **fusion: int) -> Architecture:
    """The golden models' sizes."""
    plm = PlmSizes(kind, {"roberta": 420, "bert": 293}[kind], 64, 2, 4, 128, 512, 1e-5)
    sizes = {"audio_length": 14, "audio_size": 24, "vision_length": 6, "vision_size": 16} | fusion
    fusion_sizes = FusionSizes(48, 12, 38, audio_layers=5, vision_layers=2, crossmodal_layers=2, **sizes)
    return Architecture("T+A+V", SwinSizes(), plm, fusion_sizes)


def copy_published(folder: Path, with_dt: bool = False) -> Path:
    """Copy golden/roberta's data set."""
    for part in ("meld", "preprocess_data", "faces"):
        shutil.copytree(GOLDEN / "roberta" / part, folder / part)
    if not with_dt:
        next(folder.rglob("*.dt")).unlink()
    return folder


def _one(folder: Path, name: str) -> Path:
    (path,) = (path for path in folder.rglob(name) if path.parent.name != "V")
    return path


def edit_json(folder: Path, name: str, change: Callable[[Any], object]) -> Path:
    path = _one(folder, name)
    value = json.loads(path.read_text("utf-8"))
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), "utf-8")
    return path


def edit_pickle(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    path = _one(folder, name)
    value = pickle.loads(path.read_bytes())
    change(value["test"])
    path.write_bytes(pickle.dumps(value))
    return path


def edit_csv(folder: Path, change: Callable[[list[dict[str, str]]], object]) -> Path:
    path = _one(folder, "test_sent_emo.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(folder: Path, change: Callable[[list[Any]], object] = lambda _: None) -> Path:
    """Two dialogues; the second one's first turn is context."""
    draw = np.random.default_rng(0)
    for name, rows, size in (("a", 3, 24), ("long", 20, 24), ("v1", 1, 16), ("v2", 2, 16)):
        np.save(folder / f"{name}.npy", draw.standard_normal((rows, size)).astype(np.float32))
    faces = sorted((GOLDEN / "roberta/faces").glob("*.jpg"))
    for index in range(2):
        shutil.copy(faces[index], folder / f"{index}.jpg")
    dialogues = [
        {
            "id": "d1",
            "utterances": [
                {"id": "a", "text": "Hey!", "label": "joy", "faces": ["0.jpg"], "audio": "a.npy", "vision": "v1.npy"},
                {"id": "b", "text": "", "faces": ["0.jpg", "1.jpg"], "audio": "long.npy", "vision": "v2.npy"},
            ],
        },
        {
            "id": "d2",
            "utterances": [
                {"id": "c", "text": "No.", "target": False},
                {"id": "d", "text": "Yes.", "label": "fear"},
            ],
        },
    ]
    change(dialogues)
    path = folder / "test.jsonl"
    path.write_text("\n".join(json.dumps(dialogue) for dialogue in dialogues) + "\n", "utf-8")
    return path
