import json
from pathlib import Path

import numpy as np
import pytest

from tests.bundle.samples import FULL, make_bundle
from tests.cli.running import exit_code, in_own_process
from tests.golden import GOLDEN

PUBLISHED = GOLDEN / "roberta" / "pretrained_model"


def test_bundle_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    assert exit_code("inspect", str(bundle.path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "fmmt.inspect/1"
    assert (found["kind"], found["modality"]) == ("bundle", "T+A+V")
    assert found["size_bytes"] == sum((bundle.path / name).stat().st_size for name in bundle.manifest.files)
    assert found["manifest"] == json.loads((bundle.path / "manifest.json").read_text())


def test_bundle_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    assert exit_code("inspect", str(bundle.path)) == 0
    text = capsys.readouterr().out
    for expected in (
        "T+A+V",
        "A (audio positions)   14\n",
        "kind roberta",
        "depths 2-2-6-2",
        "swin    fp32",
        "multimodal.pt",
    ):
        assert expected in text
    assert bundle.manifest.files["swin.onnx"].sha256[:16] in text
    assert max(map(len, text.replace(str(bundle.path), "").splitlines())) <= 100


def test_damaged_and_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b").path
    (bundle / "tokenizer.json").write_bytes(b"[]")
    assert exit_code("inspect", str(bundle)) == 8
    assert "tokenizer.json" in capsys.readouterr().err
    assert exit_code("inspect", str(tmp_path / "none")) == 8
    assert "does not exist" in capsys.readouterr().err
    assert exit_code("inspect", str(tmp_path)) == 8


def test_published_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes as reference.md gives them for the golden data: H = 48, A = 14, V = 6, audio 24-d, vision 16-d."""
    assert exit_code("inspect", str(PUBLISHED / "FacialMMT-RoBERTa"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["kind"], found["modality"]) == ("fmmt.inspect/1", "checkpoint", "T+A+V")
    fusion = found["sizes"]["fusion"]
    assert [fusion[name] for name in ("hidden_size", "audio_length", "vision_length")] == [48, 14, 6]
    assert [fusion[name] for name in ("audio_size", "vision_size", "text_length")] == [24, 16, 38]
    assert set(found["sizes"]) == {"swin", "plm", "fusion"}


def test_unimodal_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    expected = np.load(GOLDEN / "roberta" / "expected.npz")
    assert expected["unimodal_logits"].shape[1] == 7
    path = PUBLISHED / "FacialMMT-unimodal" / "unimodal_model_V.pt"
    assert exit_code("inspect", str(path)) == 0
    text = capsys.readouterr().out
    assert "checkpoint of unimodal" in text
    assert "V (vision positions)  6\n" in text
    assert "A (audio" not in text


def test_without_torch() -> None:
    code = "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None"
    assert in_own_process(code, "inspect", str(PUBLISHED / "FacialMMT-RoBERTa")).returncode == 0
