"""What `fmmt calibrate` is about to write: checked before any work, planned, held against float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.calibrator import Calibrator
from fmmt_deploy.calibration.planning import check_calibratable, plan_calibrated, products_kept_back
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.errors import PrecisionError, UsageError
from fmmt_deploy.types import GraphName
from tests.calibration.streamed import cases_of
from tests.calibration.talk import Talk
from tests.selection.lowered import lowered_bundle
from tests.selection.planting import scaled

Bundles = Callable[[str], Bundle]
MAX = CalibrationSettings(method="max", smooth=())


def calibrator(bundle: Bundle, talk: Talk) -> Calibrator:
    return Calibrator(bundle, list(bundle.manifest.graphs), cases_of(bundle, talk.train), "data", MAX, 1)


def test_what_is_asked_for(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    wanted: dict[GraphName, Precision] = {"swin": "fp32", "plm": "int8", "fusion": "fp8"}
    assert check_calibratable(bundle, wanted, force=False) == {"plm": "int8", "fusion": "fp8"}
    with pytest.raises(UsageError, match="nothing to calibrate"):
        check_calibratable(bundle, dict.fromkeys(wanted, "fp32"), force=True)
    mixed: dict[GraphName, Precision] = {"swin": "fp16", "plm": "int8", "fusion": "fp32"}
    with pytest.raises(UsageError, match=r"swin in fp16 needs no calibration[\s\S]*--precision swin=fp16"):
        check_calibratable(bundle, mixed, force=True)
    assert check_calibratable(bundle, mixed, force=False, others=True) == {"swin": "fp16", "plm": "int8"}
    there = lowered_bundle(bundle, tmp_path / "bundle", {"plm": ["int8"]})
    with pytest.raises(UsageError, match="has plm in int8 already"):
        check_calibratable(there, wanted, force=False)
    assert check_calibratable(there, wanted, force=True) == {"plm": "int8", "fusion": "fp8"}


def test_patterns_go_to_the_graphs_that_they_fit(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    found = products_kept_back(bundle, ["swin", "plm"], ["plm.encoder.layer.0/*", "*/Gemm", "backbone.*"])
    assert found == {"swin": ("*/Gemm", "backbone.*"), "plm": ("plm.encoder.layer.0/*", "*/Gemm")}
    assert products_kept_back(bundle, ["plm"], []) == {"plm": ()}
    with pytest.raises(UsageError, match=r"'backbone\.\*' fits no product of plm[\s\S]*plm\.encoder"):
        products_kept_back(bundle, ["plm"], ["backbone.*"])


def test_plans(tiny_bundle: Bundles, talk: Talk) -> None:
    """Of precisions without calibration, too, whose kept nodes are in float32; every pattern must fit."""
    bundle = tiny_bundle("unimodal")
    source, layer = calibrator(bundle, talk), "utt_transformer.layer.0/*"
    wanted: dict[GraphName, Precision] = {"unimodal": "int8"}
    (planned,) = plan_calibrated(bundle, wanted, source, MAX, {"unimodal": [layer]})
    assert planned.audit is not None
    asked = {node for node, why in planned.audit.kept_out.items() if why == "asked for"}
    assert asked == {"utt_transformer.layer.0/Gemm", *(f"utt_transformer.layer.0/Gemm_{n}" for n in range(1, 6))}
    (half,) = plan_calibrated(bundle, {"unimodal": "fp16"}, source, MAX, {"unimodal": [layer]})
    assert half.audit is None
    kept = {d.node for d in half.draft.decisions if d.reason == "asked for"}
    assert asked < kept
    for precision in ("int8", "fp16"):
        with pytest.raises(UsageError, match=r"'plm\.\*' fits no"):
            plan_calibrated(bundle, {"unimodal": precision}, source, MAX, {"unimodal": ["plm.*"]})  # type: ignore[dict-item]


def test_what_float16_can_not_hold_is_refused(tiny_bundle: Bundles, talk: Talk, tmp_path: Path) -> None:
    """Attention's values, 2¹⁷ times what they were: float32 around is right, float16 is refused with the tensor."""
    attention = "utt_transformer.layer.0.transformer_self_attention"
    value, dense = f"{attention}.selfatt.value", f"{attention}.dense_norm.dense"
    factors = {f"{value}.weight": 2.0**17, f"{value}.bias": 2.0**17, f"{dense}.weight": 2.0**-17}
    bundle = scaled(tiny_bundle("unimodal"), tmp_path / "bundle", "unimodal", factors)
    source = calibrator(bundle, talk)
    for precision in ("int8", "fp8", "fp16"):
        with pytest.raises(PrecisionError, match=r"unimodal in .* overflows: utt_transformer\.layer\.0/") as caught:
            plan_calibrated(bundle, {"unimodal": precision}, source, MAX, {})  # type: ignore[dict-item]
        names = {name for node in onnx.load(bundle.graph("unimodal")).graph.node for name in node.output}
        assert caught.value.tensor in names
    (planned,) = plan_calibrated(bundle, {"unimodal": "int8-fp32"}, source, MAX, {})
    assert planned.draft.around == "fp32"


def test_products_that_float16_might_not_hold_are_wide(tiny_bundle: Bundles, talk: Talk, tmp_path: Path) -> None:
    """Values of 300 or so fit into float16, but not in units of a weight's scale; float32 is around that product."""
    attention = "utt_transformer.layer.0.transformer_self_attention"
    value, dense = f"{attention}.selfatt.value", f"{attention}.dense_norm.dense"
    bundle = tiny_bundle("unimodal")
    plain = calibrator(bundle, talk)
    site = next(s for s in plain.statistics("unimodal").sites if s.weight == f"{value}.weight")
    assert plain("unimodal", "int8").wide == frozenset()
    largest = float(plain.statistics("unimodal").outputs[site.output].magnitudes.max())
    factors = {f"{value}.weight": 1.0, f"{value}.bias": 2.0**14 / largest, f"{dense}.weight": 1.0}
    changed = scaled(bundle, tmp_path / "bundle", "unimodal", factors)
    wide = calibrator(changed, talk)
    (planned,) = plan_calibrated(changed, {"unimodal": "int8"}, wide, MAX, {})
    assert planned.audit is not None
    assert site.node in planned.audit.wide  # and the next, which reads it
    assert len(planned.audit.wide) <= 2
    assert float(wide.statistics("unimodal").outputs[site.output].magnitudes.max()) < np.finfo(np.float16).max
    (planned,) = plan_calibrated(changed, {"unimodal": "int8-fp32"}, wide, MAX, {})
    assert planned.audit is not None
    assert planned.audit.wide == ()  # all of it is float32
