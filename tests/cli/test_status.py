"""`fmmt status`: the chain of evidence from receipts, what is stale, and what to run next."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.sealed import read_document
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts import lanes
from fmmt_deploy.receipts.kept import read_receipts
from fmmt_deploy.receipts.record import Receipt, Setting
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.receipts.subjects import graph_subjects
from tests.cli.running import REPOSITORY, exit_code

Steps = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "bundle"))


def steps(capsys: pytest.CaptureFixture[str], bundle: Path, code: int = 0) -> Steps:
    capsys.readouterr()
    assert exit_code("status", "-b", str(bundle), "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "fmmt.status/1"
    assert found["sound"] == (code == 0)
    return {(step["kind"], step["name"]): step for step in found["steps"]}


def states(found: Steps) -> dict[tuple[str, str], str]:
    return {name: step["state"] for name, step in found.items()}


def judged(command: str, engine: str, precision: str, code: int, verdict: str, path: Path, **settings: Any) -> Receipt:
    """A receipt as `fmmt eval` and `fmmt bench` leave them."""
    bundle = Bundle.open(path, verify=False)
    given = {"engine": engine, "precision": precision, **settings}
    return Receipt(
        command=command,
        seconds=1.0,
        exit_code=code,
        verdict=verdict,
        settings={name: Setting(value, "command line") for name, value in given.items()},
        subjects=graph_subjects(bundle, {"unimodal": precision}),  # type: ignore[dict-item]  # it is one of them
    )


def append(path: Path, receipt: Receipt) -> None:
    append_receipt(Bundle.open(path, verify=False), receipt)


def test_the_chain(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = steps(capsys, recorded)
    talk = recorded.parent / "talk"
    assert states(found) == {
        ("checkpoint", "unimodal_model_V.pt"): "ok",
        ("graph", "fp32 (unimodal)"): "ok",
        ("typed graph", "fp16 (unimodal)"): "ok",
        ("typed graph", "int8-fp32 (unimodal)"): "ok",
        ("parity", "ort fp32, self-test"): "ok",
        ("parity", "ort fp32, against itself"): "ok",
        ("F1", "ort fp32"): "missing",
        ("bench", "ort fp32"): "missing",
        ("engine", "trt-rtx fp16"): "unknown",
        ("parity", "trt-rtx fp16"): "missing",
        ("F1", "trt-rtx fp16"): "missing",
        ("bench", "trt-rtx fp16"): "missing",
        ("parity", f"emulated fp16, {talk} (test, first 2 dialogues)"): "ok",
        ("parity", "ort int8-fp32, self-test"): "ok",
        ("F1", "ort int8-fp32"): "missing",
        ("bench", "ort int8-fp32"): "missing",
    }
    assert found["typed graph", "fp16 (unimodal)"]["receipt"] == "receipts/0004-cast.json"
    asked = f"-b {recorded} --engine trt-rtx --precision fp16"
    assert found["engine", "trt-rtx fp16"]["next"] == f"fmmt parity {asked} --self"
    assert found["F1", "trt-rtx fp16"]["next"] == f"fmmt eval {asked} --data DIR --reference torch"
    assert exit_code("status", "-b", str(recorded)) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.replace(str(recorded), "").replace(str(talk), "").splitlines())) <= 110
    assert text.count("fmmt bench") == 3


def test_receipts_say_what_went_in_and_what_came_out(recorded: Path) -> None:
    """Of each command; hashes by `hashlib` are compared in `test_recording`."""
    found = read_receipts(recorded)
    assert [receipt.command for receipt in found] == [
        *("export", "parity", "parity", "cast", "calibrate", "build", "parity", "parity")
    ]
    _, first, itself, cast, calibrated, built, on_data, _ = found
    assert (first.verdict, first.exit_code) == ("passed", 0)
    assert first.settings["engine"] == Setting("ort", "default")
    assert itself.settings["self"] == Setting(True, "command line")
    assert cast.subjects.keys() == {"graphs/fp32/unimodal.onnx", "graphs/fp32/unimodal.safetensors"}
    assert cast.outputs.keys() == {*("graphs/fp16/unimodal.onnx", "graphs/fp16/unimodal.safetensors", "manifest.json")}
    assert {
        "data",
        "receipts/calibration-unimodal-int8-fp32.json",
    } <= calibrated.inputs.keys() | calibrated.outputs.keys()
    assert calibrated.seeds == {"dialogues": (0,)}
    assert [name.partition("-")[0] for name in built.outputs] == ["engines/unimodal"]
    assert on_data.inputs["data"].about.endswith("utterances of 2 dialogues")
    for receipt in found:
        assert "numpy" in receipt.tools
        assert receipt.device["cores"]
        assert receipt.result["schema"] in (f"fmmt.{receipt.command}/1", "fmmt.consistency/1")


def test_a_graph_that_was_cast_again(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ("--force", "--keep-float32", "*layer.0*")
    assert exit_code("cast", "-b", str(bundle), "--precision", "fp16", *again, "-q") == 0
    found = steps(capsys, bundle, 8)
    talk = f"{next(name for _, name in found if name.startswith('emulated')).split(', ', 1)[1]}"
    stale = {name for name, state in states(found).items() if state == "stale"}
    assert stale == {("engine", "trt-rtx fp16"), ("parity", f"emulated fp16, {talk}")}
    assert "graphs/fp16/unimodal.onnx and 1 more changed since" in found["engine", "trt-rtx fp16"]["why"]
    assert found["typed graph", "fp16 (unimodal)"]["receipt"] == "receipts/0009-cast.json"
    asked = found["parity", f"emulated fp16, {talk}"]["next"]
    data = talk.removesuffix(" (test, first 2 dialogues)")
    wanted = f"fmmt parity -b {bundle} --engine emulated --precision fp16 --data {data} --split test --limit 2"
    assert asked == wanted, "as it was given"
    assert exit_code("status", "-b", str(bundle)) == 8
    shown = capsys.readouterr()
    assert "STALE" in shown.out
    assert "engine of trt-rtx fp16 is stale, and 1 more" in shown.err
    assert exit_code(*asked.split()[1:]) == 0
    assert exit_code("build", "-b", str(bundle), "--engine", "trt-rtx", "--precision", "fp16", "-q") == 0
    assert "stale" not in states(steps(capsys, bundle)).values()


def test_a_judgement_that_failed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(bundle, judged("parity", "ort", "fp16", 4, "failed", bundle))
    found = steps(capsys, bundle, 8)["parity", "ort fp16, self-test"]
    assert (found["state"], found["why"]) == ("failed", "failed, exit code 4")
    append(bundle, judged("parity", "ort", "fp16", 0, "passed", bundle))
    assert states(steps(capsys, bundle))["parity", "ort fp16, self-test"] == "ok", "the latest counts"


@pytest.mark.parametrize(
    ("code", "verdict", "state"),
    [(0, "EQUIVALENT", "ok"), (5, "INCONCLUSIVE", "unknown"), (5, "DIFFERENT", "failed"), (0, "", "unknown")],
)
def test_f1(bundle: Path, capsys: pytest.CaptureFixture[str], code: int, verdict: str, state: str) -> None:
    append(bundle, judged("eval", "ort", "fp32", 0, "EQUIVALENT", bundle, data="meld", split="val"))
    append(bundle, judged("eval", "ort", "fp32", code, verdict, bundle, data="meld", split="test"))
    found = states(steps(capsys, bundle, 8 if state == "failed" else 0))
    assert found["F1", "ort fp32, meld (val)"] == "ok", "what was found on other data stands beside it"
    assert found["F1", "ort fp32, meld (test)"] == state
    assert ("F1", "ort fp32") not in found


def test_a_verdict_names_its_margin(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(bundle, judged("eval", "ort", "fp32", 0, "EQUIVALENT", bundle, data="meld", split="test", margin=12.5))
    append(bundle, judged("eval", "ort", "fp32", 5, "INCONCLUSIVE", bundle, data="meld", split="val", margin=0.5))
    append(bundle, judged("eval", "torch", "fp32", 5, "DIFFERENT", bundle, data="meld", split="val", margin=2))
    why = {name: step["why"] for (kind, name), step in steps(capsys, bundle, 8).items() if kind == "F1"}
    assert why["ort fp32, meld (test)"] == "EQUIVALENT at 12.5 points"
    assert why["ort fp32, meld (val)"] == "INCONCLUSIVE at 0.5 points: these data can't tell"
    assert why["torch fp32, meld (val)"] == "DIFFERENT at 2 points, exit code 5"


def test_a_benchmark_of_several_engines(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    receipt = judged("bench", "ort", "fp32", 0, "", bundle)
    engines = Setting(["ort", "trt-rtx:fp16", "torch"], "command line")
    append(bundle, Receipt(command="bench", seconds=1.0, settings={"engine": engines}, subjects=receipt.subjects))
    found = states(steps(capsys, bundle))
    assert [found["bench", name] for name in ("ort fp32", "trt-rtx fp16", "torch fp32")] == ["ok"] * 3
    assert ("F1", "torch fp32") not in found, "what is only there to compare with has no gaps"


@pytest.mark.parametrize(
    ("code", "verdict", "state"),
    [(0, "VALID", "ok"), (0, "INVALID", "unknown"), (7, "INVALID", "failed"), (6, "", "failed")],
)
def test_a_benchmark(bundle: Path, capsys: pytest.CaptureFixture[str], code: int, verdict: str, state: str) -> None:
    append(bundle, judged("bench", "ort", "fp32", code, verdict, bundle))
    assert states(steps(capsys, bundle, 8 if code else 0))["bench", "ort fp32"] == state


def engine_file(bundle: Path) -> Path:
    (file,) = (bundle / "engines").glob("*.engine")
    return file


def self_check(bundle: Path, code: int) -> Receipt:
    engine = engine_file(bundle)
    settings = {"engine": "trt-rtx", "precision": "fp16", "self": True}
    return Receipt(
        command="parity",
        seconds=1.0,
        exit_code=code,
        verdict="failed" if code else "passed",
        settings={name: Setting(value, "command line") for name, value in settings.items()},
        subjects={f"engines/{engine.name}": read_document(engine)[1].sha256},
    )


@pytest.mark.parametrize(("code", "state"), [(0, "ok"), (4, "failed")])
def test_an_engine_that_was_tried(bundle: Path, capsys: pytest.CaptureFixture[str], code: int, state: str) -> None:
    append(bundle, self_check(bundle, code))
    found = states(steps(capsys, bundle, 8 if code else 0))
    assert found["engine", "trt-rtx fp16"] == state
    assert ("parity", "trt-rtx fp16, against itself") not in found
    assert found["parity", "trt-rtx fp16"] == "missing"


def test_an_engine_that_is_gone_or_damaged(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = engine_file(bundle)
    content = bytearray(engine.read_bytes())
    content[50] ^= 1
    engine.write_bytes(content)
    assert states(steps(capsys, bundle, 8))["engine", "trt-rtx fp16"] == "stale"
    engine.unlink()
    found = steps(capsys, bundle)["engine", "trt-rtx fp16"]
    assert (found["state"], found["next"]) == ("missing", f"fmmt build -b {bundle} --engine trt-rtx --precision fp16")


def test_another_tensorrt(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine runs with the version that built it only; ONNX Runtime's is said, and decides nothing."""
    real = lanes.version
    newer = {"tensorrt-rtx-cu13-bindings": "9.9", "onnxruntime": "8.8"}
    monkeypatch.setattr(lanes, "version", lambda name: newer.get(name) or real(name))
    found = steps(capsys, bundle, 8)
    assert found["engine", "trt-rtx fp16"]["state"] == "stale"
    assert found["engine", "trt-rtx fp16"]["why"].endswith("here is 9.9")
    parity = found["parity", "ort fp32, self-test"]
    assert parity["state"] == "ok"
    assert parity["why"].endswith("here is 8.8)")


def test_changed_without_a_receipt(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--precision", "fp16", "--force", "--keep-float32", "*layer.0*", "--no-receipt", "-q")
    assert exit_code("cast", "-b", str(bundle), *options) == 0
    found = states(steps(capsys, bundle, 8))
    assert found["graph", "fp32 (unimodal)"] == "stale", "the manifest is not the one that receipts tell of"
    assert found["typed graph", "fp16 (unimodal)"] == "stale"
    assert found["typed graph", "int8-fp32 (unimodal)"] == "ok"


def test_a_bundle_from_before_receipts(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(bundle / "receipts")
    found = states(steps(capsys, bundle))
    assert found == {
        ("checkpoint", "unimodal_model_V.pt"): "unknown",
        ("graph", "fp32 (unimodal)"): "unknown",
        ("typed graph", "fp16 (unimodal)"): "unknown",
        ("engine", "fp16"): "missing",
        ("typed graph", "int8-fp32 (unimodal)"): "unknown",
        ("parity", "ort int8-fp32"): "missing",
        ("parity", "ort fp32"): "missing",
        ("F1", "ort fp32"): "missing",
        ("bench", "ort fp32"): "missing",
    }


def test_a_damaged_receipt_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "receipts/0002-parity.json").unlink()
    assert exit_code("status", "-b", str(bundle)) == 8
    assert "receipts/0003-parity.json" in (error := capsys.readouterr().err)
    assert "number 2 is missing" in error


FAST = """
import resource, sys
from fmmt_deploy.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    heavy = [name for name in ("torch", "numpy", "onnx", "onnxruntime", "cv2", "tokenizers") if name in sys.modules]
    print(ended.code, usage.ru_utime + usage.ru_stime, heavy, file=sys.stderr)
"""


def test_it_is_fast(recorded: Path) -> None:
    """Processor time, which other processes don't take; the best of three."""
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", FAST, "status", "-b", str(recorded)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        code, used, heavy = done.stderr.split(maxsplit=2)
        assert (code, heavy.strip()) == ("0", "[]")
        seconds.append(float(used))
    assert min(seconds) < 0.5


def test_a_manifest_that_was_edited_by_hand_makes_stale_what_was_judged(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The graphs are the same, but another tau decides otherwise."""
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["tau"] *= 2
    file.write_text(json.dumps(manifest))
    found = steps(capsys, bundle, 8)
    judged_ = {name: step for name, step in found.items() if name[0] in ("parity", "F1", "bench") and step["receipt"]}
    assert judged_
    assert {step["state"] for step in judged_.values()} == {"stale"}
    assert {step["next"] for step in judged_.values()} == {f"fmmt verify -b {bundle}"}
    assert all("manifest.json is not that of" in step["why"] for step in judged_.values())


@pytest.mark.parametrize(
    ("later", "how"),
    [
        ({"limit": 24, "reference": "torch"}, "first 24 dialogues"),
        ({"noise": "gumbel", "reference": "torch"}, "noise gumbel"),
        ({"reference": "ort"}, "against ort"),
        ({"reference": None}, ""),
    ],
    ids=["a part", "noise", "itself", "scores only"],
)
def test_an_easier_question_does_not_hide_a_negative_verdict(
    bundle: Path, capsys: pytest.CaptureFixture[str], later: dict[str, Any], how: str
) -> None:
    on = {"data": "talks", "split": "test", "limit": None, "noise": "none"}
    append(bundle, judged("eval", "ort", "fp32", 5, "DIFFERENT", bundle, **on, reference="torch"))
    append(bundle, judged("eval", "ort", "fp32", 0, "EQUIVALENT" if how else "", bundle, **on | later))
    found = states(steps(capsys, bundle, 8))
    assert found["F1", "ort fp32, talks (test)"] == "failed"
    if how:
        assert found["F1", f"ort fp32, talks (test, {how})"] == "ok"
    append(bundle, judged("eval", "ort", "fp32", 0, "EQUIVALENT", bundle, **on, reference="torch"))
    assert states(steps(capsys, bundle))["F1", "ort fp32, talks (test)"] == "ok"
