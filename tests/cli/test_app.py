import errno
import json
import resource
import statistics
import subprocess
from pathlib import Path

import pytest

from fmmt_deploy import errors
from fmmt_deploy.cli.app import _commands
from fmmt_deploy.cli.options import EngineKind
from fmmt_deploy.engines.protocol import ENGINE_KINDS
from tests.bundle.samples import make_bundle
from tests.cli.running import FMMT, REPOSITORY, command_that_raises, exit_code, in_own_process

CODES = {
    "FmmtError": 1, "UsageError": 2, "DataError": 2, "EnvironmentProblem": 3, "ParityError": 4, "NotEquivalentError": 5,
    "SlowerError": 6, "UnstableError": 7, "ArtefactError": 8, "CheckpointError": 8, "BundleError": 8,
    "PrecisionError": 9,
}  # fmt: skip
"""As design.md lists them."""


def test_help_is_fast() -> None:
    """CPU time, because a loaded machine has its own clock; 0.3 s is the promise, wall time on a free machine."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*FMMT, "--help"], cwd=REPOSITORY, check=True, capture_output=True)
        assert b"Usage: fmmt" in done.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert statistics.median(seconds) < 0.3


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in _commands())])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = """
import atexit, sys
atexit.register(lambda: print("LOADED", *(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr))
"""
    done = in_own_process(code, *arguments)
    assert done.returncode == 0
    loaded = done.stderr.split("LOADED ")[1].split()
    assert "typer" in loaded
    assert not {"numpy", "onnx", "onnxruntime", "torch", "cv2", "tokenizers", "transformers", "rich"} & set(loaded)


def test_every_command_has_help_with_an_example() -> None:
    for name in _commands():
        done = in_own_process("", name, "--help")
        assert done.returncode == 0
        assert f"Example: fmmt {name}" in done.stdout


def test_every_error_class_is_listed_here() -> None:
    assert {name for name in errors.__all__ if name != "INTERRUPTED"} == set(CODES)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_our_errors(name: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = getattr(errors, name)("It broke.", why="It was old.", fix="Buy a new one.")
    command_that_raises(monkeypatch, error)
    assert exit_code("fail") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: It broke.\n  why: It was old.\n  fix: Buy a new one.\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: Interrupted."),
        (MemoryError("Unable to allocate 9 TiB"), 3, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 3, "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 3, "/data/x can't be used"),
        (OSError(errno.EIO, "Input/output error"), 1, "a bug of ours: OSError"),
        (EOFError("short"), 1, "a bug of ours: EOFError: short"),
        (KeyError("x"), 1, "Please report it"),
        (ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"), 3, 'pip install "fmmt-deploy[cpu]"'),
        (ModuleNotFoundError("No module named 'timm.x'", name="timm.x"), 3, 'pip install "fmmt-deploy[torch]"'),
        (ModuleNotFoundError("No module named 'zebra'", name="zebra"), 1, "a bug of ours"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_other_people_s_errors(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that_raises(monkeypatch, error)
    assert exit_code("fail") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command_that_raises(monkeypatch, errors.BundleError("It broke."))
    for arguments in (["--debug", "fail"], ["fail", "--debug"]):
        assert exit_code(*arguments) == 8
        assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("FMMT_DEBUG", "1")
    assert exit_code("fail") == 8
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("FMMT_DEBUG", "0")
    assert exit_code("fail") == 8
    assert "Traceback" not in capsys.readouterr().err


def test_errors_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command_that_raises(monkeypatch, errors.CheckpointError("It broke.", fix="Mend it.", path="a.pt", tensor="w"))
    assert exit_code("fail", "--json") == 8
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "schema": "fmmt.error/1", "exit_code": 8, "kind": "CheckpointError", "what": "It broke.", "why": "",
        "fix": "Mend it.", "path": "a.pt", "tensor": "w",
    }  # fmt: skip
    assert "error: It broke." in err


@pytest.mark.parametrize("arguments", [["fail", "--nope"], ["nope"], ["fail", "too", "many"]])
def test_usage_errors(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that_raises(monkeypatch, KeyError())
    assert exit_code(*arguments) == 2
    assert "Try 'fmmt" in capsys.readouterr().err


def test_a_command_module_that_can_t_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmmt_deploy.cli import app

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(app, "_commands", missing)
    assert exit_code("run") == 3
    assert 'pip install "fmmt-deploy"' in capsys.readouterr().err


def test_ctrl_c_before_a_command_has_begun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fmmt_deploy.cli import app

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_commands", interrupted)
    assert exit_code("status") == errors.INTERRUPTED
    assert capsys.readouterr().err == "error: Interrupted.\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"fmmt-deploy {version('fmmt-deploy')}\n"


@pytest.mark.parametrize("command", ["inspect", "--help"])
def test_a_reader_that_goes_away(tmp_path: Path, command: str) -> None:
    arguments = ["inspect", str(make_bundle(tmp_path / "b").path)] if command == "inspect" else [command]
    program = [*FMMT, *arguments]
    with subprocess.Popen(
        program, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == (141 if command == "inspect" else 1)


def test_an_error_that_nobody_reads_ends_as_it_would(tmp_path: Path) -> None:
    """Not as a bug of ours: the message goes nowhere, the exit code says what happened."""
    program = [*FMMT, "inspect", str(tmp_path / "absent")]
    with subprocess.Popen(program, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == subprocess.run(program, cwd=REPOSITORY, capture_output=True, check=False).returncode
    assert process.returncode == 8


def test_engine_names_are_the_engines() -> None:
    from typing import get_args

    assert get_args(EngineKind) == ENGINE_KINDS
