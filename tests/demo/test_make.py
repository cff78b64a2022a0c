"""Making the demo's data: whole or not at all, the same for the same seed, and nothing of anybody else's replaced."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from fmmt_deploy.data.affwild2 import read_affwild2
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.demo import DemoPaths, make, make_demo_data
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.reference.checkpoints import read_checkpoints
from fmmt_deploy.types import EMOTIONS
from tests.cli.running import exit_code
from tests.golden import GOLDEN


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything, to be quick."""
    monkeypatch.setattr(make, "DIALOGUES", {"test": 3, "train": 3, "val": 3})
    monkeypatch.setattr(make, "VIDEOS", {"Train_Set": (2, 20), "Validation_Set": (1, 10)})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("few")
def test_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_demo_data(tmp_path / name, "bert", seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() & other.keys() > {
        "meld/test_sent_emo.csv",
        "affwild2/annotations/EXPR_Set/Train_Set/train-1.txt",
    }
    assert first["meld/test_sent_emo.csv"] != other["meld/test_sent_emo.csv"]
    assert first["language-model/vocab.txt"] == other["language-model/vocab.txt"]


@pytest.mark.usefixtures("few")
def test_models_are_the_same_for_every_seed(tmp_path: Path, demo: DemoPaths) -> None:
    made = make_demo_data(tmp_path / "other", seed=5, models=True)
    assert made.checkpoint is not None
    mine, theirs = (read_checkpoints(path) for path in (made.checkpoint, demo.checkpoint))
    assert mine.parts.keys() == {"swin", "plm", "fusion"}
    for part, tensors in mine.parts.items():
        assert all(np.array_equal(tensor, theirs.parts[part][name]) for name, tensor in tensors.items())


@pytest.mark.usefixtures("few")
def test_only_what_was_made_here_is_replaced_and_only_if_asked(tmp_path: Path) -> None:
    target, foreign = tmp_path / "demo", tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError, match="was not made by fmmt make-demo-data"):
        make_demo_data(foreign, force=True)
    assert contents(foreign) == {"thesis.txt": b"years of work"}
    make_demo_data(target, seed=1)
    before = contents(target)
    with pytest.raises(UsageError, match="Add --force"):
        make_demo_data(target, seed=2)
    assert contents(target) == before
    make_demo_data(target, "bert", seed=2, force=True)
    assert "language-model/vocab.json" in before.keys() - contents(target).keys()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, code: int) -> None:
    make_demo_data(tmp_path / "demo", seed=1)
    before, written = contents(tmp_path), Path.write_bytes
    left = iter(range(9))

    def write(path: Path, data: bytes) -> int:
        if next(left, None) is None:
            written(path, data[: len(data) // 2])
            raise OSError(code, os.strerror(code), str(path))
        return written(path, data)

    with patch.object(Path, "write_bytes", write), pytest.raises(EnvironmentProblem, match=r"no room|can't be written"):
        make_demo_data(tmp_path / "demo", seed=2, force=True)
    assert contents(tmp_path) == before


def test_killed_in_the_middle_nothing_is_there_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = f"""
import os, signal
from fmmt_deploy.demo import dataset, make
make.DIALOGUES = {{"test": 3, "train": 3, "val": 3}}
make._write_faces = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
make.make_demo_data(__import__("pathlib").Path({str(tmp_path / "demo")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "demo").exists()
    assert list(tmp_path.iterdir())  # half of it, under another name
    with (
        patch.object(make, "DIALOGUES", {"test": 3}),
        patch.object(make, "VIDEOS", {"Train_Set": (1, 5)}),
    ):
        make_demo_data(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_labelled_faces_are_read_with_all_that_is_left_out(demo: DemoPaths) -> None:
    for split, least in (("train", 1200), ("val", 100)):
        found = read_affwild2(demo.data / "affwild2", split)  # type: ignore[arg-type]
        assert len(found.paths) >= least
        assert set(found.labels.tolist()) == set(range(len(EMOTIONS)))
        assert split == "val" or all(found.skipped.values())
    header = (demo.data / "affwild2" / "annotations" / "EXPR_Set" / "Train_Set" / "train-1.txt").read_text("utf-8")
    assert header.splitlines()[0] == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


@pytest.mark.parametrize("plm", ["roberta", "bert"])
@pytest.mark.usefixtures("few")
def test_language_model_has_no_weights_and_all_else(tmp_path: Path, plm: str) -> None:
    made = make_demo_data(tmp_path / "demo", plm)  # type: ignore[arg-type]
    golden = GOLDEN / plm / "pretrained_model" / f"{plm}-large"
    names = {path.name for path in made.language_model.iterdir()}
    assert "config.json" in names <= {path.name for path in golden.iterdir()}
    own, theirs = (json.loads((folder / "config.json").read_text("utf-8")) for folder in (made.language_model, golden))
    assert own["model_type"] == theirs["model_type"] == plm
    same = ("type_vocab_size", "layer_norm_eps", "max_position_embeddings", "pad_token_id")
    assert {name: own[name] for name in same} == {name: theirs[name] for name in same}
    tokens = json.loads(tokenizer_json(made.language_model, plm))["model"]["vocab"]  # type: ignore[arg-type]
    assert max(tokens.values()) < own["vocab_size"]


@pytest.mark.usefixtures("few")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "deep" / "demo")
    assert exit_code("make-demo-data", "-o", target, "--json", "-q") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "fmmt.make-demo-data/1"
    assert Path(document["affwild2"]).is_dir()
    assert Path(document["trained"], "model.safetensors").is_file()
    assert document["bytes"] == sum(map(len, contents(Path(target)).values()))
    assert exit_code("make-demo-data", "-o", target, "-q") == 2
    assert "Add --force" in capsys.readouterr().err
    assert exit_code("make-demo-data", "-o", target, "--plm", "gpt") == 2
    assert exit_code("make-demo-data", "-o", str(tmp_path / "x"), "--seed", "-1") == 2
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert exit_code("make-demo-data", "-o", str(tmp_path / "file" / "demo"), "-q") == 3
