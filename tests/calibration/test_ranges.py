"""The audit sees what a type would do, and refuses overflow; expected values are NumPy's own of the types."""

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.cast import audit_ranges
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.ranges import LIMITS, RangeAudit, TensorRange, check_ranges
from fmmt_deploy.errors import DataError, PrecisionError
from tests.models import TINY

Bundles = Callable[[str], Bundle]


def test_limits_are_those_of_the_types() -> None:
    for precision, dtype in (("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        info = ml_dtypes.finfo(dtype)
        expected = [float(number) for number in (info.max, info.smallest_normal, info.smallest_subnormal)]
        limits = LIMITS[precision]
        assert [limits.largest, limits.smallest_normal, limits.smallest] == expected


@pytest.fixture
def typed(tiny_bundle: Bundles) -> Draft:
    return draft_in("unimodal", tiny_bundle("unimodal").graph("unimodal"), "fp16")


def found(audit: RangeAudit, name: str) -> TensorRange:
    return next(r for r in audit.ranges() if r.tensor == name)


def test_magnitudes_of_all_cases(typed: Draft) -> None:
    audit = RangeAudit(typed)
    audit.observe("Gemm", torch.tensor([[0.0, -3.0], [1e-5, 1e-8]]))
    audit.observe("Gemm", torch.tensor([[2.0, 0.5], [-0.25, 7e-5]]))
    audit.observe("counts", torch.tensor([1, 2]))
    seen = found(audit, "Gemm")
    assert (seen.elements, seen.largest, seen.verdict) == (8, 3.0, "ok")
    assert seen.smallest == pytest.approx(1e-8)
    assert (seen.below_normal, seen.below_smallest) == (2 / 8, 1 / 8)
    assert seen.held == ("fp16",)
    assert [r.tensor for r in audit.ranges()] == ["Gemm"]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(8188.0, "ok"), (8189.0, "near the edge"), (-65504.0, "near the edge"), (65505.0, "OVERFLOWS")],
)
def test_verdicts(typed: Draft, value: float, verdict: str) -> None:
    audit = RangeAudit(typed)
    audit.observe("Gemm", torch.tensor([value]))
    assert found(audit, "Gemm").verdict == verdict
    if verdict != "OVERFLOWS":
        check_ranges(audit.ranges(), "unimodal in fp16")
        return
    with pytest.raises(
        PrecisionError, match=r"unimodal in fp16 overflows: Gemm of node 'Gemm' reaches 65505"
    ) as caught:
        check_ranges(audit.ranges(), "unimodal in fp16")
    assert (caught.value.exit_code, caught.value.tensor) == (9, "Gemm")


def test_float32_tensors_may_be_large(tiny_bundle: Bundles, typed: Draft) -> None:
    name = next(d.node for d in typed.decisions if d.operator == "Softmax")
    audit = RangeAudit(typed)
    audit.observe(f"{name}", torch.tensor([1e6]))
    audit.observe("Mul", torch.tensor([-1e7]))  # of the masks
    check_ranges([replace(r, held=("fp32",), verdict="float32") for r in audit.ranges() if r.tensor == name], "it")
    assert found(audit, "Mul").verdict == "float32"
    kept = draft_in("unimodal", tiny_bundle("unimodal").graph("unimodal"), "fp16", ["utt_transformer.layer.1/*"])
    audit = RangeAudit(kept)
    audit.observe("utt_transformer.layer.1/Gelu", torch.tensor([1e6]))
    assert found(audit, "utt_transformer.layer.1/Gelu").verdict == "asked for"
    check_ranges(audit.ranges(), "it")


@pytest.mark.parametrize("model", TINY)
def test_every_float_of_every_graph_is_audited(tiny_bundle: Bundles, model: str) -> None:
    """And each is told whether the typed graph holds it low, which softmaxes and masks never are before their use."""
    bundle = tiny_bundle(model)
    stages = read_self_test(bundle.path / "self_test.npz")
    planned = [draft_in(graph, bundle.graph(graph), "fp16") for graph in stages]
    ranges = audit_ranges(bundle, planned, [{graph: stage.inputs for graph, stage in stages.items()}], 1)
    for typed in planned:
        names = [r.tensor for r in ranges[typed.graph]]
        assert set(names) == set(typed.held)
        assert len(set(names)) == len(names)
        assert all(0 < r.largest < 20000 or r.largest == 0 for r in ranges[typed.graph])
        largest = max((r for r in ranges[typed.graph]), key=lambda r: r.largest)
        if typed.graph != "swin":
            assert largest.largest == pytest.approx(10000, rel=1e-3)  # of the masks, which are not held low
            assert largest.verdict == "float32"
        check_ranges(ranges[typed.graph], typed.graph)


def test_what_other_graphs_compute_is_computed(tiny_bundle: Bundles) -> None:
    """The fusion's audit runs the two before it, faces a few at a time; each case is one pass."""
    bundle = tiny_bundle("bert")
    stages = read_self_test(bundle.path / "self_test.npz")
    fusion = {n: a for n, a in stages["fusion"].inputs.items() if n not in ("token_states", "face_logits")}
    case = {"swin": stages["swin"].inputs, "plm": stages["plm"].inputs, "fusion": fusion}
    planned = [draft_in("fusion", bundle.graph("fusion"), "fp16")]
    ranges = audit_ranges(bundle, planned, (c for c in [case, case]), 1)["fusion"]
    once = audit_ranges(bundle, planned, [case], 1)["fusion"]
    given = audit_ranges(bundle, planned, [{"fusion": stages["fusion"].inputs}], 1)["fusion"]
    for twice, single, direct in zip(ranges, once, given, strict=True):
        assert (twice.elements, twice.largest) == (2 * single.elements, single.largest)
        assert direct.largest == pytest.approx(single.largest, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite(tiny_bundle: Bundles, typed: Draft, value: float) -> None:
    inputs = dict(read_self_test(tiny_bundle("unimodal").path / "self_test.npz")["unimodal"].inputs)
    inputs["vision"] = inputs["vision"].copy()
    inputs["vision"][1, 0, 0] = value
    with pytest.raises(DataError, match="The input vision of unimodal has values that are not finite") as caught:
        audit_ranges(tiny_bundle("unimodal"), [typed], [{"unimodal": inputs}], 1)
    assert caught.value.exit_code == 2


def test_a_float32_graph_that_overflows_itself(typed: Draft) -> None:
    with pytest.raises(PrecisionError, match="unimodal computes values that are not finite in float32 already: Gemm"):
        RangeAudit(typed).observe("Gemm", torch.tensor([np.inf]))
