"""`fmmt verdict`: what it shows, writes and refuses."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.content import content_of, text_from_digests
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.selection import matrix
from fmmt_deploy.selection.matrix import Row
from fmmt_deploy.types import EMOTIONS
from tests.cli.running import exit_code
from tests.pipeline.conversations import conversations
from tests.selection.lowered import lowered_bundle

Bundles = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = {"swin": ("fp16",), "plm": ("fp16", "int8-fp32"), "fusion": ("fp16", "bf16")}
    folder = tmp_path_factory.mktemp("lowered") / "bundle"
    return lowered_bundle(tiny_bundle("roberta"), folder, wanted).path  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`val.jsonl` with labels, `train.jsonl` without."""
    folder = tmp_path_factory.mktemp("data")
    lines = [dialogue_line(dialogue, folder) for dialogue in conversations(folder)[:3]]
    (folder / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        for turn in line["utterances"]:
            turn.pop("label", None)
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def dialogue_line(dialogue: Any, folder: Path) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [
        {"id": f"{dialogue.id}_{i}", "text": text, "target": False} for i, text in enumerate(dialogue.texts)
    ]
    for utterance in dialogue.utterances:
        for name, rows, count in (
            ("audio", utterance.audio, utterance.audio_length),
            ("vision", utterance.vision, utterance.vision_length),
        ):
            np.save(folder / f"{utterance.id}_{name}.npy", rows[:count])
        turns[utterance.position] = {
            "id": utterance.id,
            "text": dialogue.texts[utterance.position],
            "label": EMOTIONS[utterance.label],
            "faces": [path.name for path in utterance.faces],
            "audio": f"{utterance.id}_audio.npy",
            "vision": f"{utterance.id}_vision.npy",
        }
    return {"id": dialogue.id, "utterances": turns}


def verdict(bundle: Path, data: Path, *arguments: str) -> int:
    return exit_code("verdict", "-b", str(bundle), "--data", str(data), *arguments)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@contextmanager
def calibrated_on(bundle: Path, data: Path) -> Iterator[None]:
    """The bundle, with a receipt for a while."""
    read = read_data(data, "val", Bundle.open(bundle).manifest.architecture)
    digests = text_from_digests(digest for content in content_of(read) for digest in content.digests)
    receipts = bundle / "receipts"
    receipts.mkdir()
    (receipts / "calibration-plm-int8-fp32.json").write_text(json.dumps({"coverage": {"digests": digests}}))
    yield
    shutil.rmtree(receipts)


def test_tables_and_a_plot(bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "verdict.svg"
    with calibrated_on(bundle, data):
        assert verdict(bundle, data, "--plot", str(plot), "--no-time") == 0
    captured = capsys.readouterr()
    assert "judging plm fp16" in captured.err
    for words in ("ΔF1", "kept faces", "what it gains", "worth it", "dominated", "not measured", f"wrote {plot}"):
        assert words in captured.out
    assert "fmmt calibrate" in captured.out
    assert "fmmt cast" in captured.out
    assert plot.read_text().count("fp16") >= 4
    for text in (captured.out, captured.err):
        assert "were calibrated on (plm-int8-fp32)" in text


def test_json(bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(bundle, data, "--json", "-q", "--limit", "2", "--max-f1-drop", "0.5") == 0
    shown = document(capsys)
    assert (shown["schema"], shown["engine"], shown["labelled"]) == ("fmmt.verdict/1", "emulated", True)
    assert (shown["dialogues"], shown["utterances"], shown["max_f1_drop"], shown["plot"]) == (2, 6, 0.005, None)
    rows = {(row["part"], row["precision"]): row for row in shown["rows"]}
    assert [key for key in rows if key[0] == "all"] == [("all", "fp32"), ("all", "fp16")]
    judged = rows["plm", "fp16"]
    assert judged["mark"] == "worth it"
    assert judged["timing"] is None
    assert judged["judgement"]["utterances"] == 6
    assert judged["judgement"]["sqnr_db"] > 40
    assert set(judged["judgement"]["f1"]["interval"]) == {"low", "high", "confidence"}
    assert rows["plm", "int8-fp32"]["timing"]["by"] == "ort"
    assert rows["swin", "int8"]["missing"]


def test_unlabelled_data(bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--split", "train", "--no-time", "--limit", "2")
    assert verdict(bundle, data, *arguments, "--json", "-q") == 0
    shown = document(capsys)
    assert (shown["labelled"], shown["max_f1_drop"]) == (False, None)
    assert all(row["judgement"] is None or row["judgement"]["f1"] is None for row in shown["rows"])
    assert verdict(bundle, data, *arguments, "--max-f1-drop", "0.5") == 2
    assert "needs a label for every utterance" in capsys.readouterr().err


def test_another_engine(bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(bundle, data, "--engine", "ort", "--no-time", "--limit", "2") == 0
    captured = capsys.readouterr()
    assert "Judged with ort" in captured.out
    assert "warning: ONNX Runtime computes float16 in float32 on a CPU" in captured.err
    assert "fusion" in captured.out[captured.out.index("not judged, or not timed") :]  # bf16 has no kernel there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plot", "plot.pdf"), ".svg or .png"),
        (("--plot", "nowhere/plot.svg"), "no folder"),
        (("--split", "test"), "no test split"),
        (("--max-f1-drop", "-1"), "max-f1-drop"),
    ],
)
def test_usage(
    bundle: Path, data: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """Before anything is computed."""
    assert verdict(bundle, data, *arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "judging" not in captured.err


def test_an_engine_that_judges_nothing_is_an_error(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (Row("swin", "fp32", note="No NVIDIA GPU was found."), Row("swin", "int8", missing=True))
    monkeypatch.setattr(matrix, "judged_matrix", lambda *_, **__: rows)
    assert verdict(bundle, data, "--engine", "trt", "--limit", "1", "--json", "-q") == 3
    shown = document(capsys)
    assert (shown["schema"], shown["why"]) == ("fmmt.error/1", "No NVIDIA GPU was found.")
    assert "can judge nothing" in shown["what"]
