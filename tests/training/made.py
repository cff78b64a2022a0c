"""A small data set to train on: three splits of dialogues, labelled faces, a language model's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fmmt_deploy.types import EMOTIONS
from tests.golden import GOLDEN

PLM = GOLDEN / "roberta" / "pretrained_model" / "roberta-large"
WORDS = ("fine", "what a day", "no way", "oh no", "great, thanks", "that is awful", "go away")
SETTINGS = (
    *("model.hidden_size=24", "model.heads=2", "model.audio_layers=1", "model.vision_layers=1"),
    *("model.crossmodal_layers=1", "model.swin.embed_dim=8", "model.swin.depths=[1,1,1,1]"),
    *("model.swin.heads=[1,1,2,2]", "model.swin.feature_size=16", "model.swin.linear_size=8"),
    *("target.epochs=2", "target.batch_size=4", "target.accumulate=2", "target.learning_rate=1e-3"),
    *("faces.epochs=1", "faces.batch_size=8", "run.precision=fp32", "run.workers=0", "run.face_cache_gib=0.01"),
)
"""For a training of seconds, as `--set` takes them."""


def options(settings: Sequence[str] = SETTINGS) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def make_data(folder: Path, dialogues: int = 5, least_faces: int = 0) -> Path:
    """Writes everything; the language model has a configuration and a tokenizer, and no weights.

    A dialogue's four turns have `least_faces` faces, one more, and so on.
    """
    generator = np.random.default_rng(0)
    (folder / "faces").mkdir(parents=True)
    for index in range(6):
        pixels = generator.integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / "faces" / f"{index}.png"), pixels)
    for split in ("train", "val", "test"):
        lines = [json.dumps(dialogue(folder, split, row, least_faces, generator)) for row in range(dialogues)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    make_aux(folder / "affwild2", generator)
    make_plm(folder / "plm")
    return folder


def dialogue(folder: Path, split: str, row: int, least_faces: int, generator: np.random.Generator) -> dict[str, object]:
    utterances = []
    for turn in range(4):
        name, label = f"{split}{row}_{turn}", (row + 2 * turn) % 7
        faces = [f"faces/{index}.png" for index in range(least_faces + turn)]
        np.save(folder / f"{name}_audio.npy", generator.standard_normal((5, 6)).astype(np.float32) + label)
        np.save(folder / f"{name}_vision.npy", generator.standard_normal((len(faces), 8)).astype(np.float32) + label)
        found = {"id": name, "text": WORDS[label], "label": EMOTIONS[label], "faces": faces}
        utterances.append(found | {"audio": f"{name}_audio.npy", "vision": f"{name}_vision.npy"})
    return {"id": f"{split}{row}", "utterances": utterances}


def make_aux(folder: Path, generator: np.random.Generator) -> None:
    """As Aff-Wild2's folders; see `fmmt_deploy.data.affwild2`."""
    for split in ("Train_Set", "Validation_Set"):
        images, labels = folder / "cropped_aligned" / split.lower(), folder / "annotations" / "EXPR_Set" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        rows = [*range(8), -1, *range(7), 0, 3]
        text = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n" + "\n".join(map(str, rows)) + "\n"
        (labels / f"{split.lower()}.txt").write_text(text)
        for frame in range(1, len(rows) + 1):
            cv2.imwrite(str(images / f"{frame:05d}.jpg"), generator.integers(0, 255, (40, 40, 3), np.uint8))


def make_plm(folder: Path) -> None:
    folder.mkdir()
    for path in PLM.iterdir():
        if path.suffix in (".json", ".txt") and path.name != "config.json":
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((PLM / "config.json").read_text())
    config |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
