"""`fmmt train` as a user has it: trains, goes on, exports; says what is wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli.train import FOR_THE_MAIN_ONE
from fmmt_deploy.errors import UnstableError
from fmmt_deploy.training.folder import claimed
from fmmt_deploy.training.recipes import read_effective
from fmmt_deploy.types import EMOTIONS
from tests.cli.running import FMMT, REPOSITORY, exit_code, in_own_process
from tests.training.made import make_data, options

RECIPE = str(REPOSITORY / "training" / "roberta.toml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("made") / "data", dialogues=2)


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    aux = ["--aux-data", str(data / "affwild2"), "--from-scratch", "--device", "cpu"]
    return ["train", "--config", RECIPE, "--data", str(data), *aux, *options(), "-o", str(out), *more]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert exit_code(*arguments(data, out, "--ablate", "-q")) == 0
    return out


def test_a_run_has_all_that_is_promised(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    shown = {"log.jsonl", "tensorboard", "curves.png", "evaluation.json", "ablation.json", "model-card.md"}
    assert names == {"settings.toml", "best", "state", *shown}
    checkpoint = {"config.json", "model.safetensors", "tokenizer.json", "model-card.md"}
    assert {path.name for path in (run / "best").iterdir()} == checkpoint
    document = json.loads((run / "evaluation.json").read_text())
    assert document["schema"] == "fmmt.training-evaluation/1"
    assert document["epochs"] == 2
    assert document["checkpoint"] == "best"
    assert str(run.parent) not in (run / "evaluation.json").read_text()
    assert document["best_epoch"] in (1, 2)
    for split in ("val", "test"):
        assert document["scores"][split]["none"]["utterances"] == 8
        assert document["scores"][split]["gumbel"]["spread"]["weighted_f1"]["seeds"] == 5
    ablation = json.loads((run / "ablation.json").read_text())
    assert ablation["schema"] == "fmmt.ablation/1"
    assert ablation["full_f1"] == document["scores"]["test"]["none"]["weighted_f1"]
    assert [left["without"] for left in ablation["left"]] == ["text", "audio", "vision", "other turns"]
    text = (run / "settings.toml").read_text()
    assert "epochs = 2  # --set" in text
    assert "seed = 1111  # recipe roberta.toml" in text
    assert "limit = 0  # default" in text


def test_scores_are_those_of_fmmt_eval(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so `fmmt export --ckpt RUN/best` needs nothing else."""
    bundle = tmp_path / "bundle"
    assert exit_code("export", "--ckpt", str(run / "best"), "-o", str(bundle), "-q") == 0
    assert Bundle.open(bundle).manifest.architecture.modality == "T+A+V"
    capsys.readouterr()
    options = ["--noise", "gumbel", "--seeds", "5", "--json", "-q"]
    assert exit_code("eval", "-b", str(bundle), "--data", str(data), "--split", "test", *options) == 0
    found = json.loads(capsys.readouterr().out)["modes"][0]["spread"]["weighted_f1"]["mean"]
    told = json.loads((run / "evaluation.json").read_text())["scores"]["test"]["gumbel"]["spread"]["weighted_f1"]
    assert found == pytest.approx(told["mean"], abs=1e-12)


def test_the_runs_own_folder_is_no_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--ckpt", str(run), "-o", str(tmp_path / "bundle")) == 8
    assert f"Give {run / 'best'}." in capsys.readouterr().err


def test_a_finished_run_is_scored_again(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, log = (run / "best" / "model.safetensors").read_bytes(), (run / "log.jsonl").read_text()
    before = json.loads((run / "evaluation.json").read_text())
    assert exit_code(*arguments(data, run, "--resume", "--json")) == 0
    shown = capsys.readouterr()
    assert "finished already" in shown.err
    document = json.loads(shown.out)
    assert document["scores"] == before["scores"]
    assert document["settings"]["target.epochs"] == {"value": "2", "source": "--set"}
    assert document["next"] == f"fmmt export --ckpt {run / 'best'} -o BUNDLE"
    assert (run / "best" / "model.safetensors").read_bytes() == weights
    assert (run / "log.jsonl").read_text().startswith(log)


@pytest.mark.parametrize("emotion", ["joy", "neutral"])  # two, as another model may happen to say only one
def test_what_is_scored_is_the_best_checkpoint(emotion: str, run: Path, data: Path, tmp_path: Path) -> None:
    """One that always says the same; expected values: scikit-learn's."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    weights = load_file(out / "best" / "model.safetensors")
    weights["fusion.classifier.weight"].fill(0)
    weights["fusion.classifier.bias"][:] = np.eye(7)[EMOTIONS.index(emotion)]
    save_file(weights, out / "best" / "model.safetensors")
    assert exit_code(*arguments(data, out, "--resume", "-q")) == 0
    lines = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    labels = [utterance["label"] for line in lines for utterance in line["utterances"]]
    scores = json.loads((out / "evaluation.json").read_text())["scores"]["test"]
    expected = f1_score(labels, [emotion] * len(labels), average="weighted", zero_division=0)
    assert scores["none"]["weighted_f1"] == pytest.approx(expected)
    assert scores["gumbel"]["spread"]["weighted_f1"]["mean"] == pytest.approx(expected)


def test_a_run_is_gone_on_with_by_its_own_settings(run: Path, data: Path) -> None:
    options = ["--data", str(data), "--aux-data", str(data / "affwild2"), "--from-scratch", "--device", "cpu"]
    assert exit_code("train", *options, "-o", str(run), "--resume", "-q") == 0


def test_a_run_is_gone_on_with_by_the_same_only(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "settings.toml").read_text()
    assert exit_code(*arguments(data, run, "--resume", "--set", "target.clip=2", "-q")) == 2
    assert "target.clip was 0.8, is 2.0" in capsys.readouterr().err
    assert (run / "settings.toml").read_text() == before
    assert exit_code(*arguments(data, run, "-q")) == 2
    assert "holds a training" in capsys.readouterr().err


def test_killed_and_gone_on_with_is_as_if_never_killed(run: Path, data: Path, tmp_path: Path) -> None:
    """The command's own part: a run killed while it trains is taken up by the same command with --resume."""
    out = tmp_path / "run"
    command = [*FMMT, *arguments(data, out, "--set", "run.save_minutes=0")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            log = out / "log.jsonl"
            if log.is_file() and '"step"' in log.read_text():
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert exit_code(*arguments(data, out, "--set", "run.save_minutes=0", "--resume", "-q")) == 0
    name = "best/model.safetensors"
    assert (out / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("v-only", ["model.hidden_size=24", "model.heads=2", "target.epochs=1", "run.precision=fp32", "run.workers=0"]),
        ("roberta", ["model.context=past", "target.order=dialogues", "target.moves_faces=true", "faces.epochs=0"]),
    ],
)
def test_other_models_train_and_export(recipe: str, changes: list[str], tmp_path: Path) -> None:
    data, out = make_data(tmp_path / "data", dialogues=1, least_faces=1), tmp_path / "run"
    own = [] if recipe == "v-only" else ["--from-scratch", *options()]
    path = str(REPOSITORY / "training" / f"{recipe}.toml")
    command = ["train", "--config", path, "--data", str(data), *own, *options(changes), "-o", str(out)]
    assert exit_code(*command, "--device", "cpu", "-q") == 0
    assert exit_code("export", "--ckpt", str(out / "best"), "-o", str(tmp_path / "bundle"), "-q") == 0
    architecture = Bundle.open(tmp_path / "bundle").manifest.architecture
    assert architecture.modality == ("V" if recipe == "v-only" else "T+A+V")
    assert architecture.context == ("dialogue" if recipe == "v-only" else "past")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("val.jsonl", "joy", "anger", "the data of validation differ"),
        ("train.jsonl", "joy", "anger", "the data of target differ"),
        ("plm/vocab.json", '"<unk>"', '"<unknown>"', "the data of the tokenizer differ"),
    ],
)
def test_a_run_is_gone_on_with_by_the_same_data_only(
    file: str,
    old: str,
    new: str,
    message: str,
    run: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "data"
    shutil.copytree(data, other)
    text = (other / file).read_text()
    assert old in text
    (other / file).write_text(text.replace(old, new))
    assert exit_code(*arguments(other, run, "--resume", "-q")) == 2
    assert message in capsys.readouterr().err


def test_a_run_whose_best_is_gone(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "best").rename(out / ".best.old")  # as a kill between two renames leaves it
    assert exit_code(*arguments(data, out, "--resume", "-q")) == 0
    shutil.rmtree(out / "best")
    assert exit_code(*arguments(data, out, "--resume", "-q")) == 8
    assert "best checkpoint was.\n  fix: Put it back" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--resume", "--force"])
def test_a_run_at_which_another_process_works(
    option: str, run: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmmt_deploy.training.folder.PATIENCE_S", 0.0)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    with claimed(run):
        assert exit_code(*arguments(data, run, option, "-q")) == 2
    assert f"Another training is at work in {run}" in capsys.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_a_run_without_a_state_begins_anew(run: Path, data: Path, tmp_path: Path) -> None:
    """With the settings that are given now, whatever those were that it was killed with."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "settings.toml").write_text((run / "settings.toml").read_text())
    (out / "log.jsonl").write_text('{"torn')
    assert exit_code(*arguments(data, out, "--resume", "--set", "target.epochs=1", "-q")) == 0
    assert read_effective(out / "settings.toml").settings.target.epochs == 1


def test_dry_run_shows_and_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments(data, tmp_path / "run", "--dry-run", "-q")) == 0
    shown = capsys.readouterr().out
    assert re.search(r"target\.epochs +2 +--set", shown)
    assert re.search(r"run\.seed +1111 +recipe roberta\.toml", shown)
    assert re.search(r"target phase +2 steps", shown)
    assert re.search(r"audio +5 rows of 6 numbers\nvision +3 rows of 8 numbers", shown)
    assert "note: the Swin begins with random weights" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "target.epoch=2"], "did you mean target.epochs?"),
        (["--set", "run.precision=fp16"], "A CPU can't train in fp16"),
        (["--config", "nothing.toml"], "nothing.toml can't be read"),
        (["--plm-dir", "nowhere"], "config.json does not exist"),
        (["--swin-weights", "nothing.pt"], "There is no file nothing.pt"),
        (["--resume", "--force"], "both make no sense"),
    ],
)
def test_what_is_wrong_is_said(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments(data, tmp_path / "run", *more)) in (2, 8)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_recipe(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("train", "--data", str(data), "-o", str(tmp_path / "run")) == 2
    assert "--config FILE" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(data: Path, tmp_path: Path) -> None:
    block = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'accelerate' else find(name, *more)"
    )
    done = in_own_process(block, *arguments(data, tmp_path / "run"))
    assert done.returncode == 3
    assert 'accelerate.\n  fix: pip install "fmmt-deploy[train]"' in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "waits"), [(KeyboardInterrupt(), 130, 0), (UnstableError("The loss is not finite."), 7, 1)]
)
def test_other_processes_let_the_main_one_speak(
    error: BaseException,
    code: int,
    waits: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which ends them meanwhile; one that failed alone is not ended, and speaks."""

    def fail(*_: object, **__: object) -> None:
        raise error

    slept: list[float] = []
    monkeypatch.setattr("fmmt_deploy.cli.train.time.sleep", slept.append)
    monkeypatch.setattr("fmmt_deploy.training.run.run_training", fail)
    assert exit_code(*arguments(data, tmp_path / "run", "-q")) == code
    assert "error: " in capsys.readouterr().err
    assert not slept
    monkeypatch.setenv("RANK", "1")
    assert exit_code(*arguments(data, tmp_path / "run", "-q")) == code
    assert slept == [FOR_THE_MAIN_ONE] * waits
    assert ("error: " in capsys.readouterr().err) == bool(waits)


@pytest.mark.parametrize("fails", [False, True])
def test_two_processes_speak_once(fails: bool, data: Path, tmp_path: Path) -> None:
    """Started as a user would start them; the second process says nothing."""
    extra = ["--set", "target.batch_size=0"] if fails else []
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    extra += ["--set", "target.epochs=1", "--set", "target.order=utterances", "--set", "target.batch_size=1"] * (
        not fails
    )
    command = [*torchrun, *FMMT, *arguments(data, tmp_path / "run", *extra)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    text = done.stdout + done.stderr
    if fails:
        assert done.returncode != 0
        assert text.count("target.batch_size should be 1 or more") == 1
    else:
        assert done.returncode == 0, text
        assert done.stdout.count("best epoch: 1 of 1") == 1
        assert "fewer than the 2 processes" in (tmp_path / "run" / "log.jsonl").read_text()
        assert done.stderr.count("scoring the best epoch") == done.stderr.count("target.batch_size  ") == 1
        assert (tmp_path / "run" / "best" / "model.safetensors").is_file()
