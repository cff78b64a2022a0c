"""From the published pickles to answers by the command line, against what the published code computed (`golden`)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.types import EMOTIONS
from tests.cli.running import exit_code
from tests.models import Golden

LOGITS = 2e-5
"""As promised; the published code's own float32 is not nearer to the exact values."""


def run(golden: Golden, bundle: Path, out: Path, *options: str) -> list[dict]:
    assert exit_code("run", "-b", str(bundle), "--data", str(golden.data), "-o", str(out), "-q", *options) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("engine", ["ort", "torch"])
@pytest.mark.parametrize("recorded", [False, True], ids=["no-noise", "recorded-noise"])
def test_answers(golden: Golden, tmp_path: Path, engine: str, recorded: bool) -> None:
    noise = str(golden.data / "expected.npz") if recorded else "none"
    answers = run(golden, golden.bundle, tmp_path / "out.jsonl", "--engine", engine, "--noise", noise)
    kind = "gumbel_" if recorded else ""
    expected = golden.expected[f"{kind}logits"]

    assert [answer["utterance"] for answer in answers] == list(golden.dataset.order)
    logits = np.array([answer["logits"] for answer in answers])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS)
    assert [answer["label"] for answer in answers] == [EMOTIONS[i] for i in expected.argmax(axis=1)]
    shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose([answer["probabilities"] for answer in answers], shares, rtol=0, atol=LOGITS)
    check_kept_faces(golden, answers, kind)


def check_kept_faces(golden: Golden, answers: list[dict], kind: str) -> None:
    """The published code moves kept rows to the front: each of them is the feature row of the face we say was kept."""
    rows, mask = golden.expected[f"{kind}vision_in"], golden.expected[f"{kind}vision_mask"]
    vision = {u.id: u.vision for dialogue in golden.dataset.dialogues for u in dialogue.utterances}
    dropped = 0
    for answer, found, kept in zip(answers, rows, mask.sum(axis=1), strict=True):
        features = vision[answer["utterance"]]
        faces = answer["kept_faces"]
        assert len(faces) == kept
        assert faces == sorted(set(faces))
        np.testing.assert_array_equal(features[faces], found[: len(faces), : features.shape[1]])
        dropped += int(features.any(axis=1).sum()) - len(faces)
    assert dropped > 0  # else nothing was shown


def test_weighted_f1(golden: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("eval", "-b", str(golden.bundle), "--data", str(golden.data), "--json") == 0
    (mode,) = json.loads(capsys.readouterr().out)["modes"]
    evaluation = mode["evaluation"]
    decisions = golden.expected["logits"].argmax(axis=1)
    expected = f1_score(golden.expected["labels"], decisions, average="weighted", zero_division=0)
    assert evaluation["weighted_f1"] == pytest.approx(float(golden.expected["weighted_f1"]), abs=1e-9)
    assert evaluation["weighted_f1"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("engine", ["ort", "torch"])
def test_vision_only(golden: Golden, tmp_path: Path, engine: str) -> None:
    answers = run(golden, golden.unimodal, tmp_path / "out.jsonl", "--engine", engine)
    logits = np.array([answer["logits"] for answer in answers])
    np.testing.assert_allclose(logits, golden.expected["unimodal_logits"], rtol=0, atol=LOGITS)


def test_parity_on_the_data_set_itself(golden: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("parity", "-b", str(golden.bundle), "--data", str(golden.data), "--limit", "1", "--json", "--noise")
    assert exit_code(*arguments, "gumbel") == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in found["stages"]] == ["swin", "plm", "fusion", "end to end"]
    assert found["passed"]
    assert exit_code(*arguments, str(golden.data / "expected.npz")) == 2  # these draws are for all dialogues


def test_the_installed_command(golden: Golden, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [str(Path(sys.executable).with_name("fmmt")), "run", "-b", str(golden.unimodal), "--data"]
    done = subprocess.run([*command, str(golden.data), "-o", str(out)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    logits = [json.loads(line)["logits"] for line in out.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose(logits, golden.expected["unimodal_logits"], rtol=0, atol=LOGITS)


def test_the_older_form_of_the_data_set(golden: Golden, tmp_path: Path) -> None:
    (old,) = golden.data.rglob("*.dt")
    arguments = ("--data", str(old), "--faces-dir", str(golden.data), "--limit", "1", "-q")
    out = tmp_path / "out.jsonl"
    assert exit_code("run", "-b", str(golden.bundle), *arguments, "-o", str(out)) == 0
    logits = [json.loads(line)["logits"] for line in out.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose(logits, golden.expected["logits"][: len(logits)], rtol=0, atol=LOGITS)
    dataset = read_data(old, "test", Bundle.open(golden.bundle).manifest.architecture, golden.data)
    assert dataset.order == golden.dataset.order
