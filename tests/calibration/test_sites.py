"""Which products get 8 bits: all of weights but the first, the last and the small, by name and number."""

import re
from collections import Counter
from collections.abc import Callable

import onnx
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.sites import kept_out, linears_of, sites_of
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GraphName

Bundles = Callable[[str], Bundle]

OUT: dict[tuple[str, GraphName], set[str]] = {
    ("roberta", "swin"): {"patch_embed", "output_layer", "linear", "classifier"},
    ("roberta", "plm"): {"text_linear"},
    ("roberta", "fusion"): {"audio_linear", "vision_linear", "attention", "classifier"},
    ("unimodal", "unimodal"): {"modality_linear", "attention", "classifier"},
}
"""What the weights that are kept out are called."""


def view(bundle: Bundle, graph: GraphName) -> GraphView:
    return GraphView(onnx.load(bundle.graph(graph), load_external_data=False))


def words(node: onnx.NodeProto) -> set[str]:
    return set(re.split(r"[/.\[]", f"{node.name}/{node.input[1]}"))


@pytest.mark.parametrize(("model", "graph"), OUT)
def test_what_is_kept_out(tiny_bundle: Bundles, model: str, graph: GraphName) -> None:
    """Nothing that reads features as they come, nothing that answers; of everything else, all."""
    nodes = view(tiny_bundle(model), graph)
    out = [node for node in linears_of(nodes) if kept_out(node)]
    known = OUT[model, graph]
    assert all(known & words(node) for node in out)
    assert all(any(name in words(node) for node in out) for name in known)
    sites = sites_of(nodes)
    assert len(sites) + len(out) == len(linears_of(nodes))
    assert not {site.node for site in sites} & {node.name for node in out}


def test_an_encoder_layer_has_six(tiny_bundle: Bundles) -> None:
    """Query, key, value and the output of attention, and two of the feed-forward network: of one tensor three read."""
    sites = sites_of(view(tiny_bundle("roberta"), "plm"))
    assert Counter(site.node.split("/")[0] for site in sites) == {f"plm.encoder.layer.{n}": 6 for n in (0, 1)}
    assert sorted(Counter(site.input for site in sites).values()) == [1, 1, 1, 1, 1, 1, 3, 3]
    assert {(site.rows, site.columns) for site in sites} == {(64, 64), (64, 128), (128, 64)}
    assert all(site.bias for site in sites)


def test_sites_are_what_the_graph_says(tiny_bundle: Bundles) -> None:
    nodes = view(tiny_bundle("roberta"), "fusion")
    gemms = {node.name: node for node in nodes.nodes}
    for site in sites_of(nodes):
        node = gemms[site.node]
        assert (site.input, site.weight, site.bias, site.output) == (*node.input, *node.output)
        assert [site.columns, site.rows] == list(nodes.constants[site.weight].dims)


def test_patterns(tiny_bundle: Bundles) -> None:
    nodes = view(tiny_bundle("roberta"), "plm")
    kept = sites_of(nodes, ["plm.encoder.layer.0/*", "*/Gemm_5"])
    assert [site.node for site in kept] == [
        "plm.encoder.layer.1/Gemm",
        *(f"plm.encoder.layer.1/Gemm_{n}" for n in (1, 2, 3, 4)),
    ]
    with pytest.raises(UsageError, match=r"'swin\*' fits no product"):
        sites_of(nodes, ["swin*"])
