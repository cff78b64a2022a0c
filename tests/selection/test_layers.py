"""Layers and what keeping them back costs, against counts by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import TYPICAL
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.selection.cost import FLOPS_A_BYTE, float32_cost, graph_cost
from fmmt_deploy.selection.layers import Cost, LayeredGraph, layered_graph
from fmmt_deploy.types import GraphName

Bundles = Callable[[str], Bundle]
LAYER = "plm.encoder.layer.1"


@pytest.fixture(scope="module")
def layered(tiny_bundle: Bundles) -> Callable[..., LayeredGraph]:
    def of(graph: GraphName, precision: Precision, **settings: object) -> LayeredGraph:
        return layered_graph(graph, tiny_bundle("roberta").graph(graph), precision, **settings)  # type: ignore[arg-type]

    return of


def test_layers_are_scopes(layered: Callable[..., LayeredGraph]) -> None:
    assert [layer.name for layer in layered("plm", "fp16").layers] == [
        "plm.embeddings",
        "plm.encoder.layer.0",
        "plm.encoder.layer.1",
        "Gemm",
    ]
    assert [layer.name for layer in layered("plm", "int8").layers] == ["plm.encoder.layer.0", LAYER]
    swin = [layer.name for layer in layered("swin", "int8").layers]
    assert swin[:3] == ["backbone.layers.0.blocks.0", "backbone.layers.0.blocks.1", "backbone.layers.1.downsample"]
    assert "CrossModalTrans_TA.layers.0" in [layer.name for layer in layered("fusion", "fp8").layers]
    gemm = layered("plm", "fp16").layers[-1]
    assert (gemm.nodes, gemm.patterns) == (("Gemm",), ("Gemm",))
    assert layered("plm", "fp16").layers[1].patterns == ("plm.encoder.layer.0/*",)


def test_in_8_bits_only_products_of_weights_count(layered: Callable[..., LayeredGraph]) -> None:
    layer = next(each for each in layered("plm", "int8").layers if each.name == LAYER)
    assert layer.nodes == tuple(
        f"{LAYER}/{name}" for name in ("Gemm", "Gemm_1", "Gemm_2", "Gemm_3", "Gemm_4", "Gemm_5")
    )


@pytest.mark.parametrize(("precision", "saved"), [("fp16", 2), ("int8", 1), ("int8-fp32", 3)])
def test_cost_by_hand(
    tiny_bundle: Bundles, layered: Callable[..., LayeredGraph], precision: Precision, saved: int
) -> None:
    """A layer's products of weights have 4·H·H + 2·H·I weights, and 2 FLOPs for each and token; `saved` bytes each."""
    sizes = tiny_bundle("roberta").manifest.architecture.plm
    assert sizes is not None
    graph = layered("plm", precision)
    hidden, inner, tokens = sizes.hidden_size, sizes.intermediate_size, TYPICAL["tokens"]
    weights = 4 * hidden * hidden + 2 * hidden * inner
    biases = 5 * hidden + inner if precision == "fp16" else 0  # they never have 8 bits
    scales = {f"{LAYER}/Mul"} & set(graph.nodes)  # a single number each
    attention = 2 * tokens * tokens * hidden if precision == "fp16" else 0  # of Q·Kᵀ, and as much of the sum
    cost = next(layer.cost for layer in graph.layers if layer.name == LAYER)
    assert cost.flops_share * graph.flops == pytest.approx(2 * tokens * weights + 2 * attention)
    assert cost.weight_bytes == (weights + biases + len(scales)) * saved
    assert graph.cost_of(graph.layers).flops_share == pytest.approx(graph.low_flops / graph.flops)
    nodes = graph.within(graph.layers)
    assert [node.name for node in nodes] == list(graph.nodes)
    assert graph.cost_of(nodes).weight_bytes == graph.cost_of(graph.layers).weight_bytes


def test_patterns_are_the_shortest_that_say_it(layered: Callable[..., LayeredGraph]) -> None:
    graph = layered("plm", "int8")
    first, second = graph.layers
    assert graph.keep([first]) == ("plm.encoder.layer.0/*",)
    assert graph.keep(graph.within([first])) == ("plm.encoder.layer.0/*",)
    assert graph.keep(graph.within([second])[1:3]) == (f"{LAYER}/Gemm_1", f"{LAYER}/Gemm_2")
    assert graph.keep([]) == ()


def test_what_is_kept_back_already(layered: Callable[..., LayeredGraph]) -> None:
    graph = layered("plm", "int8", only={f"{LAYER}/Gemm_4", f"{LAYER}/Gemm_5"})
    assert [layer.nodes for layer in graph.layers] == [(f"{LAYER}/Gemm_4", f"{LAYER}/Gemm_5")]
    assert len(graph.kept) == 6 + 4
    assert graph.keep(graph.layers) == (*graph.kept, f"{LAYER}/*")
    assert set(graph.kept) | set(graph.nodes) == set(layered("plm", "int8").nodes)


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_all_kept_back_is_all_that_the_pass_would_have_lowered(
    tiny_bundle: Bundles, layered: Callable[..., LayeredGraph], graph: GraphName
) -> None:
    """The pass is asked, not these rules."""
    form = layered(graph, "fp16")
    draft = draft_in(graph, tiny_bundle("roberta").graph(graph), "fp16", form.keep(form.layers))
    kinds = {node.op_type: node for node in draft.model.graph.node if node.name.endswith("/to_fp16")}
    low = [d for d in draft.decisions if d.held == "low" and d.reason != "moves values"]
    assert not low
    assert not kinds


def test_refusals(tiny_bundle: Bundles, tmp_path: Path) -> None:
    path = tiny_bundle("roberta").graph("plm")
    with pytest.raises(ValueError, match="float32 touches no node"):
        layered_graph("plm", path, "fp32")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "plm.onnx")
    with pytest.raises(PrecisionError):
        layered_graph("plm", tmp_path / "plm.onnx", "fp16")


def planted(precision: Precision, flops: int, low: int, constants: int) -> LayeredGraph:
    return LayeredGraph("plm", precision, (), flops, low, constants, {})


def test_times_by_hand() -> None:
    """All products low and no weights: the rate of the type; only weights: their bytes; both; parts kept back."""
    assert graph_cost(planted("fp16", 1000, 1000, 0)) == 500
    assert graph_cost(planted("int8", 1000, 1000, 0)) == 250
    assert graph_cost(planted("int8", 1000, 1000, 0), kept_share=1.0) == 500  # in float16
    assert graph_cost(planted("int8", 1000, 1000, 0), kept_share=0.2) == pytest.approx(250 + 0.2 * 250)
    assert graph_cost(planted("int8-fp32", 1000, 1000, 0), kept_share=1.0) == 1000
    assert graph_cost(planted("fp16", 1000, 600, 0)) == 600 / 2 + 400
    assert graph_cost(planted("fp16", 0, 0, 4000)) == FLOPS_A_BYTE * 4000
    whole = planted("int8", 1000, 1000, 4000)
    assert float32_cost(whole) == 1000 + FLOPS_A_BYTE * 4000
    assert graph_cost(whole) == 250 + FLOPS_A_BYTE * 1000


def test_measured_times() -> None:
    graph = planted("int8", 1000, 1000, 0)
    assert graph_cost(graph, 0, {("plm", "int8"): 3.2}) == 1000 / 3.2
    assert graph_cost(graph, 0.5, {("plm", "int8"): 4.0, ("plm", "fp16"): 2.0}) == (250 + 500) / 2
    assert graph_cost(replace(graph, graph="swin"), 0, {("plm", "int8"): 3.2}) == 250


def test_costs_add_up() -> None:
    assert Cost(0.1, 10) + Cost(0.2, 5) == Cost(0.1 + 0.2, 15)
