"""What can fail fails before the first step, and is said in words."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.errors import CheckpointError, DataError, EnvironmentProblem, FmmtError, UsageError
from fmmt_deploy.training.preparing import Prepared, Request, prepare
from fmmt_deploy.training.recipes import effective_from_toml
from tests.training.made import SETTINGS, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("made") / "data", dialogues=2)


def request_of(data: Path, *settings: str, **changes: Any) -> Request:
    effective = effective_from_toml("", "r.toml", [*SETTINGS, *settings])
    whole = {"aux_data": data / "affwild2", "from_scratch": True, "device": "cpu", **changes}
    return Request(effective, data, data.parent / "run", **whole)


def test_everything_is_read(data: Path) -> None:
    prepared: Prepared = prepare(request_of(data))
    architecture = prepared.start.model.architecture
    assert architecture.fusion is not None
    assert (architecture.fusion.audio_length, architecture.fusion.audio_size) == (5, 6)
    assert (architecture.fusion.vision_length, architecture.fusion.vision_size) == (3, 8)
    assert prepared.test is not None
    assert [len(split.order) for split in (prepared.train, prepared.val, prepared.test)] == [8, 8, 8]
    # 8 utterances, 4 a pass, 2 passes a step, 2 epochs; 16 labelled faces, 8 a step, 1 epoch
    assert prepared.steps() == {"target": 2, "faces": 2}
    assert prepared.faces is not None
    assert {path.parent.name for path in prepared.faces.frames.paths} == {"train_set"}
    notes = " ".join(prepared.notes)
    assert "language model begins with random weights" in notes
    assert "2 of 8 utterances have no face" in notes
    assert "1 Other" in notes
    assert not (data.parent / "run").exists()


def test_without_the_faces_phase(data: Path) -> None:
    prepared = prepare(request_of(data, "faces.epochs=0", aux_data=None))
    assert prepared.faces is None
    assert prepared.steps() == {"target": 2}


def test_vision_only(tmp_path: Path) -> None:
    made = make_data(tmp_path / "data", dialogues=1, least_faces=1)
    prepared = prepare(request_of(made, "model.modality=V", "faces.epochs=0", aux_data=None, from_scratch=False))
    assert prepared.start.model.architecture.unimodal is not None
    assert prepared.start.tokenizer_json is None


def test_a_test_split_is_no_must(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "test.jsonl").unlink()
    prepared = prepare(request_of(copy))
    assert prepared.test is None
    assert any("no test split" in note for note in prepared.notes)


def without_labels(data: Path, split: str) -> None:
    path = data / f"{split}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[0]["utterances"][1]["label"]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_a_test_split_without_labels_is_said(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    without_labels(copy, "test")
    prepared = prepare(request_of(copy))
    assert prepared.test is None
    assert any("without labels" in note for note in prepared.notes)


def nan_features(data: Path) -> None:
    path = data / "train0_1_audio.npy"
    values = np.load(path)
    values[0, 0] = np.nan
    np.save(path, values)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda data: (data / "val.jsonl").unlink(), DataError, "no val split"),
        (lambda data: (data / "train.jsonl").unlink(), DataError, "no train split"),
        (lambda data: (data / "val.jsonl").write_text(""), DataError, "val"),
        (lambda data: without_labels(data, "val"), DataError, "val0_1"),
        (lambda data: without_labels(data, "train"), DataError, "train0_1"),
        (nan_features, DataError, "train0_1"),
        (lambda data: (data / "faces" / "1.png").unlink(), DataError, r"1\.png"),
        (lambda data: (data / "plm" / "config.json").unlink(), CheckpointError, r"config\.json does not exist"),
        (
            lambda data: (data / "affwild2" / "annotations" / "EXPR_Set" / "Train_Set" / "train_set.txt").unlink(),
            DataError,
            "affwild2",
        ),
    ],
)
def test_bad_data_are_refused_at_once(
    spoil: Callable[[Path], None], kind: type[FmmtError], message: str, data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    spoil(copy)
    with pytest.raises(kind, match=message):
        prepare(request_of(copy))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ([], {"aux_data": None}, r"none are given.*\n.*Aff-Wild2.*\n.*--aux-data DIR.*faces\.epochs=0"),
        (["faces.epochs=0"], {}, "no epoch trains on it"),
        ([], {"from_scratch": False}, "no weights"),
        (["run.precision=fp16"], {}, "fp16"),
        (["model.modality=V", "faces.epochs=0"], {"aux_data": None, "ablate": True}, "vision-only model"),
        (["model.modality=V", "faces.epochs=0"], {"aux_data": None, "plm_dir": Path("plm")}, "--plm-dir"),
    ],
)
def test_requests_that_make_no_sense(settings: list[str], changes: dict[str, Any], message: str, data: Path) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(request_of(data, *settings, **changes))


def test_a_disk_that_will_be_too_small(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(request_of(data))
    count = sum(parameter.numel() for parameter in prepared.start.model.parameters())
    # float32 of one checkpoint and of two states: weights and AdamW's two moments each
    needed = 4 * count + 2 * 3 * 4 * count
    usage = shutil.disk_usage(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    prepare(request_of(data))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(EnvironmentProblem, match="disk"):
        prepare(request_of(data))
    prepare(request_of(data), main=False)
    prepare(replace(request_of(data), resume=True))  # what it needs is there already


def test_one_file_is_no_data_set_to_train_on(data: Path) -> None:
    request = replace(request_of(data), data=data / "train.jsonl")
    with pytest.raises(DataError, match=r"no folder.*\n.*several splits"):
        prepare(request)
