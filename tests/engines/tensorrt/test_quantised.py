"""Real engines of quantised graphs, built with TensorRT-RTX: eight bits in the graph are eight bits in the engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import products_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import build, layers, load
from fmmt_deploy.engines.tensorrt.build import Plan, plan_from_onnx
from fmmt_deploy.engines.tensorrt.estimate import estimate_from_onnx
from fmmt_deploy.engines.tensorrt.network import check_network
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import default_profiles
from fmmt_deploy.engines.tensorrt.realised import realised_from_layers
from fmmt_deploy.engines.tensorrt.target import PORTABLE, PORTABLE_FP8, Target
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.types import GraphName
from tests.engines.quantised import PROFILE, block, calibrated_file, quantised_model
from tests.engines.tensorrt.simulated import use_simulated
from tests.engines.tensorrt.simulated_device import GPU, SimulatedDevice
from tests.models import TINY

FORMS: list[tuple[Any, Any, Precision]] = [
    ("fp16", "int8", "int8"),
    ("fp32", "int8", "int8-fp32"),
    ("fp16", "fp8", "fp8"),
    ("fp32", "fp8", "fp8"),
]
"""What is around, operands, and how products of these are called."""


def built(path: Path, precision: Precision, target: Target | None = None) -> Plan:
    portable = PORTABLE_FP8 if precision == "fp8" else PORTABLE
    return plan_from_onnx("unimodal", path, (PROFILE,), "trt-rtx", BuildOptions(), target or portable)


@pytest.mark.parametrize(("around", "operands", "precision"), FORMS)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("columns", "hidden"), [(64, 128), (7, 5)])
def test_a_block(
    tmp_path: Path, around: Any, operands: Any, precision: Precision, smooth: bool, columns: int, hidden: int
) -> None:
    """Of sizes that fit its kernels, and others."""
    path = tmp_path / "g.onnx"
    onnx.save(quantised_model(block(around, columns, hidden), operands, smooth=smooth), path)
    plan = built(path, precision)
    assert plan.warnings == ()
    wide, stored = {"fp16": "HALF", "fp32": "FLOAT"}[around], {"int8": "INT8", "fp8": "FP8"}[operands]
    assert set(plan.network.products.values()) == {frozenset({f"{stored} to {wide}"})}
    found = realised_from_layers(plan.layers, plan.products)
    assert (found.flops_share, found.unseen_share, found.surprises) == ({precision: 1}, 0, ())
    gemms = [layer for layer in plan.layers if layer.kind == "gemm"]
    assert gemms
    assert {layer.inputs for layer in gemms} == {(operands,)}
    assert {layer.outputs for layer in gemms} == {(around,)}


@pytest.mark.parametrize("precision", ["int8", "int8-fp32", "fp8"])
@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_every_graph(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, graph: GraphName, precision: Precision
) -> None:
    """Made by the passes that `fmmt calibrate` runs; each has products of all its layers in eight bits."""
    path = calibrated_file(graph, tiny_bundle("roberta").graph(graph), tmp_path / f"{graph}.onnx", precision)
    profiles = default_profiles(TINY["roberta"]).of(graph)
    target = PORTABLE_FP8 if precision == "fp8" else PORTABLE
    plan = plan_from_onnx(graph, path, profiles, "trt-rtx", BuildOptions(), target)
    found = realised_from_layers(plan.layers, plan.products)
    assert found.surprises == ()
    asked = {product.node for product in plan.products if product.precision == precision}
    eight = {node for layer in plan.layers if set(layer.inputs) & {"int8", "fp8"} for node in layer.nodes}
    assert len(asked) > 5
    assert asked <= eight
    assert found.unseen_share < 0.01
    float32 = estimate_from_onnx(tiny_bundle("roberta").graph(graph), profiles).weight_bytes
    assert estimate_from_onnx(path, profiles).weight_bytes < float32


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6"])
def test_fp8_ends_before_it_is_built_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("it was built"))
    onnx.save(quantised_model(block("fp16"), "fp8"), tmp_path / "g.onnx")
    for target in (Target("", (capability,)), Target("NVIDIA A10", (capability,)), Target("", ("8.9", capability))):
        with pytest.raises(PrecisionError, match="has no FP8") as caught:
            built(tmp_path / "g.onnx", "fp8", target)
        assert caught.value.exit_code == 9


def test_fp8_is_built_for_those_who_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named to the builder; one that it does not know by name is refused by the builder's own check."""
    asked: list[Any] = []
    real = build._configured

    def configured(*arguments: Any) -> Any:
        config = real(*arguments)
        asked.append([config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)])
        return config

    monkeypatch.setattr(build, "_configured", configured)
    onnx.save(quantised_model(block("fp16"), "fp8"), tmp_path / "g.onnx")
    onnx.save(quantised_model(block("fp16"), "int8"), tmp_path / "i.onnx")
    built(tmp_path / "g.onnx", "fp8")
    built(tmp_path / "i.onnx", "int8")
    assert asked == [["SM89", "SM120", "SM121"], []]
    monkeypatch.setattr(build, "check_has_fp8", lambda _: None)
    with pytest.raises(PrecisionError, match="can't build unimodal for this target") as caught:
        built(tmp_path / "g.onnx", "fp8", Target("", ("8.6",)))
    assert "sm86" in caught.value.why


def test_fp8_on_a_gpu_without_it_is_not_loaded(
    tiny_bundle: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever engines are there: it is not their absence that is told."""
    use_simulated(monkeypatch)
    old = replace(GPU, name="NVIDIA A10", compute_capability="8.6")
    monkeypatch.setattr(SimulatedDevice, "gpu", property(lambda _: old))
    bundle = tiny_bundle("unimodal")
    manifest = replace(bundle.manifest, graphs={"unimodal": {"fp8": bundle.manifest.graphs["unimodal"]["fp32"]}})
    given = Bundle(bundle.path, manifest)
    with pytest.raises(PrecisionError, match=r"NVIDIA A10 \(8\.6\) has no FP8"):
        load.engines_from_bundle(given, "trt-rtx", {"unimodal": "fp8"})


def test_another_network_than_the_graph_is_refused(tmp_path: Path) -> None:
    """Products that a parser dequantised for good, or quantised otherwise."""
    path = tmp_path / "g.onnx"
    onnx.save(quantised_model(block("fp16")), path)
    plan, products = built(path, "int8"), products_of(path, {"utterances": 4})
    check_network(path, plan.network, products)
    for types in ({"HALF"}, {"INT8 to FLOAT"}, {"FP8 to HALF"}, {"INT8 to HALF", "HALF"}):
        wrong = replace(plan.network, products={**plan.network.products, "block/q": frozenset(types)})
        with pytest.raises(PrecisionError, match=r"block/q .* is asked for in int8, TensorRT's network has it in"):
            check_network(path, wrong, products)


def test_a_word_that_is_not_known_is_not_taken_for_eight_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another TensorRT may have other words: then the products are in no share, and `--require fp8>=…` is not met."""
    onnx.save(quantised_model(block("fp16"), "fp8"), tmp_path / "g.onnx")
    monkeypatch.delitem(layers._PRECISIONS, "FP8")
    plan = built(tmp_path / "g.onnx", "fp8")
    found = realised_from_layers(plan.layers, plan.products)
    assert (found.flops_share, found.unseen_share) == ({}, 1)
