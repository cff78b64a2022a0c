"""A data set of made-up talk that passes for real, on disk, and copies of it under other names."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.demo.dataset import write_split
from fmmt_deploy.demo.story import make_story
from fmmt_deploy.types import EMOTIONS, DataSet, Dialogue, Utterance
from tests.data.published import architecture
from tests.golden import GOLDEN

ARCHITECTURE = architecture()
DIALOGUES = {"train": 10, "test": 8}


@dataclass(frozen=True)
class Talk:
    """The demo's dialogues, `train` and `test`, in the published layout."""

    folder: Path

    @cached_property
    def train(self) -> DataSet:
        return read_data(self.folder, "train", ARCHITECTURE)

    @cached_property
    def test(self) -> DataSet:
        return read_data(self.folder, "test", ARCHITECTURE)


def write_talk(folder: Path) -> Talk:
    for split, dialogues in DIALOGUES.items():
        write_split(folder, split, make_story(split, dialogues, 6, seed=1), audio=(14, 24), vision=(6, 16), seed=1)
    return Talk(folder)


def tokenizer() -> DialogueTokenizer:
    """Of the golden model."""
    folder = GOLDEN / "roberta" / "pretrained_model" / "roberta-large"
    return DialogueTokenizer(tokenizer_json(folder, "roberta"), "roberta")


def of_dialogues(dialogues: tuple[Dialogue, ...], source: str = "memory") -> DataSet:
    return DataSet(source, dialogues, tuple(u.id for dialogue in dialogues for u in dialogue.utterances))


def relabelled(dataset: DataSet, labels: Mapping[int, int | None]) -> DataSet:
    """The same with other labels."""

    def other(u: Utterance) -> Utterance:
        return u if u.label is None else replace(u, label=labels.get(u.label, u.label))

    return of_dialogues(tuple(replace(d, utterances=tuple(map(other, d.utterances))) for d in dataset.dialogues))


def renamed(dialogues: tuple[Dialogue, ...], folder: Path) -> tuple[Dialogue, ...]:
    """The same in reverse order, under other names, without labels, their faces' files copied to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)

    def moved(utterance: Utterance, name: str) -> Utterance:
        faces = tuple(folder / f"{name}_{index}.jpeg" for index in range(len(utterance.faces)))
        for path, copy in zip(utterance.faces, faces, strict=True):
            shutil.copy(path, copy)
        return replace(utterance, id=name, label=None, faces=faces)

    return tuple(
        replace(dialogue, id=f"x{n}", utterances=tuple(moved(u, f"x{n}_{u.position}") for u in dialogue.utterances))
        for n, dialogue in enumerate(reversed(dialogues))
    )


def write_jsonl(path: Path, dialogues: tuple[Dialogue, ...]) -> Path:
    """Writes dialogues as a JSONL, their features beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def turn(dialogue: Dialogue, position: int, text: str) -> dict[str, object]:
        found = [u for u in dialogue.utterances if u.position == position]
        if not found:
            return {"id": f"{dialogue.id}_c{position}", "text": text, "target": False}
        u, name = found[0], f"{path.stem}_{found[0].id}"
        assert u.audio is not None
        assert u.vision is not None
        np.save(path.parent / f"{name}_a.npy", u.audio[: u.audio_length])
        np.save(path.parent / f"{name}_v.npy", u.vision[: u.vision_length])
        label = {} if u.label is None else {"label": EMOTIONS[u.label]}
        files = {"audio": f"{name}_a.npy", "vision": f"{name}_v.npy", "faces": [str(face) for face in u.faces]}
        return {"id": u.id, "text": text, **label, **files}

    lines = [
        json.dumps({"id": d.id, "utterances": [turn(d, position, text) for position, text in enumerate(d.texts or ())]})
        for d in dialogues
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
