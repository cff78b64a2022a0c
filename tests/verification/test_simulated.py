"""The whole of it, on a tiny model: without a GPU; with TensorRT and GPU simulated, and PyTorch and ORT on the CPU."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.engines.tensorrt.flavour import FlavourName
from fmmt_deploy.errors import INTERRUPTED
from fmmt_deploy.parity import trial
from fmmt_deploy.verification import preparing
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Outcome, Result
from fmmt_deploy.verification.settings import Settings, settings_for
from fmmt_deploy.verification.steps import steps_of
from fmmt_deploy.verification.tables import tables_of
from fmmt_deploy.verification.verify import verify
from fmmt_deploy.verification.worker import Here
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt.simulated import use_simulated, write_simulated_engines

STAND_INS: dict[str, object] = {
    "reference": "torch",
    "published": "torch",
    "others": ("ort",),
    "flavours": ("trt-rtx",),
    "precisions": ("fp16", "int8"),
    "needs_gpu": False,
}


def simulated_build(context: Context, flavour: FlavourName, precision: Precision) -> Result:
    bundle = context.bundle()
    precisions = dict.fromkeys(graphs_of(context.architecture), precision)
    write_simulated_engines(bundle, precisions, flavour=flavour, trusted=False)
    return {"summary": "simulated"}


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    trt = use_simulated(monkeypatch)
    monkeypatch.setattr(trial, "open_device", lambda: trt.device)
    monkeypatch.setattr(trial, "import_flavour", lambda _: trt)
    monkeypatch.setattr(preparing, "build", simulated_build)
    monkeypatch.setattr(preparing, "copy_rate", lambda: 1000.0)
    monkeypatch.setattr(preparing, "DeviceMatrixRate", lambda _: type("Rate", (), {"sample": lambda _: 1.0})())
    return trt


def verified(settings: Settings, record: Path) -> tuple[dict[str, Outcome], dict[str, Any]]:
    outcomes = verify(settings, steps_of(settings), Here(settings), record)
    return {outcome.name: outcome for outcome in outcomes}, json.loads(record.read_text())


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
def test_all_of_it_with_a_simulated_gpu(tmp_path: Path) -> None:
    settings = settings_for("tiny", 300, folder(tmp_path), **STAND_INS)
    outcomes, document = verified(settings, tmp_path / "record.json")
    assert {name: o.why for name, o in outcomes.items() if o.state != "done"} == {}
    assert document["schema"] == "fmmt.verification/2"
    assert document["exit_code"] == 7  # of one round no ratio has an interval
    by_name = {step["name"]: step["result"] for step in document["steps"]}
    single, offline = (by_name[f"2 faces, {scenario}"] for scenario in ("single-stream", "offline"))
    assert [(row["engine"], row["way"]) for row in single["rows"][:3]] == [
        ("torch", "published"),
        ("trt-rtx:fp16", "alone"),
        ("trt-rtx:fp16", "cached"),
    ]
    assert [(row["engine"], row["way"]) for row in offline["rows"][:2]] == [
        ("torch", "published"),
        ("trt-rtx:fp16", "batched"),
    ]
    for table in (single, offline):
        assert table["baseline"] == "torch published"
        assert {row["engine"] for row in table["rows"][1:]} == {"trt-rtx:fp16", "trt-rtx:int8", "ort"}
        assert table["dropped"] == {}
        (reason,) = {reason for row in table["rows"][1:] for reason in row["ratio"]["reasons"] if "rounds" in reason}
        assert reason == "an interval needs at least 6 rounds of both, there are 1"
        assert "whether other processes use the GPU" in table["validity"]["unseen"]  # it was asked for
    assert offline["rows"][1]["per_second"]["median"] > 0
    assert all(any(p["percent"] == 90 for p in row["percentiles"]) for row in single["rows"])
    assert {row["graph"] for row in by_name["stages"]["rows"]} == {"plm", "swin"}
    assert all(row["tflops"] > 0 for row in by_name["stages"]["rows"])
    assert all(check["passed"] for check in by_name["consistency trt-rtx:fp16"]["report"]["checks"])
    assert [goal["verdict"] for goal in document["goals"][:2]] == ["INVALID"] * 2
    assert np.isfinite([goal["found"] for goal in document["goals"]]).all()
    assert "trt-rtx:fp16" in "\n".join(map(str, tables_of(settings, tuple(outcomes.values()))))
    assert not list(settings.folder.glob("tmp*"))  # faces are gone


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
def test_an_engine_that_answers_wrongly_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine

    right: Callable[..., Any] = TensorRTEngine.run

    def wrong(self: Any, inputs: Any) -> Any:
        outputs = right(self, inputs)
        if "face_logits" in outputs:
            outputs["face_logits"] += np.arange(len(outputs["face_logits"]), dtype=np.float32)[:, None]
        return outputs

    monkeypatch.setattr(TensorRTEngine, "run", wrong)
    settings = settings_for("tiny", 300, folder(tmp_path), **STAND_INS)
    outcomes, document = verified(settings, tmp_path / "record.json")
    assert outcomes["consistency trt-rtx:fp16"].exit_code == 4
    assert outcomes["parity trt-rtx:fp16"].exit_code == 4
    assert document["exit_code"] == 4
    for scenario in ("single-stream", "offline"):
        rows: Any = outcomes[f"2 faces, {scenario}"].result["rows"]
        assert {row["engine"] for row in rows} == {"torch", "ort"}
    assert {goal["verdict"] for goal in document["goals"]} == {"not measured"}


def test_without_a_gpu_every_part_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmmt_deploy.verification.context.current_gpu", lambda: None)
    settings = settings_for("tiny", 300, folder(tmp_path), flavours=("trt",), precisions=("fp16", "fp32"))
    outcomes, document = verified(settings, tmp_path / "record.json")
    assert document["exit_code"] == 3
    assert {name for name, o in outcomes.items() if o.state == "done"} == {"environment", "model", "cast fp16"}
    assert all(outcome.why for outcome in outcomes.values() if outcome.state != "done")
    for name in ("rates", "reference", "parity torch-cuda:fp16", "2 faces, offline", "stages"):
        assert (outcomes[name].state, outcomes[name].exit_code) == ("unable", 3)
        assert "no NVIDIA GPU" in outcomes[name].why


def test_a_model_is_made_from_a_checkout_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("fmmt_deploy.bundle.writing.version", absent)
    context = Context(settings_for("tiny", 60, tmp_path))
    preparing.make_model(context)
    assert context.bundle().manifest.tools["fmmt-deploy"] == "a checkout, not installed"


def script(record: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "engines" / "verify-gpu.sh"), "--model", "tiny", "-o", record.name, *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=record.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_from_a_checkout(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    chosen = ("--flavour", "trt", "--precision", "fp32", "--engine", "torch-cuda")
    done = script(record, "--seconds", "200", *chosen)
    assert done.returncode == 3, done.stderr
    document = json.loads(record.read_text())
    states = {step["name"]: step["state"] for step in document["steps"]}
    assert states["model"] == "done"
    assert states["parity torch-cuda"] == states["stages"] == "unable"
    lines = [line for line in done.stderr.splitlines() if " s  " in line]
    assert len(lines) == len(document["steps"])
    assert done.stdout.startswith("goals\n")
    assert "no NVIDIA GPU" in done.stdout
    assert f"wrote {record.name}" in done.stdout


@pytest.mark.slow
def test_being_asked_to_end_is_like_ctrl_c(tmp_path: Path) -> None:
    """Its worker ends with it, and nothing is left but the record."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "fmmt_deploy.verification", "--model", "tiny", "-o", str(tmp_path / "r.json")]
    environment = {**os.environ, "TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        running.terminate()
        said = running.stderr.read()  # until its worker has ended, too
    assert "environment" in first
    assert running.returncode == INTERRUPTED
    assert "interrupted; " in said
    assert list(scratch.iterdir()) == []
    assert json.loads((tmp_path / "r.json").read_text())["steps"][0]["state"] == "done"


def test_the_script_without_time(tmp_path: Path) -> None:
    """What there is no time for is told, the record is there, and it is no success."""
    record = tmp_path / "record.json"
    done = script(record, "--seconds", "1")
    assert done.returncode == 1, done.stderr
    document = json.loads(record.read_text())
    assert {step["state"] for step in document["steps"]} == {"skipped"}
    assert len(document["steps"]) == len(steps_of(settings_for("tiny", 1, tmp_path)))


def test_a_record_that_can_t_be_written_or_is_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("mine")
    done = script(tmp_path / "there.json")
    assert done.returncode == 2
    assert "Add --force" in done.stderr
    assert (tmp_path / "there.json").read_text() == "mine"
    command = [
        sys.executable,
        "-m",
        "fmmt_deploy.verification",
        "--model",
        "tiny",
        "-o",
        str(tmp_path / "no" / "r.json"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no folder" in done.stderr
