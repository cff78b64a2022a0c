"""Every small model through every engine, and what all engines refuse alike."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.selftest import Stage, read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.checking import RANKS
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.ort import load as ort_load
from fmmt_deploy.engines.ort.load import engine_from_onnx, import_onnxruntime
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.engines.torch.engine import INPUTS
from fmmt_deploy.errors import BundleError, EnvironmentProblem, FmmtError, PrecisionError, UsageError
from fmmt_deploy.types import GraphName
from tests.cli.running import exit_code, in_own_process
from tests.engines.quantised import calibrated_bundle
from tests.golden import GOLDEN
from tests.models import ON_CPU, TINY, export_tiny

Bundles = Callable[[str], Bundle]
GRAPHS_OF_MODELS: list[tuple[str, GraphName]] = [
    *((model, graph) for model in ("roberta", "bert") for graph in ("swin", "plm", "fusion")),
    ("unimodal", "unimodal"),
]


def self_test(bundle: Bundle) -> dict[GraphName, Stage]:
    return read_self_test(bundle.path / "self_test.npz")


@pytest.mark.parametrize("kind", ON_CPU)
@pytest.mark.parametrize(("model", "graph"), GRAPHS_OF_MODELS)
def test_every_graph_in_every_engine(tiny_bundle: Bundles, model: str, graph: GraphName, kind: EngineKind) -> None:
    """The recorded answers are the PyTorch model's from before the export; the golden data hold that model itself."""
    bundle = tiny_bundle(model)
    stage = self_test(bundle)[graph]
    with open_engines(bundle, kind, threads=1) as engines:
        assert graph in engines
        assert dict(engines[graph].inputs) == dict(INPUTS[graph])
        assert {name: RANKS[name] for name in stage.inputs} == {n: array.ndim for n, array in stage.inputs.items()}
        before = {name: array.copy() for name, array in stage.inputs.items()}
        found = engines[graph].run(stage.inputs)
        again = engines[graph].run(stage.inputs)
    assert found.keys() == stage.outputs.keys()
    for name, expected in stage.outputs.items():
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found[name].astype(float), expected.astype(float), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(found[name], again[name])
    for name, array in before.items():
        np.testing.assert_array_equal(stage.inputs[name], array)


def test_the_self_test_is_a_test(tiny_bundle: Bundles) -> None:
    """It opens and shuts the gate, and no two utterances are answered alike."""
    for model in TINY:
        outputs = self_test(tiny_bundle(model))
        last = outputs["unimodal" if model == "unimodal" else "fusion"].outputs
        assert len(np.unique(last["logits"].round(4), axis=0)) == len(last["logits"])
    fusion = self_test(tiny_bundle("roberta"))["fusion"]
    dropped = fusion.inputs["vision_mask"].astype(bool) & ~fusion.outputs["kept"]
    assert dropped.any(axis=1).any()
    assert fusion.outputs["kept"].any(axis=1).tolist() == [False, True, True, True, True]


WRONG: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda inputs: inputs.pop("input_ids"), "missing ['input_ids']"),
    "unknown": (lambda inputs: inputs.update(token_type_ids=inputs["input_ids"]), "unknown ['token_type_ids']"),
    "int32": (lambda i: i.update(input_ids=i["input_ids"].astype(np.int32)), "input_ids as int64, not int32"),
    "float": (lambda i: i.update(attention_mask=i["attention_mask"].astype(float)), "as int64, not float64"),
    "no dialogue": (lambda i: i.update(input_ids=i["input_ids"][:0]), "no empty input_ids, found shape (0, 96)"),
    "no token": (lambda i: i.update(attention_mask=i["attention_mask"][:, :0]), "no empty attention_mask"),
    "one axis": (lambda i: i.update(input_ids=i["input_ids"][0]), "input_ids with 2 axes, found shape (96,)"),
}


@pytest.mark.parametrize("kind", ON_CPU)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs(tiny_bundle: Bundles, kind: EngineKind, wrong: str) -> None:
    change, message = WRONG[wrong]
    bundle = tiny_bundle("roberta")
    inputs = dict(self_test(bundle)["plm"].inputs)
    change(inputs)
    with open_engines(bundle, kind, threads=1) as engines, pytest.raises(UsageError) as caught:
        engines["plm"].run(inputs)
    assert message in caught.value.what
    assert caught.value.what.startswith("plm takes ")


def test_what_onnx_runtime_itself_refuses_is_an_error_of_ours(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    inputs = dict(self_test(bundle)["plm"].inputs)
    inputs["input_ids"] = inputs["input_ids"] + 1000  # beyond the vocabulary
    with (
        open_engines(bundle, "ort", threads=1) as engines,
        pytest.raises(FmmtError, match="failed in plm on") as caught,
    ):
        engines["plm"].run(inputs)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("kind", ON_CPU)
def test_closed_engines_do_not_run(tiny_bundle: Bundles, kind: EngineKind) -> None:
    bundle = tiny_bundle("unimodal")
    with open_engines(bundle, kind) as engines:
        engine = engines["unimodal"]
    with pytest.raises((FmmtError, RuntimeError)):
        engine.run(self_test(bundle)["unimodal"].inputs)


def test_a_graph_that_onnx_runtime_refuses(tmp_path: Path) -> None:
    file = tmp_path / "plm.onnx"
    for content in (b"", b"no graph", (GOLDEN / "bert" / "expected.npz").read_bytes()[:5000]):
        file.write_bytes(content)
        with pytest.raises(BundleError, match=r"refuses the graph .*plm\.onnx") as caught:
            engine_from_onnx("plm", file, 1)
        assert caught.value.exit_code == 8
        assert "Export the bundle again" in caught.value.fix


def test_weights_that_are_missing_or_cut(tiny_bundle: Bundles, tmp_path: Path) -> None:
    graph = tiny_bundle("unimodal").graph("unimodal")
    copy, weights = tmp_path / graph.name, tmp_path / graph.with_suffix(".safetensors").name
    copy.write_bytes(graph.read_bytes())
    with pytest.raises(BundleError, match="refuses the graph"):
        engine_from_onnx("unimodal", copy, 1)
    weights.write_bytes(graph.with_suffix(".safetensors").read_bytes()[:-1000])
    with pytest.raises(BundleError, match="refuses the graph"):
        engine_from_onnx("unimodal", copy, 1)


def test_a_bundle_whose_weights_are_of_another_model(tiny_bundle: Bundles) -> None:
    """The manifest tells the sizes; hashes would have found this before, so they are not looked at here."""
    bundle, other = tiny_bundle("roberta"), tiny_bundle("bert")
    wrong = Bundle(other.path, bundle.manifest)
    with pytest.raises(BundleError, match=r"plm.*has shape") as caught, open_engines(wrong, "torch"):
        pass
    assert caught.value.exit_code == 8


def answers(bundle: Bundle, out: Path) -> tuple[str, ...]:
    data = str(GOLDEN / "roberta")
    return ("run", "-b", str(bundle.path), "--data", data, "--engine", "ort", "-o", str(out), "-q")


def test_onnx_runtime_absent(tiny_bundle: Bundles, tmp_path: Path) -> None:
    blocked = "import sys\nsys.modules['onnxruntime'] = None"
    done = in_own_process(blocked, *answers(tiny_bundle("unimodal"), tmp_path / "out.jsonl"))
    assert done.returncode == 3
    assert "ONNX Runtime is not installed" in done.stderr
    assert "pip install 'fmmt-deploy[cpu]'" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_both_onnx_runtimes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_bundle: Bundles, tmp_path: Path
) -> None:
    import_onnxruntime()
    monkeypatch.setattr(ort_load, "version", lambda package: f"{package} 1.22")
    with pytest.raises(EnvironmentProblem, match="Both onnxruntime and onnxruntime-gpu are installed"):
        import_onnxruntime()
    assert exit_code(*answers(tiny_bundle("unimodal"), tmp_path / "out.jsonl")) == 3
    assert "Uninstall both, then install one" in capsys.readouterr().err


def test_the_run_path_imports_no_framework(tiny_bundle: Bundles, tmp_path: Path) -> None:
    report = (
        "import atexit, sys\n"
        "names = ('torch', 'transformers', 'timm', 'safetensors', 'onnx', 'tensorrt_rtx', 'onnxruntime', 'numpy')\n"
        "atexit.register(lambda: print(*(name for name in names if name in sys.modules)))"
    )
    done = in_own_process(report, *answers(tiny_bundle("roberta"), tmp_path / "out.jsonl"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-2:] == ["onnxruntime", "numpy"]
    assert not {"torch", "transformers", "timm", "safetensors", "onnx"} & set(done.stdout.split())


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    yield
    os.umask(before)


def test_others_may_read_a_bundle(tmp_path: Path) -> None:
    with umask(0o022):
        bundle = export_tiny("unimodal", tmp_path / "bundle")
    modes = {name: (bundle.path / name).stat().st_mode & 0o777 for name in bundle.manifest.files}
    assert modes == dict.fromkeys(modes, 0o644)


@pytest.mark.parametrize("kind", ["ort", "emulated"])
def test_a_bundle_in_eight_bits(tiny_bundle: Bundles, tmp_path: Path, kind: EngineKind) -> None:
    """Quantised graphs and a float32 one side by side, made by calibration's own passes; scales are a guess here."""
    precisions: dict[GraphName, Precision] = {"swin": "int8-fp32", "plm": "int8-fp32"}
    bundle = calibrated_bundle(tiny_bundle("roberta"), tmp_path / "bundle", precisions)
    asked: dict[GraphName, Precision] = {**precisions, "fusion": "fp32"}
    with open_engines(bundle, kind, asked, threads=1) as engines:
        assert engines.precisions == asked
        for graph, stage in self_test(bundle).items():
            found = engines[graph].run(stage.inputs)
            for name, expected in stage.outputs.items():
                assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
                gap = np.abs(found[name].astype(float) - expected.astype(float)).mean()
                assert gap < 0.2 * expected.astype(float).std()
                assert (gap > 1e-5) == (graph in precisions), "rounded, where that was asked for"


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_for_gpus_in_ort_on_the_cpu(tiny_bundle: Bundles, tmp_path: Path, precision: Precision) -> None:
    bundle = calibrated_bundle(tiny_bundle("unimodal"), tmp_path / "bundle", {"unimodal": precision})
    with pytest.raises(PrecisionError, match="can't multiply the operands of unimodal") as caught:
        open_engines(bundle, "ort", {"unimodal": precision})
    assert caught.value.exit_code == 9
    assert "int8-fp32" in caught.value.fix


@pytest.mark.parametrize("kind", ["torch", "torch-cuda", "torch-compiled"])
@pytest.mark.parametrize("precision", ["int8-fp32", "int8", "fp8"])
def test_pytorch_has_no_eight_bits(tiny_bundle: Bundles, kind: EngineKind, precision: Precision) -> None:
    """Said before a GPU is looked for, and before a graph is."""
    with pytest.raises(UsageError, match=rf"The engine {kind} .*computes in .*, not {precision}\.") as caught:
        open_engines(tiny_bundle("unimodal"), kind, {"unimodal": precision})
    assert caught.value.exit_code == 2
