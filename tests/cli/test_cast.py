"""`fmmt cast`: what it writes, says and refuses, with the exit codes that scripts rely on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from tests.cli.running import exit_code
from tests.models import TINY

Bundles = Callable[[str], Bundle]


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    """A copy of the small vision-only model's bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


def cast(bundle: Path, *arguments: str) -> int:
    return exit_code("cast", "-b", str(bundle), *arguments)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("model", TINY)
def test_every_model(tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    original, out = tiny_bundle(model), tmp_path / "out"
    assert cast(original.path, "--precision", "fp16", "--require", "fp16>=0.95", "-o", str(out), "--json", "-q") == 0
    shown = document(capsys)
    made = Bundle.open(out)
    assert (shown["schema"], shown["dry_run"], shown["path"]) == ("fmmt.cast/1", False, str(out))
    assert [g["graph"] for g in shown["graphs"]] == list(original.manifest.graphs)
    for graph in shown["graphs"]:
        nodes = [n.name for n in onnx.load(original.graph(graph["graph"]), load_external_data=False).graph.node]
        assert [node["node"] for node in graph["nodes"]] == nodes
        assert all(node["reason"] for node in graph["nodes"])
        assert {node["type"] for node in graph["nodes"]} <= {"fp16", "fp32", "integer"}
        assert graph["flops_share"]["fp16"] >= 0.95
        assert all(r["verdict"] in ("ok", "float32") for r in graph["ranges"])
        assert made.graph(graph["graph"], "fp16") == out / graph["file"]
    for name, entry in original.manifest.files.items():  # nothing of the old one changed, here or there
        assert made.manifest.files[name] == entry
        assert hash_file(original.path / name) == entry.sha256
    with open_engines(made, "emulated", dict.fromkeys(made.manifest.graphs, "fp16"), 1):
        pass


def test_in_place_one_after_the_other(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cast(bundle, "--precision", "fp16") == 0
    text = capsys.readouterr().out
    for words in ("wrote", "fp16 99.", "softmax", "LayerNorm", "emulated", "Ranges on self-test"):
        assert words in text
    assert cast(bundle, "--precision", "bf16", "-q") == 0
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32", "fp16", "bf16"]
    before = hash_file(bundle / "manifest.json")
    assert cast(bundle, "--precision", "fp16") == 2
    assert "has unimodal in fp16 already" in capsys.readouterr().err
    assert cast(bundle, "--precision", "fp16", "-o", str(bundle.parent / "other"), "-q") == 0  # nothing is replaced
    assert hash_file(bundle / "manifest.json") == before
    capsys.readouterr()
    assert cast(bundle, "--precision", "fp16", "--keep-float32", "Gemm", "--force", "--json") == 0
    nodes = document(capsys)["graphs"][0]["nodes"]
    assert [(n["node"], n["type"]) for n in nodes if n["reason"] == "asked for"] == [("Gemm", "fp32")]
    assert hash_file(bundle / "manifest.json") != before
    assert Bundle.open(bundle).manifest.graphs["unimodal"].keys() == {"fp32", "fp16", "bf16"}


def test_a_dry_run_writes_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    assert cast(bundle, "--precision", "fp16", "--dry-run") == 0
    assert "would write" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "fp32"], "nothing to cast"),
        (["--precision", "int8"], "fmmt calibrate -b "),
        (["--precision", "swin=fp16"], "no graph 'swin'"),
        (["--precision", "fp16", "--require", "fp16>0.9"], "is not a requirement"),
        (["--precision", "fp16", "--require", "bf16>=0.9"], "no graph is cast to bf16"),
        (["--precision", "fp16", "--keep-float32", "Conv*"], "fits no node of unimodal"),
    ],
)
def test_usage(bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert cast(bundle, *arguments) == 2
    assert words in capsys.readouterr().err
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]


def test_a_requirement_that_is_not_met(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--precision", "fp16", "--require", "fp16>=0.95", "--keep-float32", "utt_transformer.layer.0/Gemm*"]
    assert cast(bundle, *arguments) == 9
    assert "95.00% were required" in capsys.readouterr().err
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]


def planted(bundle: Path, graph: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Bundle:
    """The bundle with one weight changed, and a manifest that agrees."""
    opened = Bundle.open(bundle)
    tensors = onnx.load(opened.graph(graph), load_external_data=False).graph.initializer
    entry = {item.key: item.value for item in next(t for t in tensors if t.name == name).external_data}
    relative = f"graphs/fp32/{graph}.safetensors"
    data = bytearray((bundle / relative).read_bytes())
    part = slice(int(entry["offset"]), int(entry["offset"]) + int(entry["length"]))
    data[part] = change(np.frombuffer(data[part], np.float32)).astype(np.float32).tobytes()
    with extend_bundle(opened) as writer:
        writer.place(relative).write_bytes(data)
        return writer.commit(opened.manifest)


def test_overflow_is_found_before_a_gpu_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An intermediate beyond 65504, from weights that all fit; the answer is not even wrong in float32."""
    name = "utt_transformer.layer.0.intermediate.dense.weight"
    planted(bundle, "unimodal", name, lambda w: w * np.float32(60000 / np.abs(w).max()))
    assert cast(bundle, "--precision", "fp16", "--json") == 9
    shown = document(capsys)
    assert (shown["exit_code"], shown["kind"]) == (9, "PrecisionError")
    assert shown["tensor"].startswith("utt_transformer.layer.0/Gemm")
    assert "of node 'utt_transformer.layer.0/Gemm" in shown["what"]
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]
    # Kept in float32, nothing overflows any more; but these weights answer otherwise than the record says.
    assert (
        cast(bundle, "--precision", "fp16", "--keep-float32", "utt_transformer.layer.0/*", "--dry-run", "--json") == 0
    )
    ranges = document(capsys)["graphs"][0]["ranges"]
    assert any(r["verdict"] == "asked for" and r["largest"] > 65504 for r in ranges)


def test_a_weight_that_overflows(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "utt_transformer.layer.1.output.dense.weight"

    def large(weight: np.ndarray) -> np.ndarray:
        changed = weight * 0
        changed[0] = 70000
        return changed

    planted(bundle, "unimodal", name, large)
    assert cast(bundle, "--precision", "fp16") == 9
    assert f"The weight {name} overflows fp16" in capsys.readouterr().err
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_bad_cast_never_lands(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The float32 graph answers otherwise than the record: so does its cast, and it is not accepted."""
    planted(bundle, "unimodal", "classifier.weight", lambda w: -w)
    assert cast(bundle, "--precision", "fp16") == 4
    assert "logits" in capsys.readouterr().err
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]


def test_without_a_self_test_nothing_is_accepted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Bundle.open(bundle)
    with extend_bundle(opened, without=["self_test.npz"]) as writer:
        writer.commit(replace(opened.manifest, self_test=None))
    assert cast(bundle, "--precision", "fp16") == 8
    assert "holds no self-test" in capsys.readouterr().err


def test_ranges_on_a_data_set(golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Utterances and faces come from the data set: their number is in the numbers of elements."""
    arguments = ["--precision", "plm=bf16,fusion=fp16", "--dry-run", "--json", "--data", str(golden.data)]
    assert cast(golden.bundle, *arguments, "--split", "test", "--limit", "2") == 0
    shown = document(capsys)
    assert shown["data"].endswith("(test)")
    assert [(g["graph"], g["precision"]) for g in shown["graphs"]] == [("plm", "bf16"), ("fusion", "fp16")]
    ranges = {r["tensor"]: r for r in shown["graphs"][1]["ranges"]}
    utterances = sum(len(d.utterances) for d in golden.dataset.dialogues[:2])
    assert ranges["logits"]["elements"] == 7 * utterances
    assert ranges["audio"]["held"] == ["fp32"]  # its first Linear is kept in float32
    assert ranges["gate/Mul_6"]["held"] == ["fp16", "fp32"]  # the kept faces: summed as they are, cast for their Linear
