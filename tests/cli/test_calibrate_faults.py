"""Calibrations that are wrong: reported by the audit, in what is shown and in the receipt, or refused.

What a product makes of numbers that are not finite is in `test_calibrate_usage`, graphs that are altered afterwards in
`tests.parity.test_gates`.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration import calibrator
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.types import EMOTIONS
from tests.calibration.talk import Talk, relabelled, write_jsonl, write_talk
from tests.cli.calibrating import SMALL, Bundles, calibrate, calibrated, state_of
from tests.selection.planting import scaled


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


@contextmanager
def off_by(monkeypatch: pytest.MonkeyPatch, factor: float, only: str | None = None) -> Iterator[None]:
    """All thresholds, or one, are multiplied when they have been chosen."""
    choose = calibrator.calibration_from_statistics

    def wrong(*args: Any, **named: Any) -> Calibration:
        calibration = choose(*args, **named)
        inputs = {
            name: InputScale(name, scale.threshold * (factor if only in (None, name) else 1), scale.smoothing)
            for name, scale in calibration.inputs.items()
        }
        return replace(calibration, inputs=inputs)

    with monkeypatch.context() as patch:
        patch.setattr(calibrator, "calibration_from_statistics", wrong)
        yield


def audit(bundle: Path, data: Path, *arguments: str) -> tuple[dict[str, str], list[str]]:
    """The verdicts by tensor, and the warnings of the receipt."""
    asked = ("--precision", "int8", "--method", "max", *SMALL, "--force", *arguments)
    (graph,) = calibrated(bundle, data, *asked)["graphs"]
    receipt = json.loads((bundle / "receipts/calibration-unimodal-int8.json").read_text())
    return {t["tensor"]: t["verdict"] for t in graph["audit"]["tensors"]}, receipt["warnings"]


def test_a_right_one(bundle: Path, talk: Talk) -> None:
    verdicts, warnings = audit(bundle, talk.folder)
    assert set(verdicts.values()) == {"ok"}
    assert not [text for text in warnings if "saturating" in text or "threshold that is off" in text]


@pytest.mark.parametrize(
    ("factor", "verdict", "words"),
    [(1 / 4, "SATURATES", "saturating"), (4, "TOO WIDE", "with a threshold that is off")],
)
@pytest.mark.parametrize("only", [None, "utt_transformer.layer.1/LayerNormalization"])
def test_thresholds_that_are_off_by_4(
    bundle: Path,
    talk: Talk,
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    verdict: str,
    words: str,
    only: str | None,
) -> None:
    with off_by(monkeypatch, factor, only):
        verdicts, warnings = audit(bundle, talk.folder)
    wrong = [tensor for tensor, found in verdicts.items() if found == verdict]
    assert wrong == ([only] if only else list(verdicts))
    more = "" if only else f" and {len(verdicts) - 1} more"
    assert f"unimodal int8: {words}: {wrong[0]}{more}" in warnings


@pytest.mark.parametrize(("factor", "code"), [(1, 0), (1 / 4, 4)])
def test_a_graph_that_answers_noise_never_lands(
    tiny_bundle: Bundles,
    talk: Talk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    code: int,
) -> None:
    """Of the faces, whose answers depend on most of what is computed."""
    path = Path(shutil.copytree(tiny_bundle("roberta").path, tmp_path / "bundle"))
    before = state_of(tmp_path)
    with off_by(monkeypatch, factor):
        assert calibrate(path, talk.folder, "--precision", "swin=int8", "--method", "max", *SMALL) == code
    shown = capsys.readouterr()
    if code:
        assert "swin in int8 answers with too much noise: face_logits has" in shown.err
        assert state_of(tmp_path) == before


def test_the_gate_can_be_set(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of(bundle.parent)
    common = ("--precision", "int8", "--method", "max", *SMALL)
    assert calibrate(bundle, talk.folder, *common, "--min-sqnr", "60", "--json") == 4
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["tensor"]) == ("ParityError", "logits")
    assert "at least 60 dB are needed" in shown["what"]
    assert state_of(bundle.parent) == before
    assert calibrate(bundle, talk.folder, *common, "--min-sqnr", "30", "-q") == 0


def test_a_saturated_tensor(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """One number in twenty is cut off, because that was asked for; it is said aloud, too."""
    asked = ("--precision", "int8", "--method", "percentile", "--percentile", "95", *SMALL)
    assert calibrate(bundle, talk.folder, *asked, "-q") == 0
    assert "warning: unimodal int8: saturating: " in " ".join(capsys.readouterr().out.split())
    receipt = json.loads((bundle / "receipts/calibration-unimodal-int8.json").read_text())
    for tensor in receipt["audit"]["tensors"]:
        assert tensor["verdict"] == "SATURATES"
        assert 0.03 < tensor["saturated"] < 0.06


def test_one_class_only(
    bundle: Path, talk: Talk, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    joy = EMOTIONS.index("joy")
    dialogues = relabelled(talk.train, dict.fromkeys(range(7), joy)).dialogues
    seen = tuple(replace(d, utterances=tuple(u for u in d.utterances if u.vision_length)) for d in dialogues)
    path = write_jsonl(tmp_path_factory.mktemp("joy") / "train.jsonl", seen)
    words = "all labelled utterances are of one emotion, joy"
    assert calibrate(bundle, path, "--precision", "int8", "--method", "max", "--split", "train") == 0
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert f"warning: {words}" in " ".join(text.split())
    receipt = json.loads((bundle / "receipts/calibration-unimodal-int8.json").read_text())
    assert words in receipt["warnings"]


def test_a_tensor_that_is_nothing_but_zeros(
    bundle: Path, talk: Talk, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight of zeros makes one; it has no range, and is named."""
    attention = "utt_transformer.layer.1.transformer_self_attention.selfatt.value"
    path = tmp_path_factory.mktemp("zeros") / "bundle"
    scaled(Bundle.open(bundle), path, "unimodal", {f"{attention}.weight": 0.0, f"{attention}.bias": 0.0})
    before = state_of(path.parent)
    assert calibrate(path, talk.folder, "--precision", "int8", *SMALL, "--json") == 2
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["tensor"]) == ("DataError", "utt_transformer.layer.1/Reshape_3")
    assert state_of(path.parent) == before
