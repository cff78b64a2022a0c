"""`fmmt verify`: every changed byte of every kind of file is found and named, and the self-test is run again."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.sealed import read_document, write_sealed
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.parity.replay import Replayed
from fmmt_deploy.receipts.check import check_bundle
from tests.bundle.samples import with_another_record
from tests.calibration.talk import write_talk
from tests.cli.calibrating import SMALL, calibrated
from tests.cli.running import REPOSITORY, exit_code


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "bundle"))


@contextmanager
def flipped(file: Path, place: int, bit: int = 0) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(before[:place] + bytes([before[place] ^ (1 << bit)]) + before[place + 1 :])
    try:
        yield
    finally:
        file.write_bytes(before)


def files_of(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def problems(bundle: Path) -> dict[str, str]:
    return {finding.path: finding.what for finding in check_bundle(bundle).problems}


def shown(capsys: pytest.CaptureFixture[str], bundle: Path, code: int, *options: str) -> dict[str, Any]:
    assert exit_code("verify", "-b", str(bundle), "--json", "-q", *options) == code
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_whole_one(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, recorded, 0)
    assert found["schema"] == "fmmt.verify/1"
    assert found["passed"]
    assert (found["problems"], found["notes"]) == ([], [])
    assert found["files"] == len(files_of(recorded)), "every file was read"
    states = {answer["precision"]: answer["state"] for answer in found["self_test"]}
    assert states == {"fp32": "passed", "fp16": "passed", "int8-fp32": "passed"}
    assert exit_code("verify", "-b", str(recorded)) == 0
    text = capsys.readouterr()
    assert "all are as they were written" in text.out
    assert "unimodal int8-fp32: passed" in text.err


def test_kinds_of_files(recorded: Path) -> None:
    """The next test is about all of them."""
    found = files_of(recorded)
    assert {Path(name).suffix for name in found} == {
        *(".json", ".onnx", ".safetensors", ".npz", ".engine", ".verdict", ".kernels", ".cache")
    }
    assert "receipts/0001-export.json" in found
    assert "receipts/calibration-unimodal-int8-fp32.json" in found


@pytest.mark.parametrize("seed", range(2))
def test_any_flipped_bit_of_any_file_is_found(bundle: Path, seed: int) -> None:
    """At a file's ends and at places drawn for each."""
    rng = random.Random(seed)
    for name in files_of(bundle):
        file = bundle / name
        size = file.stat().st_size
        for place in {0, size - 1, *(rng.randrange(size) for _ in range(5))}:
            with flipped(file, place, rng.randrange(8)):
                found = problems(bundle)
                assert name in found, f"{name} at {place}"
                assert len(found) == 1 or name == MANIFEST_NAME, f"{found}: only what was changed is named"
    assert problems(bundle) == {}


def test_a_blank_in_the_manifest_is_found(bundle: Path) -> None:
    """It still reads the same."""
    manifest = bundle / MANIFEST_NAME
    manifest.write_bytes(manifest.read_bytes().replace(b'"schema": 1', b'"schema":  1'))
    Bundle.open(bundle)
    assert problems(bundle).keys() == {MANIFEST_NAME}


def test_a_hash_that_is_altered_in_the_manifest_accuses_nothing_else(bundle: Path) -> None:
    manifest, listed = bundle / MANIFEST_NAME, Bundle.open(bundle).manifest.files
    digest = listed["graphs/fp16/unimodal.onnx"].sha256
    manifest.write_text(manifest.read_text().replace(digest, digest[::-1]))
    assert problems(bundle).keys() == {MANIFEST_NAME}


def test_all_problems_are_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (engine,) = (bundle / "engines").glob("*.engine")
    names = ["graphs/fp16/unimodal.safetensors", "self_test.npz", f"engines/{engine.name}", "receipts/0003-parity.json"]
    for name in names:
        content = bytearray((bundle / name).read_bytes())
        content[-2] ^= 1
        (bundle / name).write_bytes(content)
    (bundle / "graphs/fp32/unimodal.onnx").unlink()
    (bundle / "receipts/0005-calibrate.json").unlink()
    found = shown(capsys, bundle, 8)
    named = {problem["path"] for problem in found["problems"]}
    assert named == {*names, "graphs/fp32/unimodal.onnx", "receipts/0006-build.json"}
    assert found["self_test"] == [], "what was altered is not run"
    assert not found["passed"]
    assert exit_code("verify", "-b", str(bundle)) == 8
    text = capsys.readouterr()
    assert "the self-test was not run" in text.out
    assert all(name in text.out for name in named)
    assert "one of 6 problems in" in text.err


def test_a_manifest_that_is_consistent_but_not_the_one_that_was_written(bundle: Path) -> None:
    """Somebody changed a graph and the manifest; the receipts still know."""
    Bundle.open(bundle)
    graph = bundle / "graphs/fp16/unimodal.safetensors"
    manifest = bundle / MANIFEST_NAME
    old = Bundle.open(bundle).manifest.files["graphs/fp16/unimodal.safetensors"].sha256
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(content).hexdigest()))
    Bundle.open(bundle)
    assert problems(bundle).keys() == {MANIFEST_NAME, "graphs/fp16/unimodal.safetensors"}


def test_an_engine_that_is_whole_but_another(bundle: Path) -> None:
    (engine,) = (bundle / "engines").glob("*.engine")
    about, _ = read_document(engine)
    write_sealed(engine, about, memoryview(b"another plan"))
    (name,) = problems(bundle)
    assert name == f"engines/{engine.name}"


def test_what_is_not_wrong(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Engines are for a machine, and may be removed; other files do no harm."""
    (engine,) = (bundle / "engines").glob("*.engine")
    engine.unlink()
    (bundle / "notes.txt").write_text("mine")
    (bundle / "engines/ort").mkdir()
    (bundle / "engines/ort/cached").write_text("ONNX Runtime's")
    found = shown(capsys, bundle, 0, "--no-replay")
    notes = {note["path"]: note["what"] for note in found["notes"]}
    assert notes.keys() == {f"engines/{engine.name}", "notes.txt", "engines/ort/cached"}
    assert "is gone" in notes[f"engines/{engine.name}"]
    assert found["self_test"] == []


def test_without_receipts_nothing_vouches_for_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(bundle / "receipts")
    found = shown(capsys, bundle, 0)
    (note,) = found["notes"]
    assert note["path"] == MANIFEST_NAME
    assert "no receipts" in note["what"]
    with flipped(bundle / "graphs/fp32/unimodal.onnx", 100):
        assert problems(bundle).keys() == {"graphs/fp32/unimodal.onnx"}


def test_changed_without_a_receipt(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("cast", "-b", str(bundle), "--precision", "bf16", "--no-receipt", "-q") == 0
    capsys.readouterr()
    (problem,) = shown(capsys, bundle, 8, "--no-replay")["problems"]
    assert problem["path"] == MANIFEST_NAME
    assert "--no-receipt" in problem["what"]


@pytest.mark.parametrize(("precision", "why"), [("bf16", "NOT_IMPLEMENTED"), ("int8", "float32 around")])
def test_what_onnx_runtime_does_not_compute_is_said(
    bundle: Path, capsys: pytest.CaptureFixture[str], precision: str, why: str
) -> None:
    if precision == "bf16":
        assert exit_code("cast", "-b", str(bundle), "--precision", "bf16", "-q") == 0
    else:
        talk = write_talk(bundle.parent / "talk")
        calibrated(bundle, talk.folder, "--precision", "int8", *SMALL)
    capsys.readouterr()
    found = {answer["precision"]: answer for answer in shown(capsys, bundle, 0)["self_test"]}
    assert found[precision]["state"] == "not computed"
    assert why in found[precision]["why"]
    assert exit_code("verify", "-b", str(bundle), "-q") == 0
    shows = f"fmmt parity -b {bundle} --engine emulated --precision {precision} --reference recorded"
    assert shows in capsys.readouterr().out


def test_float32_must_be_computed(
    recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old ONNX Runtime, which lacks an operator: nothing is altered, and nothing was shown either."""
    answers = (Replayed("unimodal", "fp32", None, "no such operator"),)
    monkeypatch.setattr("fmmt_deploy.parity.replay.replay", lambda *_: iter(answers))
    assert exit_code("verify", "-b", str(recorded)) == 3
    assert "no such operator" in capsys.readouterr().err


def test_other_answers(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, with_another_record(recorded, tmp_path / "other"), 4)
    assert not found["problems"]
    assert next(answer["state"] for answer in found["self_test"] if answer["precision"] == "fp32") == "failed"
    assert exit_code("verify", "-b", str(tmp_path / "other")) == 4
    assert "unimodal fp32 does not compute what torch fp32 computes" in capsys.readouterr().err


BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "timm", "safetensors", "tensorrt_rtx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from fmmt_deploy.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["verify", "status"])
def test_without_torch(recorded: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, command, "-b", str(recorded), "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bundle"] == str(recorded)


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("verify", "-b", str(tmp_path / "none")) == 8
    assert "does not exist" in capsys.readouterr().err
