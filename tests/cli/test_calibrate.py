"""`fmmt calibrate`: what it writes and says, and that other commands take it from there."""

import json
import shutil
from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.precisions import precisions_from_option
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.dataset import select_dialogues
from fmmt_deploy.calibration.recipes import read_recipe
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.reference.presets import PRESETS
from tests.calibration.talk import Talk, write_talk
from tests.cli.calibrating import SMALL, Bundles, beside, calibrate, calibrated, graph_bytes, state_of
from tests.cli.running import REPOSITORY, exit_code

CPU = "int8-fp32"
GPU = "swin=int8,plm=fp8,fusion=int8"
HOW = {
    CPU: ("--method", "max"),  # text is smoothed, as by default
    GPU: ("--method", "mse", "--smooth", "none"),
}
"""What is made, and how."""

LARGEST = {"int8-fp32": 127, "int8": 127, "fp8": 448}

each = pytest.mark.parametrize("precisions", HOW)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture(scope="module")
def made(tiny_bundle: Bundles, talk: Talk, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle in every precision, made one after the other in place, and what was said of each."""
    path = tmp_path_factory.mktemp("made") / "bundle"
    shutil.copytree(tiny_bundle("roberta").path, path)
    return path, {p: calibrated(path, talk.folder, "--precision", p, *SMALL, *how) for p, how in HOW.items()}


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    """A copy of the small vision-only model's bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


@each
def test_what_is_said(made: tuple[Path, dict[str, Any]], talk: Talk, precisions: str) -> None:
    path, shown = made[0], made[1][precisions]
    chosen = select_dialogues(talk.train, 3)
    assert (shown["schema"], shown["dry_run"], shown["path"]) == ("fmmt.calibrate/1", False, str(path))
    assert shown["settings"]["method"] == HOW[precisions][1]
    assert shown["auto"] is None
    coverage = shown["coverage"]
    assert (coverage["dialogues"], coverage["utterances"]) == (3, len(chosen.order))
    assert coverage["faces"] == sum(u.vision_length for d in chosen.dialogues for u in d.utterances)
    assert coverage["reading"]["compared_with"] == [str(talk.folder)]  # it has a test split
    assert [g["graph"] for g in shown["graphs"]] == ["swin", "plm", "fusion"]
    for graph in shown["graphs"]:
        precision = graph["precision"]
        assert precision == precisions_from_option(precisions, PRESETS["tiny"])[graph["graph"]]
        assert Bundle.open(path).graph(graph["graph"], precision) == path / graph["file"]
        assert graph["flops_share"][precision] > 0.5
        assert all(db > 15 for db in graph["sqnr_db"].values())
        assert {t["method"] for t in graph["audit"]["tensors"]} == {HOW[precisions][1]}
        smoothed = [t["tensor"] for t in graph["audit"]["tensors"] if t["alpha"] is not None]
        assert bool(smoothed) == (precisions == CPU and graph["graph"] == "plm")


@each
def test_thresholds_are_the_scales_in_the_graphs(made: tuple[Path, dict[str, Any]], precisions: str) -> None:
    """Rounded up to a float16 number; and every product of 8 bits is in the audit, with the tensor that it reads."""
    path, shown = made[0], made[1][precisions]
    for graph in shown["graphs"]:
        proto = onnx.load(path / graph["file"], load_external_data=False).graph
        constants = {tensor.name: tensor for tensor in proto.initializer}
        quantisers = {n.name.removesuffix("/quantize"): n for n in proto.node if n.op_type == "QuantizeLinear"}
        tensors = {tensor["tensor"]: tensor for tensor in graph["audit"]["tensors"]}
        largest = LARGEST[graph["precision"]]
        assert quantisers.keys() == tensors.keys()
        for name, node in quantisers.items():
            scale = float(numpy_helper.to_array(constants[node.input[1]]))
            assert scale == float(np.float16(scale))
            wanted = tensors[name]["threshold"] / largest
            assert wanted <= scale * (1 + 1e-6) <= wanted * (1 + 2**-9)
        inputs = {n.output[0]: n.name for n in proto.node if n.op_type == "DequantizeLinear"}
        products = [n.name for n in proto.node if n.op_type == "Gemm" and n.input[0] in inputs]
        assert sorted(products) == sorted(product for t in tensors.values() for product in t["products"])


@each
def test_receipts(made: tuple[Path, dict[str, Any]], talk: Talk, precisions: str) -> None:
    path, shown = made[0], made[1][precisions]
    for graph in shown["graphs"]:
        receipt = json.loads((path / f"receipts/calibration-{graph['graph']}-{graph['precision']}.json").read_text())
        assert receipt["schema"] == "fmmt.calibration/1"
        assert set(receipt["tools"]) == {"fmmt-deploy", "onnx", "torch"}
        assert receipt["coverage"]["source"] == str(talk.folder)
        for name in ("settings", "coverage"):
            assert receipt[name] == shown[name]
        assert (receipt["audit"], receipt["sqnr_db"]) == (graph["audit"], graph["sqnr_db"])
        assert shown["coverage"]["warnings"][0].startswith("only 3 dialogues")
        assert receipt["warnings"][: len(shown["coverage"]["warnings"])] == shown["coverage"]["warnings"]


def test_nothing_else_changed(made: tuple[Path, dict[str, Any]], tiny_bundle: Bundles) -> None:
    path, original = made[0], tiny_bundle("roberta")
    assert beside(path) == []
    manifest = Bundle.open(path).manifest
    assert {graph: list(files) for graph, files in manifest.graphs.items()} == {
        "swin": ["fp32", "int8-fp32", "int8"],
        "plm": ["fp32", "int8-fp32", "fp8"],
        "fusion": ["fp32", "int8-fp32", "int8"],
    }
    for name, entry in original.manifest.files.items():
        assert manifest.files[name] == entry
        assert hash_file(path / name) == entry.sha256


@each
def test_other_commands_take_it(
    made: tuple[Path, dict[str, Any]],
    talk: Talk,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    precisions: str,
) -> None:
    path = str(made[0])
    engine = ("--engine", "ort" if precisions == CPU else "emulated", "--precision", precisions, "-q")
    data = ("--data", str(talk.folder), "--limit", "2")
    out = tmp_path / "out.jsonl"
    assert exit_code("run", "-b", path, *data, "-o", str(out), *engine) == 0
    capsys.readouterr()
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == sum(len(dialogue.utterances) for dialogue in talk.test.dialogues[:2])
    assert exit_code("parity", "-b", path, *engine, "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert exit_code("eval", "-b", path, *data, *engine, "--reference", "torch", "--json") == 5
    judged = json.loads(capsys.readouterr().out)["modes"][0]["equivalence"]
    assert judged["verdict"] == "INCONCLUSIVE"  # two dialogues say nothing of all others
    assert judged["changed"] <= 0.02 * len(answers)
    assert judged["difference"] >= -0.01


def test_inspect_and_bench(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated(bundle, talk.folder, "--precision", "int8-fp32", "--method", "max", *SMALL)
    assert exit_code("inspect", str(bundle), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    costs = {(cost["graph"], cost["precision"]): cost for cost in found["costs"]}
    assert costs["unimodal", "int8-fp32"]["weight_bytes"] < 0.4 * costs["unimodal", "fp32"]["weight_bytes"]
    ways = ("--engine", "ort:int8-fp32", "--rounds", "1", "--dialogues", "1", "--allow-invalid")
    assert exit_code("bench", "-b", str(bundle), *ways, "--json", "-q") == 0
    (report,) = json.loads(capsys.readouterr().out)["workloads"]
    assert {row["engine"] for row in report["engine"]["rows"]} == {"ort:int8-fp32"}


def test_in_place_beside_and_again(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--precision", "int8", *SMALL)
    assert calibrate(bundle, talk.folder, *common) == 0
    shown = capsys.readouterr()
    for words in ("wrote", "calibrated on", "The tensors that 8 bits suit least", "unimodal", "no utterance of"):
        assert words in shown.out
    assert "collecting what products read" in shown.err
    first, before = graph_bytes(bundle, "int8"), hash_file(bundle / "manifest.json")
    assert calibrate(bundle, talk.folder, *common) == 2
    assert "has unimodal in int8 already" in capsys.readouterr().err
    other = bundle.parent / "other"
    assert calibrate(bundle, talk.folder, *common, "-o", str(other), "-q") == 0  # nothing is replaced
    assert graph_bytes(other, "int8") == first
    assert hash_file(bundle / "manifest.json") == before
    assert calibrate(bundle, talk.folder, *common, "-o", str(other), "-q") == 2
    assert "other" in capsys.readouterr().err
    assert calibrate(bundle, talk.folder, *common, "--method", "max", "--force", "-q") == 0
    assert graph_bytes(bundle, "int8") != first
    assert json.loads((bundle / "receipts/calibration-unimodal-int8.json").read_text())["settings"]["method"] == "max"
    assert beside(bundle) == ["other"]


def test_a_dry_run_writes_nothing(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of(bundle.parent)
    assert calibrate(bundle, talk.folder, "--precision", "int8", *SMALL, "--dry-run", "--json") == 0
    (graph,) = json.loads(capsys.readouterr().out)["graphs"]
    assert graph["audit"]["tensors"]
    assert graph["sqnr_db"] is None
    assert state_of(bundle.parent) == before


def test_seeds_choose_other_dialogues(bundle: Path, talk: Talk) -> None:
    """And what is asked for on the command line is what is in the settings."""
    asked = ("--precision", "int8", "--split", "train", "--allow-small", "--dry-run", "--method", "max")
    first = calibrated(bundle, talk.folder, *asked, "--dialogues", "4")
    other = calibrated(bundle, talk.folder, *asked, "--dialogues", "4", "--seed", "1")
    assert (other["settings"]["seed"], other["settings"]["dialogues"]) == (1, 4)
    assert first["coverage"]["digests"] != other["coverage"]["digests"]
    assert select_dialogues(talk.train, 4, seed=1).order != select_dialogues(talk.train, 4, seed=0).order
    assert other["coverage"]["utterances"] == len(select_dialogues(talk.train, 4, seed=1).order)


def test_keep_back(bundle: Path, talk: Talk) -> None:
    pattern, asked = "utt_transformer.layer.0/*", ("--precision", "int8", "--method", "max", *SMALL)
    whole = calibrated(bundle, talk.folder, *asked, "--dry-run")["graphs"][0]
    kept = calibrated(bundle, talk.folder, *asked, "--keep-back", pattern)["graphs"][0]
    back = {node for node, why in kept["audit"]["kept_out"].items() if why == "asked for"}
    products = {product for tensor in whole["audit"]["tensors"] for product in tensor["products"]}
    assert back == {product for product in products if fnmatchcase(product, pattern)} != set()
    assert kept["flops_share"]["int8"] < whole["flops_share"]["int8"] - 0.3
    nodes = onnx.load(bundle / kept["file"], load_external_data=False).graph.node
    eight = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}
    assert not [n.name for n in nodes if n.name in back and set(n.input) & eight]


def test_smoothing_is_in_the_graph_where_it_is_in_the_audit(bundle: Path, talk: Talk) -> None:
    shown = calibrated(bundle, talk.folder, "--precision", "int8", "--smooth", "unimodal", "--method", "max", *SMALL)
    (graph,) = shown["graphs"]
    smoothed = {f"{t['tensor']}/smooth" for t in graph["audit"]["tensors"] if t["alpha"] is not None}
    assert all(t["gain_db"] > 0 for t in graph["audit"]["tensors"] if t["alpha"] is not None)
    nodes = onnx.load(bundle / graph["file"], load_external_data=False).graph.node
    assert {node.name for node in nodes if node.name.endswith("/smooth")} == smoothed != set()


@pytest.mark.parametrize("method", ["max", "percentile", "entropy", "mse"])
def test_methods(bundle: Path, talk: Talk, method: str) -> None:
    """All of the same data; thresholds are at most the largest magnitude, rounded up."""
    shown = calibrated(bundle, talk.folder, "--precision", "int8", "--method", method, *SMALL, "--dry-run")
    (graph,) = shown["graphs"]
    for tensor in graph["audit"]["tensors"]:
        assert tensor["method"] == method
        assert 0 < tensor["threshold"] <= tensor["largest"] * (1 + 2**-9)
        assert (tensor["threshold"] >= tensor["largest"]) or method != "max"
        if method == "percentile":
            count = ceil(tensor["saturated"] * 1e6)
            assert count <= 1e6 * 2e-4  # 99.99 of all, and the edge of a bin


@pytest.mark.parametrize("name", ["cpu", "gpu-int8", "gpu-fp8"])
def test_recipes(bundle: Path, talk: Talk, name: str) -> None:
    recipe = REPOSITORY / "calibration" / f"{name}.toml"
    shown = calibrated(bundle, talk.folder, "--recipe", str(recipe), *SMALL)
    expected = read_recipe(recipe)
    assert [(g["graph"], g["precision"]) for g in shown["graphs"]] == [("unimodal", expected.precision["unimodal"])]
    assert (shown["settings"]["method"], shown["settings"]["dialogues"]) == ("best", 3)  # the option goes before it
    assert shown["settings"]["smooth"] == []  # there is no text here
    made = Bundle.open(bundle)
    with open_engines(made, "emulated", {"unimodal": expected.precision["unimodal"]}, 1):
        pass
