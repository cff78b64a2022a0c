"""The audit: what it says of tensors, held against the numbers themselves; its warnings; its receipt."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.audit import GraphAudit, TensorAudit, audit_of, check_float16, receipt, receipt_file
from fmmt_deploy.calibration.calibrator import Calibrated, Calibrator
from fmmt_deploy.calibration.coverage import Reading, coverage_of
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.scales import InputScale
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.errors import PrecisionError
from tests.calibration.streamed import cases_of
from tests.calibration.talk import ARCHITECTURE, Talk, tokenizer

Bundles = Callable[[str], Bundle]
MAX = CalibrationSettings(method="max", smooth=())
OK = TensorAudit("x", ("p",), "max", 1.0, 1.0, 0.0, 40.0, "ok", 0.1, 0.05, "ok", None, 0.0)


@pytest.fixture(scope="module")
def calibrated(tiny_bundle: Bundles, talk: Talk) -> Calibrated:
    bundle = tiny_bundle("unimodal")
    calibrator = Calibrator(bundle, ["unimodal"], cases_of(bundle, talk.train, 10), "data", MAX, 1)
    return calibrator.calibrated("unimodal", "int8")


@pytest.fixture(scope="module")
def original(tiny_bundle: Bundles) -> onnx.ModelProto:
    return onnx.load(tiny_bundle("unimodal").graph("unimodal"), load_external_data=False)


def rescaled(calibrated: Calibrated, factor: float) -> Calibrated:
    inputs = {n: InputScale(n, s.threshold * factor) for n, s in calibrated.calibration.inputs.items()}
    return replace(calibrated, calibration=replace(calibrated.calibration, inputs=inputs))


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "ok"), (0.25, "SATURATES"), (4.0, "TOO WIDE")])
def test_tensors(
    tiny_bundle: Bundles,
    talk: Talk,
    calibrated: Calibrated,
    original: onnx.ModelProto,
    factor: float,
    verdict: str,
) -> None:
    """Shares of what saturates, counted; and the SQNR of each tensor, of all that was seen of it."""
    seen: dict[str, list[np.ndarray]] = {}
    bundle = tiny_bundle("unimodal")
    engine = engine_from_onnx(
        "unimodal", bundle.graph("unimodal"), 1, lambda name, t: seen.setdefault(name, []).append(t.numpy().copy())
    )
    for case in cases_of(bundle, talk.train, 10)(0):
        engine.run(case["unimodal"])
    audit = audit_of(rescaled(calibrated, factor), "int8", MAX, original)
    assert [t.tensor for t in audit.tensors] == list(calibrated.calibration.inputs)
    for tensor in audit.tensors:
        values = np.concatenate([part.ravel() for part in seen[tensor.tensor]]).astype(float)
        threshold = np.abs(values).max() * factor
        assert tensor.threshold == pytest.approx(threshold, rel=1e-6)
        assert tensor.largest == pytest.approx(np.abs(values).max(), rel=1e-6)
        assert tensor.saturated == pytest.approx((np.abs(values) > threshold).mean(), abs=1e-3)
        rounded = np.clip(np.rint(values / threshold * 127), -127, 127) * threshold / 127
        noise = 10 * np.log10(np.square(values).sum() / np.square(values - rounded).sum())
        assert tensor.sqnr_db == pytest.approx(noise, abs=1.0)  # of a histogram
        assert tensor.verdict == verdict
    words = {"ok": "", "SATURATES": "saturating", "TOO WIDE": "with a threshold that is off"}[verdict]
    assert any(words in warning for warning in audit.warnings) or not words


def test_products_that_are_kept_out(calibrated: Calibrated, original: onnx.ModelProto) -> None:
    audit = audit_of(calibrated, "int8", MAX, original, ["utt_transformer.layer.0/Gemm_[12]"])
    read = {product for tensor in audit.tensors for product in tensor.products}
    products = {node.name for node in original.graph.node if node.op_type == "Gemm"}
    assert read | audit.kept_out.keys() == products
    assert not read & audit.kept_out.keys()
    asked = [node for node, why in audit.kept_out.items() if why == "asked for"]
    assert (
        asked
        == ["utt_transformer.layer.0/Gemm", "utt_transformer.layer.0/Gemm_1", "utt_transformer.layer.0/Gemm_2"][1:]
    )


def test_wide_products_are_of_int8_only(calibrated: Calibrated, original: onnx.ModelProto) -> None:
    names = frozenset(site.node for site in calibrated.statistics.sites[:2])
    wide = replace(calibrated, calibration=replace(calibrated.calibration, wide=names))
    assert audit_of(wide, "int8", MAX, original).wide == tuple(sorted(names))
    assert audit_of(wide, "int8-fp32", MAX, original).wide == ()
    first = calibrated.statistics.sites[0].node
    assert audit_of(wide, "int8", MAX, original, [first]).wide == tuple(names - {first})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"verdict": "SATURATES"}, "plm int8: saturating: x and 1 more"),
        ({"verdict": "OFF"}, "plm int8: with a threshold that is off: x and 1 more"),
        ({"verdict": "TOO WIDE"}, "plm int8: with a threshold that is off: x and 1 more"),
        ({"stable": "UNSTABLE"}, "unstable"),
        ({"stable": "too few cases"}, "seen in too few batches"),
    ],
)
def test_warnings(changes: dict[str, str], words: str | None) -> None:
    tensors = (replace(OK, **changes), replace(OK, tensor="fine"), replace(OK, tensor="too", **changes))  # type: ignore[arg-type]
    found = GraphAudit("plm", "int8", tensors, {}, ()).warnings
    assert len(found) == (0 if words is None else 1)
    if words is not None:
        assert words in found[0]
        assert "fine" not in found[0]


def test_receipts_are_json_without_infinity(calibrated: Calibrated, original: onnx.ModelProto, talk: Talk) -> None:
    audit = audit_of(calibrated, "int8", MAX, original)
    few = replace(talk.train, dialogues=talk.train.dialogues[:1])
    coverage = coverage_of(few, ARCHITECTURE, tokenizer(), Reading("train", 0, 0, ()))
    text = receipt(audit, coverage, MAX, {"logits": float("inf"), "other": 20.0})

    def constant(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(text, parse_constant=constant)
    assert found["sqnr_db"] == {"logits": None, "other": 20.0}
    assert found["warnings"] == [*coverage.warnings, *audit.warnings]
    assert found["audit"]["tensors"][0]["products"] == list(audit.tensors[0].products)
    assert receipt_file("unimodal", "int8") == "receipts/calibration-unimodal-int8.json"


def test_overflow(tiny_bundle: Bundles, calibrated: Calibrated) -> None:
    """Whatever is float16 in the new graph must hold what was seen; where float32 is around, nothing is asked."""
    path = tiny_bundle("unimodal").graph("unimodal")
    drafts = {p: draft_in("unimodal", path, p, (), calibrated.calibration) for p in ("int8", "int8-fp32")}  # type: ignore[arg-type]
    statistics, name = calibrated.statistics, "utt_transformer.layer.0/Gemm_4"
    known = dict(statistics.largest)
    check_float16(statistics, drafts["int8"])
    try:
        statistics.largest[name] = 65505.0
        with pytest.raises(PrecisionError, match=f"overflows: {name} reaches 65505") as caught:
            check_float16(statistics, drafts["int8"])
        assert (caught.value.tensor, caught.value.exit_code) == (name, 9)
        check_float16(statistics, drafts["int8-fp32"])
    finally:
        statistics.largest.update(known)
