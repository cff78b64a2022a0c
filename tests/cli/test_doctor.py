import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmmt_deploy import doctor
from fmmt_deploy.engines.ort import signedness
from tests.cli.running import REPOSITORY, exit_code, in_own_process

VERSION = importlib.metadata.version


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Lets packages seem installed in another version, or not at all (None)."""

    def version(name: str) -> str:
        found = versions[name] if name in versions else VERSION(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def report(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, object]:
    assert exit_code("doctor", "--json") == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    assert found["schema"] == "fmmt.doctor/1"
    return found


def test_this_environment_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    found = report(capsys, 0)
    assert found["ready"] is True
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["providers"] == onnxruntime.get_available_providers()
    assert str(found["int8"]).startswith(("VNNI", "no VNNI"))
    packages = {p["name"]: p for p in found["packages"]}  # type: ignore[attr-defined]
    for name in ("numpy", "onnx", "opencv-python-headless", "tokenizers", "typer", "onnxruntime", "torch", "timm"):
        assert packages[name]["installed"] == VERSION(name)
        assert packages[name]["fits"]
    assert packages["onnxruntime"]["extra"] == "cpu"
    assert packages["tensorrt-rtx-cu13"]["wanted"].startswith("==")
    assert "ruff" not in packages
    assert found["problems"] == []


def test_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor") == 0
    text = capsys.readouterr().out
    assert "Ready to run bundles with ONNX Runtime." in text
    assert "CPUExecutionProvider" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("weights", ["signed", "unsigned"])
def test_either_kind_of_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: signedness.Signedness
) -> None:
    monkeypatch.setattr(signedness, "exact_signedness", lambda _: weights)
    assert exit_code("doctor") == 0
    text = capsys.readouterr().out
    assert f"int8 on the CPU  {signedness.explained(weights)}" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_cpu_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(signedness, "exact_signedness", broken)
    assert report(capsys, 0)["int8"] == "not known: no kernel"


def test_without_onnxruntime() -> None:
    done = in_own_process("import sys; sys.modules['onnxruntime'] = None", "doctor")
    assert done.returncode == 3
    assert re.search(r'needs onnxruntime +pip install "fmmt-deploy\[cpu\]"', done.stdout)
    assert "Not ready to run bundles" in done.stdout


def test_without_torch_the_run_path_is_ready() -> None:
    done = in_own_process("import sys; sys.modules['torch'] = None", "doctor", "--json")
    assert done.returncode == 0
    states = {c["command"]: c for c in json.loads(done.stdout)["commands"]}
    assert states["export, parity"]["missing"] == ["torch"]
    assert states["export, parity"]["fix"] == 'pip install "fmmt-deploy[torch]"'
    assert states["run, eval, bench --engine ort"]["ready"]


def test_both_onnxruntimes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, {"onnxruntime": "1.22.0", "onnxruntime-gpu": "1.22.0"})
    found = report(capsys, 3)
    assert "overwrite each other's files" in found["problems"][0]  # type: ignore[index]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found["problems"][0]  # type: ignore[index]
    assert exit_code("doctor") == 3
    assert "problem: Both onnxruntime and onnxruntime-gpu are installed" in capsys.readouterr().out


def test_the_gpu_package_alone_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, {"onnxruntime": None, "onnxruntime-gpu": "1.22.0"})
    assert report(capsys, 0)["ready"] is True


def test_an_old_version_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, {"numpy": "1.26.4", "onnx": "1.18"})
    packages = {p["name"]: p["fits"] for p in report(capsys, 0)["packages"]}  # type: ignore[attr-defined]
    assert packages["numpy"] is False
    assert packages["onnx"] is True


def test_onnxruntime_that_does_not_load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    monkeypatch.delattr(onnxruntime, "get_available_providers")
    assert "does not load" in report(capsys, 3)["problems"][0]  # type: ignore[index]


def fake_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_nvidia_smi(
        tmp_path, monkeypatch, "echo 'NVIDIA L4, 23034, 580.1, 8.9'; echo 'NVIDIA H200, 143771, 580.1, 9.0'"
    )
    gpus = report(capsys, 0)["gpus"]
    assert gpus == [
        {"name": "NVIDIA L4", "memory_mib": 23034, "driver": "580.1", "compute_capability": "8.9"},
        {"name": "NVIDIA H200", "memory_mib": 143771, "driver": "580.1", "compute_capability": "9.0"},
    ]
    assert exit_code("doctor") == 0
    assert "NVIDIA L4, 23034 MiB, driver 580.1, SM 8.9" in capsys.readouterr().out


def test_nvidia_smi_without_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed, no driver'; exit 9")
    assert report(capsys, 0)["gpus"] == []


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("cv2", 'pip install "fmmt-deploy"'),
        ("timm", 'pip install "fmmt-deploy[torch]"'),
        ("tensorrt_rtx", 'pip install "fmmt-deploy[trt-rtx]"'),
        ("zebra", ""),
    ],
)
def test_how_to_install(module: str, command: str) -> None:
    assert doctor.how_to_install(module) == command


def test_the_doctor_is_light_to_import() -> None:
    code = (
        "import sys, fmmt_deploy.doctor; sys.exit(bool({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
