"""The demo's files against the golden ones: same formats, same classes."""

import csv
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.data.content import content_of
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.pickles import Node, read_pickle
from fmmt_deploy.demo import DemoPaths
from fmmt_deploy.reference.checkpoints import read_checkpoints
from fmmt_deploy.reference.loading import model_from_checkpoint
from fmmt_deploy.types import EMOTIONS
from tests.golden import GOLDEN


def module_classes(path: Path) -> set[str]:
    """Classes of the modules in a checkpoint that hold weights, themselves or below them."""

    def walk(node: Node) -> Iterator[str]:
        children = [child for child in node.state["_modules"].values() if isinstance(child, Node)]
        below = [name for child in children for name in walk(child)]
        if below or node.state["_parameters"]:
            yield node.name
        yield from below

    return set(walk(read_pickle(path)))


@pytest.mark.parametrize(
    ("name", "golden_name"),
    [
        ("multimodal", "FacialMMT-RoBERTa/multimodal_T+A+V_RoBERTa.pt"),
        ("swin", "FacialMMT-RoBERTa/best_swin_RoBERTa_structure.pt"),
        ("unimodal", "FacialMMT-unimodal/unimodal_model_V.pt"),
    ],
)
def test_checkpoints_are_made_of_the_published_classes(demo: DemoPaths, name: str, golden_name: str) -> None:
    ours = module_classes(getattr(demo, name))
    published = module_classes(GOLDEN / "roberta" / "pretrained_model" / golden_name)
    # Classes of the same weights that we keep as PyTorch's own LayerNorm, or under one of two equal names.
    published -= {"modules.Transformer.LayerNorm", "modules.Transformer.Residual_Norm"}
    assert published <= ours
    assert ours - published <= {"torch.nn.modules.normalization.LayerNorm", "torch.nn.modules.module.Module"}


def test_stand_in_classes_leave_no_trace(demo: DemoPaths) -> None:
    assert demo.multimodal.is_file()
    assert not [name for name in sys.modules if name.split(".")[0] in ("modules", "src", "lightning_lite")]


def test_data_set_has_the_published_files(demo: DemoPaths) -> None:
    golden = GOLDEN / "roberta"
    wanted = {
        str(path.relative_to(golden))
        for folder in ("meld", "preprocess_data")
        for path in (golden / folder).rglob("*")
        if path.is_file() and path.suffix != ".dt"
    }
    assert wanted <= {str(path.relative_to(demo.data)) for path in demo.data.rglob("*")}


def test_files_agree_with_each_other(demo: DemoPaths) -> None:
    folder = demo.data / "preprocess_data" / "T+A+V"
    with (demo.data / "meld" / "test_sent_emo.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ids = [f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}" for row in rows]
    texts = json.loads((demo.data / "meld" / "test_text.json").read_text(encoding="utf-8"))
    assert [(name, text["txt"][0]) for name, text in texts.items()] == list(
        zip(ids, [row["Utterance"] for row in rows], strict=True)
    )
    profiles = json.loads((folder / "test_utt_profile.json").read_text(encoding="utf-8"))
    faces = json.loads((folder / "test_facseqs_160_paths_final.json").read_text(encoding="utf-8"))
    audio = pickle.loads((folder / "meld_test_audio_utt.pkl").read_bytes())["test"]
    vision = pickle.loads((folder / "meld_test_vision_utt.pkl").read_bytes())["test"]
    emotion = {name: row["Emotion"] for name, row in zip(ids, rows, strict=True)}
    assert [EMOTIONS[label] for label in vision["labels"]] == [emotion[row[0]] for row in profiles.values()]
    assert np.array_equal(audio["labels"], vision["labels"])
    limit = vision["vision"].shape[1]
    assert vision["vision_utt_mask"].sum(1).tolist() == [min(len(faces[row[0]]), limit) for row in profiles.values()]
    assert not audio["audio"][audio["audio_utt_mask"] == 0].any()
    assert all((demo.data / path).is_file() for paths in faces.values() for path in paths)


def test_faces_come_smaller_larger_and_of_the_models_size(demo: DemoPaths) -> None:
    sizes = {cv2.imread(str(path)).shape[:2] for path in (demo.data / "faces").glob("test_*.jpg")}
    assert sizes == {(160, 160), (224, 224), (300, 300)}


def test_splits_are_large_enough_and_share_no_content(demo: DemoPaths) -> None:
    checkpoints = read_checkpoints(demo.checkpoint, plm_dir=demo.plm)
    architecture = model_from_checkpoint(checkpoints, tau=1.0, threshold=0.2).architecture
    splits = {split: read_data(demo.data, split, architecture) for split in ("train", "val", "test")}
    assert len(splits["val"].dialogues) >= 24
    assert len(splits["test"].dialogues) >= 60
    assert len(splits["test"].order) >= 400
    assert all({u.label for d in split.dialogues for u in d.utterances} == set(range(7)) for split in splits.values())
    digests = {name: {d for content in content_of(split) for d in content.digests} for name, split in splits.items()}
    assert all(len(found) > 3 * len(splits[name].order) for name, found in digests.items())  # audio, faces, words
    assert digests["val"].isdisjoint(digests["test"])
    assert digests["train"].isdisjoint(digests["val"] | digests["test"])


def test_vision_only_checkpoint_has_learned(demo: DemoPaths) -> None:
    import torch

    model = model_from_checkpoint(read_checkpoints(demo.unimodal), tau=1.0, threshold=0.2)
    data = pickle.loads((demo.data / "preprocess_data" / "V" / "meld_test_vision_utt.pkl").read_bytes())["test"]
    assert data["vision_utt_mask"].any(1).all()
    inputs = {"vision": torch.from_numpy(data["vision"]), "vision_mask": torch.from_numpy(data["vision_utt_mask"])}
    answers = model.run("unimodal", inputs)["logits"].argmax(1).numpy()
    labels = data["labels"]
    by_chance = f1_score(labels, np.full_like(labels, np.bincount(labels).argmax()), average="weighted")
    assert f1_score(labels, answers, average="weighted") > 2 * by_chance
