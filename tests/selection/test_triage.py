"""Triage, with layers planted that float16 can't compute: it must name these, and no others."""

from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Value
from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity.run import cases_from_self_test, recorded_engines
from fmmt_deploy.selection.layers import layered_graph
from fmmt_deploy.selection.making import emulated_maker
from fmmt_deploy.selection.remembering import RememberingEngine
from fmmt_deploy.selection.triage import Triage, Trials, triage
from fmmt_deploy.types import GraphName
from tests.selection.planting import scaled, swollen

Bundles = Callable[[str], Bundle]
UNIMODAL = "utt_transformer.layer"


def found(bundle: Bundle, precisions: Mapping[GraphName, Precision], max_error: float | None = None) -> Triage:
    stages = self_test_of(bundle)
    with open_engines(bundle, "emulated", threads=2) as wide:
        maker = emulated_maker(bundle, 2, lambda *_: pytest.fail("nothing here has 8 bits"))
        cases = list(cases_from_self_test(stages))
        trials = Trials(bundle.manifest.architecture, recorded_engines(stages), wide, maker, cases, max_error)
        return triage(trials, [layered_graph(g, bundle.graph(g), p) for g, p in precisions.items()])


def readers(bundle: Bundle, graph: GraphName, *weights: str) -> set[str]:
    """Names of the products that read weights, wholly or in parts."""
    nodes = onnx.load(bundle.graph(graph), load_external_data=False).graph.node
    return {node.name for node in nodes if any(name.split("[")[0] in weights for name in node.input)}


def test_an_innocent_model(tiny_bundle: Bundles) -> None:
    result = found(tiny_bundle("roberta"), {"swin": "fp16", "plm": "bf16", "fusion": "fp16"})
    assert [(g.outcome, g.keep, g.judgements) for g in result.graphs] == [("holds", (), 1)] * 3
    assert all(0 < g.before.own < 0.1 for g in result.graphs)
    assert result.together is not None
    assert result.together.holds
    assert result.judgements == 4
    result.raise_if_hopeless()


def test_two_culprits_at_once(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """Of two blocks of the Swin: one between norm and queries, keys and values, one between norm and MLP."""
    one, other = "backbone.layers.0.blocks.1", "backbone.layers.2.blocks.0"
    factors = swollen((f"{one}.norm2", f"{one}.mlp.fc1"), (f"{other}.norm1", f"{other}.attn.qkv"))
    bundle = scaled(tiny_bundle("roberta"), tmp_path / "planted", "swin", factors)
    result = found(bundle, {"swin": "fp16", "fusion": "fp16"})
    swin, fusion = result.graphs
    assert (swin.outcome, fusion.outcome) == ("kept back", "holds")
    assert not isfinite(swin.before.own)
    assert swin.layers == (one, other)
    guilty = readers(bundle, "swin", f"{one}.mlp.fc1.weight", f"{other}.attn.qkv.weight")
    assert len(guilty) == 4
    assert set(swin.nodes) == set(swin.keep) == guilty
    assert swin.after is not None
    assert swin.after.holds
    assert swin.after.own < 0.02
    assert 0 < swin.cost.flops_share < 0.2
    sizes = [onnx_elements(bundle, "swin", name) for name in (f"{one}.mlp.fc1", f"{other}.attn.qkv")]
    assert swin.cost.weight_bytes == 2 * sum(sizes)  # 4 bytes each, not 2
    assert swin.judgements < 40  # of 12 layers and 100 nodes
    assert result.together is not None
    assert result.together.holds
    draft = draft_in("swin", bundle.graph("swin"), "fp16", swin.keep)  # the patterns are good for the pass
    assert {d.node for d in draft.decisions if d.reason == "asked for"} == guilty


def onnx_elements(bundle: Bundle, graph: GraphName, layer: str) -> int:
    constants = onnx.load(bundle.graph(graph), load_external_data=False).graph.initializer
    chosen = [t for t in constants if t.name.split("[")[0] in (f"{layer}.weight", f"{layer}.bias")]
    return sum(int(np.prod(t.dims)) for t in chosen)


def test_a_layer_of_many_guilty_nodes(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """Values that swell stay swollen through attention: its product and the two Gemms around it."""
    layer = f"{UNIMODAL}.1"
    inside = f"{layer}.transformer_self_attention"
    factors = swollen((f"{inside}.selfatt.value", f"{inside}.dense_norm.dense"))
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "planted", "unimodal", factors)
    (unimodal,) = found(bundle, {"unimodal": "fp16"}).graphs
    assert unimodal.layers == (layer,)
    products = readers(bundle, "unimodal", f"{inside}.selfatt.value.weight", f"{inside}.dense_norm.dense.weight")
    assert set(unimodal.nodes) == {*products, f"{layer}/MatMul_1"}


def test_a_weight_that_overflows(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """Then the graph can't even be made."""
    layer = f"{UNIMODAL}.0.transformer_self_attention"
    factors = {f"{layer}.selfatt.query.weight": 2.0**24, f"{layer}.selfatt.query.bias": 2.0**24}
    factors |= {f"{layer}.selfatt.key.weight": 2.0**-24, f"{layer}.selfatt.key.bias": 2.0**-24}
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "planted", "unimodal", factors)
    (unimodal,) = found(bundle, {"unimodal": "fp16"}).graphs
    assert unimodal.before.own == inf
    assert "overflows fp16" in unimodal.before.problems[0]
    assert unimodal.outcome == "kept back"
    assert readers(bundle, "unimodal", f"{layer}.selfatt.query.weight") < set(unimodal.nodes)


def test_when_the_precision_is_not_the_cause(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """The float32 graph itself answers otherwise than the record says."""
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "broken", "unimodal", {"classifier.weight": -1.0})
    result = found(bundle, {"unimodal": "fp16"})
    (unimodal,) = result.graphs
    assert (unimodal.outcome, unimodal.judgements, unimodal.keep) == ("not the precision", 2, ())
    assert unimodal.everything is not None
    assert unimodal.everything.own == pytest.approx(unimodal.before.own, rel=0.05)
    with pytest.raises(ParityError, match="so fp16 is not the cause") as caught:
        result.raise_if_hopeless()
    assert "fmmt parity" in caught.value.fix


def test_an_error_of_one_s_own_choice(tiny_bundle: Bundles) -> None:
    """Within the tolerance, but too much for the caller: layers are kept back until it isn't."""
    bundle = tiny_bundle("unimodal")
    (free,) = found(bundle, {"unimodal": "fp16"}).graphs
    allowed = free.before.own / 3
    (bound,) = found(bundle, {"unimodal": "fp16"}, allowed).graphs
    assert free.outcome == "holds"
    assert bound.outcome == "kept back"
    assert bound.after is not None
    assert bound.after.own <= allowed < bound.before.own
    assert bound.before.problems == (f"the largest error of unimodal is {free.before.own:.3g}, above {allowed:.3g}",)


class Counting:
    """An engine that counts."""

    inputs: Mapping[str, np.dtype[np.float32]] = {"x": np.dtype(np.float32)}

    def __init__(self) -> None:
        self.asked = 0

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        self.asked += 1
        return {"y": np.asarray(inputs["x"]) + 1}

    start: Callable[..., dict[str, object]]

    def close(self) -> None:
        self.asked = -1


def test_nothing_is_computed_twice() -> None:
    counting = Counting()
    engine = RememberingEngine(counting)  # type: ignore[arg-type]
    one, other = np.arange(4, dtype=np.float32), np.arange(4, dtype=np.float32).reshape(2, 2)
    for x, asked in ((one, 1), (one.copy(), 1), (other, 2), (one[::-1], 3), (one + 1, 4), (one, 4)):
        assert np.array_equal(engine.run({"x": x})["y"], x + 1)
        assert counting.asked == asked
    assert list(engine.inputs) == ["x"]
    assert np.array_equal(engine.start({"x": one})["y"].numpy(), one + 1)
    engine.close()
    assert counting.asked == -1
