import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.cache import graph_sha256
from fmmt_deploy.engines.tensorrt.target import PORTABLE
from fmmt_deploy.engines.tensorrt.trust import write_verdict
from fmmt_deploy.reference.presets import PRESETS
from tests.bundle.samples import FULL, make_bundle
from tests.cli.running import REPOSITORY, exit_code, in_own_process
from tests.engines.tensorrt.engine_files import KEY, written
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


def test_engines(tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the cache holds, and whether it is of any use: made-up plans, as no plan is read."""
    bundle = Bundle.open(Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")))
    key = replace(KEY, graph="unimodal", precision="fp32", graph_sha256=graph_sha256(bundle, "unimodal", "fp32"))
    folder = bundle.path / "engines"
    tried = written(folder, key)
    write_verdict(tried, checks=("unimodal: repeat",), failed=(), gpu="NVIDIA L4", version=key.version)
    failed = written(folder, replace(key, version="1.7.2"))
    write_verdict(failed, checks=("unimodal: repeat",), failed=("unimodal: repeat",), gpu="NVIDIA L4", version="1.7.2")
    written(folder, replace(key, version="1.7.3"))
    written(folder, replace(key, graph_sha256="0" * 64, target=PORTABLE))
    (folder / "broken.engine").write_bytes(b"x")
    assert exit_code("inspect", str(bundle.path)) == 0
    text = capsys.readouterr().out
    for expected in ("passed on", "FAILED on", "not tried", "of another graph", "8.0, 8.6, 8.9,", "1.7.2"):
        assert expected in text
    assert exit_code("inspect", str(bundle.path), "--json") == 0
    engines = {Path(engine["path"]).name: engine for engine in json.loads(capsys.readouterr().out)["engines"]}
    assert len(engines) == 5
    assert engines["broken.engine"]["problem"] == "not a file of ours, or cut short"
    assert engines[tried.name]["about"]["key"]["target"]["gpu"] == "NVIDIA L4"
    assert engines[tried.name]["self_consistency"]["failed"] == []
    assert engines[failed.name]["self_consistency"]["failed"] == ["unimodal: repeat"]
    assert [engine["of_this_bundle"] for engine in engines.values() if "about" in engine].count(False) == 1


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


def test_costs_of_a_bundle(tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]) -> None:
    """Against PyTorch's own FLOP counter on the reference, and sizes of files and of the architecture's arrays."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fmmt_deploy.reference.presets import PRESETS, random_model

    bundle = tiny_bundle("roberta")
    options = ("--tokens", "50", "--faces", "4", "--utterances-per-dialogue", "8")
    assert exit_code("inspect", str(bundle.path), *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"] == {"tokens": 50, "faces": 4.0, "utterances_per_dialogue": 8.0}
    costs = {cost["graph"]: cost for cost in found["costs"]}
    assert {(name, cost["precision"], cost["unit"]) for name, cost in costs.items()} == {
        ("swin", "fp32", "face"),
        ("plm", "fp32", "dialogue"),
        ("fusion", "fp32", "utterance"),
    }

    model, ids = random_model(PRESETS["tiny"]), torch.ones(1, 50, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.run("plm", {"input_ids": ids, "attention_mask": ids})
    assert costs["plm"]["flops"] == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        model.run("swin", {"faces": torch.zeros(1, 224, 224, 3, dtype=torch.uint8)})
    assert costs["swin"]["flops"] == pytest.approx(counter.get_total_flops(), rel=0.01)

    assert costs["swin"]["flops_per_utterance"] == 4 * costs["swin"]["flops"]
    assert costs["plm"]["flops_per_utterance"] == costs["plm"]["flops"] / 8
    assert costs["fusion"]["flops_per_utterance"] == costs["fusion"]["flops"]
    assert costs["swin"]["input_bytes_per_utterance"] == 4 * 224 * 224 * 3
    assert costs["plm"]["input_bytes_per_utterance"] == 2 * 8 * 50 / 8  # ids and mask, int64
    arrays = 14 * 24 + 6 * 16 + 6 + 6 * 7  # audio, vision, its mask, noise: float32
    numbers = 4 + 6  # row, start and length of the words, length of the audio; indices of faces: int64
    assert costs["fusion"]["input_bytes_per_utterance"] == 4 * arrays + 8 * numbers
    for name, cost in costs.items():
        assert cost["weight_bytes"] >= 0.9 * bundle.manifest.files[f"graphs/fp32/{name}.safetensors"].size_bytes


def test_costs_as_text(tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle("unimodal")
    assert exit_code("inspect", str(bundle.path)) == 0
    text = capsys.readouterr().out
    assert "Cost of an utterance with 10 faces, in a dialogue of 134 tokens that 9.3 utterances share" in text
    *_, unimodal, together = text.splitlines()
    assert unimodal.split()[:2] == ["unimodal", "fp32"]
    assert together.split()[-2:] == unimodal.split()[-2:]
    assert exit_code("inspect", str(bundle.path), "--faces", "-1") == 2


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/pretrained_model/*/*.pt")), ids=lambda path: path.name)
def test_every_golden_checkpoint(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("inspect", str(path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    parts = {part["part"]: part["parameters"] for part in found["parts"]}
    assert parts.keys() == found["sizes"].keys()
    if "swin" in path.name:  # the golden data's own list of tensors
        recipe = json.loads((path.parents[2] / "swin_recipe.json").read_text())
        assert parts == {"swin": sum(math.prod(shape) for shape in recipe["shapes"].values())}
    else:
        assert set(parts) == ({"unimodal"} if "unimodal" in path.name else {"plm", "fusion"})


def test_own_and_plain_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    from fmmt_deploy.reference.loading import save_checkpoint
    from fmmt_deploy.reference.presets import random_model
    from tests.reference.samples import multimodal, plm_dir, state_dict

    model = random_model(PRESETS["tiny"])
    save_checkpoint(model, tmp_path / "run")
    assert exit_code("inspect", str(tmp_path / "run"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"tau": 1.0, "threshold": 0.2}
    floats = sum(t.numel() for t in model.state_dict().values() if t.is_floating_point())
    assert sum(part["parameters"] for part in found["parts"]) == floats

    plain = tmp_path / "x.safetensors"
    save_file({name: tensor.numpy() for name, tensor in state_dict(multimodal("roberta")).items()}, plain)
    assert exit_code("inspect", str(plain)) == 8
    assert "--plm-dir" in capsys.readouterr().err
    assert exit_code("inspect", str(plain), "--plm-dir", str(plm_dir("roberta"))) == 0
    assert "checkpoint of plm, fusion" in capsys.readouterr().out


def test_which_turns_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fmmt_deploy.reference.loading import save_checkpoint
    from fmmt_deploy.reference.presets import random_model

    for context, told in (("dialogue", "all turns of its dialogue"), ("past", "the turns up to it")):
        architecture = replace(FULL, context=context)
        bundle = make_bundle(tmp_path / f"bundle-{context}", architecture=architecture)
        save_checkpoint(random_model(replace(PRESETS["tiny"], context=context)), tmp_path / context)
        for path in (bundle.path, tmp_path / context):
            assert exit_code("inspect", str(path)) == 0
            assert re.search(rf"^context +{told}", capsys.readouterr().out, re.MULTILINE)
    assert exit_code("inspect", str(tmp_path / "past"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["context"] == "past"


@pytest.mark.parametrize("name", ["README.md", "tests/golden/roberta/expected.npz", "docs"])
def test_what_is_nothing_of_ours(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("inspect", str(REPOSITORY / name)) == 8
    error = capsys.readouterr().err
    assert any(reason in error for reason in ("it is no pickle", "torch.save", "holds no checkpoint"))


def test_receipts_of_calibrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    graph, precision = next((g, p) for g, files in bundle.manifest.graphs.items() for p in files)
    path = bundle.path / f"receipts/calibration-{graph}-{precision}.json"
    path.parent.mkdir()
    coverage = {"source": "meld-data", "reading": {"split": "train"}, "utterances": 600}
    path.write_text(json.dumps({"coverage": coverage, "warnings": ["few faces"], "created": "2026-11-23T01:02:03"}))
    assert exit_code("inspect", str(bundle.path), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["calibrations"]
    assert found == {"graph": graph, "precision": precision, "coverage": coverage, "warnings": ["few faces"]}
    assert exit_code("inspect", str(bundle.path)) == 0
    assert "meld-data      train         600  2026-11-23T01:02:03         1" in capsys.readouterr().out
    path.write_text("{}")
    assert exit_code("inspect", str(bundle.path)) == 0
    assert "can't be read" in capsys.readouterr().out
