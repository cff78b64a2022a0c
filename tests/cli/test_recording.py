"""The receipts that commands leave: what they say is so, failures leave them too, and nobody's name is in them."""

import getpass
import json
import os
import platform
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.fingerprint import fingerprint
from fmmt_deploy.parity import trial
from fmmt_deploy.receipts.kept import kept_receipts, read_receipts
from fmmt_deploy.receipts.record import Receipt, Setting
from fmmt_deploy.types import DataSet
from tests.bundle.samples import with_another_record
from tests.cli.conftest import CHECKPOINT
from tests.cli.running import exit_code
from tests.engines.tensorrt.simulated import use_simulated, write_simulated_engines


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "bundle"))


def last(bundle: Path) -> Receipt:
    return read_receipts(bundle)[-1]


def hash_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_what_export_says(tmp_path: Path) -> None:
    """Every hash by `hashlib`, of the checkpoint and of all that was made."""
    out = tmp_path / "bundle"
    assert exit_code("export", "--ckpt", str(CHECKPOINT), "-o", str(out), "--tau", "1.5", "-q") == 0
    found = last(out)
    assert {name: hashed.sha256 for name, hashed in found.inputs.items()} == {CHECKPOINT.name: hash_of(CHECKPOINT)}
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found.outputs.keys() == made - {"receipts/0001-export.json"}
    assert found.outputs == {name: hash_of(out / name) for name in found.outputs}
    assert found.settings["tau"] == Setting(1.5, "command line")
    assert found.settings["threshold"] == Setting(None, "default")
    assert not {"quiet", "json", "dry-run", "no-receipt"} & found.settings.keys()
    assert found.seconds > 0
    assert found.tools["python"] == platform.python_version()
    assert found.tools["numpy"] == np.__version__


def test_a_training_s_folder(tmp_path: Path) -> None:
    """What tells how a training went is hashed with its weights."""
    from fmmt_deploy.reference.loading import save_checkpoint
    from tests.models import tiny_model

    folder, out = tmp_path / "run", tmp_path / "bundle"
    save_checkpoint(tiny_model("unimodal"), folder)
    for name in ("settings.toml", "model-card.md", "evaluation.json"):
        (folder / name).write_text(name)
    assert exit_code("export", "--ckpt", str(folder), "-o", str(out), "-q") == 0
    assert {name: hashed.sha256 for name, hashed in last(out).inputs.items()} == {
        path.name: hash_of(path) for path in folder.iterdir()
    }


def test_the_shown_result_names_the_receipt(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("parity", "-b", str(bundle), "--json", "-q") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("receipt") == "receipts/0009-parity.json"
    assert shown == last(bundle).result


def test_data_noise_and_seeds(bundle: Path, recorded: Path) -> None:
    talk = recorded.parent / "talk"
    on_data = ("--data", str(talk), "--split", "train", "--limit", "3", "--noise", "gumbel", "--seed", "7")
    assert exit_code("parity", "-b", str(bundle), *on_data, "-q") == 0
    found = last(bundle)
    dataset = read_data(talk, "train", Bundle.open(bundle).manifest.architecture)
    dialogues = dataset.dialogues[:3]
    chosen = {u.id for dialogue in dialogues for u in dialogue.utterances}
    limited = DataSet("", dialogues, tuple(name for name in dataset.order if name in chosen))
    assert found.inputs["data"].sha256 == fingerprint(limited)
    assert found.seeds == {"noise": (7,)}


def test_settings_from_a_recipe(bundle: Path, recorded: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[precision]\nunimodal = "int8"\n\n[calibration]\nmethod = "max"\ndialogues = 3\nseed = 5\n')
    asked = ("--recipe", str(recipe), "--seed", "6", "--allow-small", "--split", "train", "-q")
    assert exit_code("calibrate", "-b", str(bundle), "--data", str(recorded.parent / "talk"), *asked) == 0
    found = last(bundle)
    assert found.settings["method"] == Setting("max", "recipe mine.toml")
    assert found.settings["seed"] == Setting(6, "command line")
    assert found.seeds == {"dialogues": (6,)}
    assert found.inputs["mine.toml"].sha256 == hash_of(recipe)
    assert found.outputs["receipts/calibration-unimodal-int8.json"] == hash_of(
        bundle / "receipts/calibration-unimodal-int8.json"
    )


def test_a_failure_leaves_a_receipt(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = with_another_record(recorded, tmp_path / "other")
    assert exit_code("parity", "-b", str(bundle), "--reference", "recorded", "--json", "-q") == 4
    found = last(bundle)
    assert (found.verdict, found.exit_code, found.result["passed"]) == ("failed", 4, False)
    shown = json.loads(capsys.readouterr().out)
    assert shown["receipt"] == "receipts/0001-parity.json"


def test_a_missed_requirement_leaves_a_receipt(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is there, but less of it is in float16 than was asked for."""
    from dataclasses import replace

    from fmmt_deploy.engines.tensorrt import obtain

    real = obtain.realised_from_layers
    monkeypatch.setattr(
        obtain, "realised_from_layers", lambda *a: replace(real(*a), flops_share={"fp16": 0.5}, unseen_share=0.5)
    )
    options = ("--engine", "trt-rtx", "--precision", "fp16", "--require", "fp16>=0.9", "--force", "-q")
    assert exit_code("build", "-b", str(bundle), *options) == 9
    found = last(bundle)
    assert (found.command, found.verdict, found.exit_code) == ("build", "failed", 9)
    assert all((bundle / name).exists() for name in found.outputs)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_engines_on_a_gpu(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: bool
) -> None:
    """With a simulated GPU: the engines that ran are named by their plans, in the bundle or in a cache elsewhere."""
    trt = use_simulated(monkeypatch)
    monkeypatch.setattr(trial, "open_device", lambda: trt.device)
    monkeypatch.setattr(trial, "import_flavour", lambda _: trt)
    (engine,) = write_simulated_engines(Bundle.open(bundle), {"unimodal": "fp16"}, trusted=False).values()
    name, cache = f"engines/{engine.path.name}", ()
    if elsewhere:
        (tmp_path / "cache").mkdir()
        shutil.move(engine.path, tmp_path / "cache")
        name, cache = f"cache:{engine.path.name}", ("--cache", str(tmp_path / "cache"))
    options = ("--engine", "trt-rtx", "--precision", "fp16", *cache, "-q")
    assert exit_code("parity", "-b", str(bundle), *options, "--self") == 0
    assert last(bundle).subjects == {name: sha256(engine.plan).hexdigest()}
    assert exit_code("parity", "-b", str(bundle), *options) == 0
    assert last(bundle).subjects == {name: sha256(engine.plan).hexdigest()}
    capsys.readouterr()
    assert exit_code("status", "-b", str(bundle)) == 0
    assert exit_code("verify", "-b", str(bundle), "--no-replay", "-q") == 0


COMMANDS: dict[str, tuple[str, ...]] = {
    "parity": (),
    "cast": ("--precision", "bf16"),
    "triage": ("--precision", "fp16"),
    "build": ("--engine", "trt-rtx", "--precision", "fp16"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_receipt(bundle: Path, command: str) -> None:
    assert exit_code(command, "-b", str(bundle), *COMMANDS[command], "--no-receipt", "-q") == 0
    assert len(kept_receipts(bundle)) == 8
    if command in ("cast", "build"):
        dry = ("--force", "--dry-run", "-q")
        assert exit_code(command, "-b", str(bundle), *COMMANDS[command], *dry) == 0
        assert len(kept_receipts(bundle)) == 8


@pytest.mark.parametrize("command", ["triage"])
def test_other_judges_leave_receipts(bundle: Path, command: str) -> None:
    assert exit_code(command, "-b", str(bundle), *COMMANDS[command], "-q") == 0
    found = last(bundle)
    assert (found.command, found.verdict) == (command, "passed")


@pytest.mark.parametrize("command", ["parity", "triage", "build"])
def test_a_read_only_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    real: Callable[..., bool] = os.access
    # root may do anything, whatever the permissions: so the system is made to say no
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK) and real(path, mode))
    assert exit_code(command, "-b", str(bundle), *COMMANDS[command], "-q") == 3
    assert "--no-receipt" in capsys.readouterr().err
    assert exit_code(command, "-b", str(bundle), *COMMANDS[command], "--no-receipt", "-q") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("cast", "--precision", "bf16", "-b"),
        ("cast", "--precision", "bf16", "--no-receipt", "-b"),
        ("calibrate", "--precision", "int8-fp32", "--data", str(CHECKPOINT.parent), "-b"),
        ("export", "--ckpt", str(CHECKPOINT), "--force", "-o"),
    ],
    ids=lambda arguments: " ".join(arguments[::3]),
)
def test_a_read_only_bundle_is_not_replaced(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """A new folder could take its place, whatever its own permissions."""
    manifest, real = (bundle / "manifest.json").read_bytes(), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and path == bundle) and real(path, mode))
    assert exit_code(*arguments, str(bundle), "-q") == 3
    assert "is read-only, so it is never replaced" in " ".join(capsys.readouterr().err.split())
    assert (bundle / "manifest.json").read_bytes() == manifest


def test_nobody_s_name_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bundle that was named from where it is: not the user's, not the machine's, no place on its disk."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(CHECKPOINT, "model.pt")
    assert exit_code("export", "--ckpt", "model.pt", "-o", "bundle", "-q") == 0
    assert exit_code("parity", "-b", "bundle", "-q") == 0
    assert exit_code("cast", "-b", "bundle", "--precision", "fp16", "-q") == 0
    assert exit_code("build", "-b", "bundle", "--engine", "trt-rtx", "--precision", "fp16", "-q") == 0
    text = "".join(path.read_text() for path in (tmp_path / "bundle/receipts").iterdir())
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text
    for name in (platform.node(), *([getpass.getuser()] if getpass.getuser() != "root" else ())):
        assert name not in text
    assert read_receipts(Path("bundle"))[2].result["path"] == "bundle"
