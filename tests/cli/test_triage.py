"""`fmmt triage`: what it names and says, and the exit codes that scripts rely on."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.cast import typed_files
from fmmt_deploy.calibration.draft import write_draft
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.selection.layers import layered_graph, quantised_products
from fmmt_deploy.types import GraphName
from tests.cli.running import exit_code
from tests.selection.planting import scaled, swollen

Bundles = Callable[[str], Bundle]
LAYER = "utt_transformer.layer.1"


def triage(bundle: Bundle, precision: str, *arguments: str) -> int:
    return exit_code("triage", "-b", str(bundle.path), "--precision", precision, *arguments)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_nothing_fails(tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    assert triage(tiny_bundle("unimodal"), "bf16") == 0
    shown = capsys.readouterr()
    assert "unimodal: bf16 holds; nothing needs to be kept back." in shown.out
    assert "1 judgement on self-test" in shown.out
    assert "judgement 1: unimodal bf16" in shown.err


def test_a_culprit_is_named_and_keeping_it_back_helps(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = f"{LAYER}.transformer_self_attention"
    factors = swollen((f"{inside}.selfatt.value", f"{inside}.dense_norm.dense"))
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "planted", "unimodal", factors)
    assert triage(bundle, "fp16", "--json", "-q") == 0
    shown = document(capsys)
    (graph,) = shown["graphs"]
    assert (shown["schema"], shown["together"], graph["outcome"]) == ("fmmt.triage/1", None, "kept back")
    assert graph["layers"] == [LAYER]
    assert (graph["before"]["own"], graph["kept_in"]) == (None, "fp32")  # infinite
    assert graph["after"]["own"] < 0.02
    assert shown["judgements"] == graph["judgements"] > 3
    keep = [option for pattern in graph["keep"] for option in ("--keep-float32", pattern)]
    cast = ("cast", "-b", str(bundle.path), "--precision", "fp16", "-q", "-o", str(tmp_path / "cast"))
    assert exit_code(*cast) == 9
    assert exit_code(*cast, *keep) == 0
    capsys.readouterr()
    assert triage(bundle, "fp16", "-q") == 0
    text = capsys.readouterr().out
    (printed,) = (shlex.split(line) for line in text.splitlines() if line.startswith("fmmt cast"))
    assert exit_code(*printed[1:], "-q", "-o", str(tmp_path / "as printed")) == 0
    for words in ("FAILS", "holds", f"to blame are {LAYER}", " ".join(f"'{p}'" if "/" in p else p for p in keep)):
        assert words in text


def test_what_is_not_the_precision_s_fault_ends_with_4(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "broken", "unimodal", {"classifier.weight": -1.0})
    assert triage(bundle, "fp16", "--json", "-q") == 4
    shown = capsys.readouterr()
    assert json.loads(shown.out)["graphs"][0]["outcome"] == "not the precision"
    assert "so fp16 is not the cause" in shown.err


def test_on_a_data_set(golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.open(golden.bundle)
    data = ["--data", str(golden.data), "--split", "test", "--limit", "1"]
    assert triage(bundle, "plm=fp16,fusion=bf16", *data, "--json", "-q") == 0
    shown = document(capsys)
    assert shown["data"].endswith("(test)")
    utterances = sum(len(d.utterances) for d in golden.dataset.dialogues[:1])
    assert [g["before"]["utterances"] for g in shown["graphs"]] == [utterances] * 2
    assert shown["together"]["problems"] == []


@pytest.mark.parametrize(
    ("precision", "arguments", "code", "words"),
    [
        ("fp32", [], 2, "nothing to triage"),
        ("swin=fp16", [], 2, "no graph 'swin'"),
        ("fp16", ["--limit", "3"], 2, "--limit is about a data set"),
        ("int8", [], 8, "no int8 graph of unimodal"),
        ("fp16", ["--max-error", "-1"], 2, "max-error"),
    ],
)
def test_usage(
    tiny_bundle: Bundles,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    assert triage(tiny_bundle("unimodal"), precision, *arguments) == code
    assert words in capsys.readouterr().err


def calibrated(bundle: Bundle, precision: Precision, out: Path, keep: tuple[str, ...], wrong: str) -> Bundle:
    """The bundle with its vision-only graph in 8 bits; the scale of one tensor is far too small."""
    graph: GraphName = "unimodal"
    seen: dict[str, float] = {}
    engine = engine_from_onnx(
        graph, bundle.graph(graph), 1, lambda name, t: seen.update({name: float(t.float().abs().max())})
    )
    engine.run(self_test_of(bundle)[graph].inputs)
    thresholds = {name: value / (64 if name == wrong else 1) for name, value in seen.items() if value > 0}
    calibration = Calibration(graph, {name: InputScale(name, value) for name, value in thresholds.items()})
    graphs = {name: dict(files) for name, files in bundle.manifest.graphs.items()}
    graphs[graph][precision] = typed_files(graph, precision)[0]
    with extend_bundle(bundle, out) as writer:
        file, _ = (writer.place(relative) for relative in typed_files(graph, precision))
        write_draft(draft_in(graph, bundle.graph(graph), precision, keep, calibration), file)
        return writer.commit(replace(bundle.manifest, graphs=graphs))


@pytest.mark.parametrize("precision", ["int8", "int8-fp32", "fp8"])
def test_a_wrong_scale_is_found(
    tiny_bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: Precision
) -> None:
    """Scales are read back from the graph, and what it keeps back stays so."""
    kept = "utt_transformer.layer.0/Gemm_3"
    bundle = calibrated(tiny_bundle("unimodal"), precision, tmp_path / "8", (kept,), f"{LAYER}/Gelu")
    assert triage(bundle, precision, "--json", "-q", "--max-error", "0.1") == 0
    (graph,) = document(capsys)["graphs"]
    assert graph["outcome"] == "kept back"
    assert graph["layers"] == [LAYER]
    assert graph["nodes"] == [f"{LAYER}/Gemm_5"]  # it reads what GELU makes
    assert graph["keep"] == [kept, f"{LAYER}/Gemm_5"]
    assert graph["kept_in"] == ("fp32" if precision == "int8-fp32" else "fp16")
    quantised = quantised_products(bundle.graph("unimodal", precision))
    assert kept not in quantised
    assert {kept, *quantised} == set(layered_graph("unimodal", bundle.graph("unimodal"), precision).nodes)
