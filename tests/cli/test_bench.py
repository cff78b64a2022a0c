"""`fmmt bench` on a clock of our own, where every question of the time takes a tick: nothing depends on the machine."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.benchmark import bench, calls, rates, stages
from fmmt_deploy.benchmark.cold_start import ColdStart, Start
from fmmt_deploy.benchmark.samples import read_samples
from fmmt_deploy.benchmark.validity import Seen
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli import benching
from fmmt_deploy.receipts.kept import read_receipts
from tests.cli.running import exit_code

Bundles = Callable[[str], Bundle]

BOUNDARIES = ("device", "engine", "files")
TWO = ("--engine", "ort", "--engine", "torch")


class Machine:
    """What the command finds: how long a tick is, and what the witness says.

    Attributes:
        tick: Seconds.
        seen: What is seen of every table.
    """

    def __init__(self) -> None:
        self.tick, self.seen, self.now = 0.001, Seen(), 0.0

    def clock(self) -> float:
        self.now += self.tick
        return self.now

    def begin(self) -> None: ...

    def look(self) -> None: ...

    def end(self) -> Seen:
        return self.seen


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    for module in (bench, calls, stages):
        monkeypatch.setattr(module, "perf_counter", made.clock)
    monkeypatch.setattr(benching, "witnesses_for", lambda _: (made,))
    monkeypatch.setattr(rates, "rates_for", lambda *_: {"cpu fp32": lambda: 0.2})
    start = Start(900, 30, 5, 10**8, None)
    monkeypatch.setattr(bench, "cold_start", lambda _, choice, *__: ColdStart(choice.name, (start,)))
    return made


def measured(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> dict[str, Any]:
    """What `fmmt bench --json` says, with the least work there is."""
    least = ("--dialogues", "1", "--faces", "1", "--json", "-q")
    assert exit_code("bench", *arguments, *least) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture
def bundle(tiny_bundle: Bundles) -> tuple[str, ...]:
    """The model with the least work."""
    return "-b", str(tiny_bundle("unimodal").path), "--no-receipt"


@pytest.fixture
def with_text(tiny_bundle: Bundles) -> tuple[str, ...]:
    return "-b", str(tiny_bundle("roberta").path), "--no-receipt"


def test_every_boundary_has_its_own_table(
    with_text: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine
    quick = ("--rounds", "1", "--allow-invalid")
    document = measured(capsys, 0, *with_text, *TWO, "--baseline", "published", *quick)
    assert document["schema"] == "fmmt.bench/2"
    (workload,) = document["workloads"]
    assert workload["device"]["rows"] == []  # nothing is copied on the host, so that would be the same figures again
    assert set(workload["device"]["absent"]) == {"ort", "torch"}
    assert {(row["engine"], row["way"], row["part"]) for row in workload["engine"]["rows"]} == {
        (engine, way, part)
        for engine in ("ort", "torch")
        for way in ("alone", "batched")
        for part in ("swin", "plm", "fusion", "all")
    }
    (rate,) = workload["rates"]
    assert rate["gflops"] == 200  # 0.2 TFLOP/s
    assert {row["rate_gflops"] for row in workload["engine"]["rows"]} == {rate["gflops"], None}
    files = workload["files"]
    ways_of = {
        name: [(r["engine"], r["way"], r["cache"]) for r in files[name]["rows"]] for name in files if "-" in name
    }
    assert ways_of == {
        "single-stream": [
            ("torch", "published", False),
            ("ort", "alone", False),
            ("ort", "cached", True),
            ("torch", "alone", False),
            ("torch", "cached", True),
        ]
    }
    assert [(r["way"], r["cache"]) for r in files["offline"]["rows"]] == [
        ("published", False),
        ("together", False),
        ("batched", True),
        ("together", False),
        ("batched", True),
    ]
    assert {row["stage"] for row in files["stages"]["rows"]} == {"prepare", "swin", "plm", "fusion"}
    assert [row["engine"] for row in document["cold_start"]["rows"]] == ["ort", "torch"]
    assert len({workload[name]["says"] for name in BOUNDARIES}) == 3


def test_a_model_of_faces_alone(tiny_bundle: Bundles, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    del machine
    path = str(tiny_bundle("unimodal").path)
    document = measured(capsys, 0, "-b", path, "--no-receipt")
    files = document["workloads"][0]["files"]
    assert [(r["way"], r["cache"]) for name in ("single-stream", "offline") for r in files[name]["rows"]] == [
        ("alone", None),
        ("batched", None),
    ]
    assert exit_code("bench", "-b", path, "--no-receipt", "--baseline", "published") == 2
    assert "unimodal" in capsys.readouterr().err


def test_what_is_disturbed_is_invalid(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.seen = Seen(("Other processes took 43% of the processors; the limit is 5%.",), ("the clock",))
    document = measured(capsys, 7, *bundle)
    assert not document["valid"]
    assert document["reasons"] == list(machine.seen.reasons)
    assert document["unseen"] == ["the clock"]
    workload = document["workloads"][0]
    tables = [
        workload["engine"],
        workload["files"]["single-stream"],
        workload["files"]["offline"],
        document["cold_start"],
    ]
    for row in (row for table in tables for row in table["rows"]):
        assert (row["valid"], row["reasons"]) == (False, list(machine.seen.reasons))
    assert not measured(capsys, 0, *bundle, "--allow-invalid")["valid"]


def test_people_see_it_on_every_table(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.seen = Seen(("Too loud.",), ("the moon",))
    least = ("--dialogues", "1", "--faces", "1", "-q")
    assert exit_code("bench", *bundle, *least) == 7
    shown = capsys.readouterr()
    assert shown.out.startswith("This run is INVALID.\n  Too loud.\n  Not seen here: the moon.\n")
    titles = ("Engine: its calls", "single stream", "offline", "Where the time goes", "Cold start")
    parts = [part for part in shown.out.split("\n\n") if any(title in part.splitlines()[0] for title in titles)]
    assert len(parts) == 5
    for part in parts:
        assert all(line.endswith("INVALID") for line in part.splitlines()[2:] if line.startswith("ort"))
    assert shown.out.count("INVALID: Too loud.") == 5
    assert "ort: It computes on the host" in shown.out
    assert "too few" in shown.out  # p99 of 48 answers
    assert "This run is INVALID." in shown.err
    machine.seen = Seen()
    assert measured(capsys, 0, *bundle)["valid"]
    assert exit_code("bench", *bundle, *least) == 0
    assert capsys.readouterr().out.startswith("This run is VALID.")


def test_few_rounds_are_not_enough(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine
    document = measured(capsys, 7, *bundle, *TWO, "--rounds", "1")
    rows = document["workloads"][0]["files"]["single-stream"]["rows"]
    assert all("p90 needs at least" in row["reasons"][0] for row in rows)
    assert rows[1]["ratio"]["reasons"] == ["an interval needs at least 6 rounds of both, there are 1"]


@pytest.mark.parametrize(("wanted", "code"), [("0.9", 0), ("1.1", 6)])
def test_the_gate_on_speed(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str], wanted: str, code: int
) -> None:
    """By this clock everything is as fast as everything else."""
    del machine
    measured(capsys, code, *bundle, *TWO, "--min-speed-up", wanted)


def test_what_is_not_to_be_believed_is_no_gate(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.seen = Seen(("Too loud.",))
    measured(capsys, 7, *bundle, "--min-speed-up", "100")
    measured(capsys, 6, *bundle, "--min-speed-up", "100", "--allow-invalid")


@pytest.mark.parametrize(("tick", "code", "verdict"), [(0.00102, 0, "within"), (0.0012, 6, "slower")])
def test_an_earlier_run_is_compared_with(
    bundle: tuple[str, ...],
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tick: float,
    code: int,
    verdict: str,
) -> None:
    saved = tmp_path / "before.json"
    before = measured(capsys, 0, *bundle, "--save", str(saved))
    assert json.loads(saved.read_text()) == {name: value for name, value in before.items() if name != "receipt"}
    machine.tick = tick
    gate = ("--baseline-report", str(saved), "--fail-on-regression", "5%")
    after = measured(capsys, code, *bundle, *gate)
    assert after["regression"]["verdict"] == verdict
    measured(capsys, 0, *bundle, "--baseline-report", str(saved))  # compared, and no gate


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch-size", "4"), "of other settings: batch_size 8, now 4"),
        (("--faces", "2"), "of other work"),
        (("--engine", "torch"), "of another engine or precision: ort, now torch"),
        (("--scenario", "server", "--limit-ms", "50"), "of other settings: limit_ms None, now 50.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_can_not_be_compared_is_not_measured(
    bundle: tuple[str, ...],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    del machine
    saved = tmp_path / "before.json"
    measured(capsys, 0, *bundle, "--save", str(saved))
    monkeypatch.setattr(benching, "opened", None)
    least = ("--dialogues", "1", "--faces", "1") if "--faces" not in arguments else ("--dialogues", "1")
    assert exit_code("bench", *bundle, *least, *arguments, "--baseline-report", str(saved)) == 2
    assert words in capsys.readouterr().err


def test_raw_samples_are_written(
    bundle: tuple[str, ...], machine: Machine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    del machine
    path = tmp_path / "samples.jsonl"
    document = measured(capsys, 0, *bundle, "--samples", str(path))
    found = read_samples(path)
    parts = [f"ort {way} {part}" for way in ("alone", "batched") for part in ("unimodal", "all")]
    assert set(found.keys()) == {
        *((part, "engine", "single-stream") for part in parts),
        ("ort alone", "files", "single-stream"),
        ("ort batched", "files", "offline"),
    }
    (row,) = document["workloads"][0]["files"]["single-stream"]["rows"]
    times = found.times_ms("ort alone", "files", "single-stream")
    assert len(times) == row["latency"]["samples"]
    assert times.mean() == pytest.approx(row["latency"]["mean_ms"])
    assert exit_code("bench", *bundle, "--samples", str(path)) == 2  # it is there, and nothing was measured for it
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code", "verdict"), [((), 7, "INVALID"), (("--allow-invalid",), 0, "INVALID")])
def test_a_receipt_is_left_in_any_case(
    tiny_bundle: Bundles,
    tmp_path: Path,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    verdict: str,
) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("unimodal").path, path)
    before = len(read_receipts(path))
    machine.seen = Seen(("Too loud.",))
    document = measured(capsys, code, "-b", str(path), *arguments)
    receipt = read_receipts(path)[before:]
    (left,) = receipt
    assert document["receipt"] == f"receipts/{before + 1:04d}-bench.json"
    assert (left.command, left.exit_code, left.verdict) == ("bench", code, verdict)
    assert left.result["schema"] == "fmmt.bench/2"
    assert left.result["workloads"] == document["workloads"]
    manifest = Bundle.open(path).manifest
    assert left.subjects == {name: manifest.files[name].sha256 for name in left.subjects}
    assert any(name.endswith("unimodal.onnx") for name in left.subjects)
    assert left.inputs["data"].sha256 == document["workloads"][0]["workload"]["sha256"]
    assert left.settings["rounds"].source == "default"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "needs a model"),
        (("--random", "tiny", "-b", "x"), "needs a model"),
        (("-b", "x", "--data", "y", "--faces", "3"), "--faces shapes"),
        (("-b", "x", "--scenario", "multi-stream"), "multi-stream"),
        (("-b", "x", "--scenario", "server"), "within a limit"),
        (("-b", "x", "--limit-ms", "50"), "within a limit"),
        (("-b", "x", "--fail-on-regression", "5%"), "--baseline-report"),
        (("-b", "x", "--scenario", "server", "--limit-ms", "9", "--min-speed-up", "2"), "ratios"),
        (("-b", "x", "--limit", "3"), "--limit"),
        (("-b", "x", "--save", "/no/such/folder/f.json"), "folder"),
        (("-b", "x", "--save", "f.json", "--samples", "./f.json"), "--samples and --save are both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("bench", *arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-1%", "100%", "five", "1.5", "nan"])
def test_shares_that_are_none(share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Path(__file__).parents[1] / "benchmark" / "bench-sample.json"
    code = exit_code("bench", "-b", str(tmp_path), "--baseline-report", str(report), f"--fail-on-regression={share}")
    assert code == 2
    assert "is no share" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "fmmt.bench/1"}', '{"schema": "fmmt.bench/2"}'])
def test_a_baseline_report_that_is_none(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    assert exit_code("bench", "-b", str(tmp_path), "--baseline-report", str(path)) == 8
    assert capsys.readouterr().err
