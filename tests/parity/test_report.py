"""The report: verdict, worst tensor, table and JSON, for a run that passes and for each kind of failure."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity import TOLERANCES, ParityReport, StageParity, Tolerance, compare_decisions, compare_tensors
from fmmt_deploy.parity.report import rounded_up

FP32 = TOLERANCES["fp32"]
LOGITS = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
KEPT = np.ones((20, 4), bool)


def report(face_error: float = 0.0, logit_error: float = 0.0, *, kept: np.ndarray = KEPT) -> ParityReport:
    """A swin stage and an end-to-end one, each with one element off by so much."""
    faces, logits = LOGITS.astype(np.float64), LOGITS.astype(np.float64)
    faces[3, 2] += face_error
    logits[5, 1] += logit_error
    swin = compare_tensors("face_logits", LOGITS.astype(np.float64), faces, FP32.face_logits)
    end = compare_tensors("logits", LOGITS.astype(np.float64), logits, FP32.logits)
    decisions = compare_decisions(LOGITS, logits.astype(np.float32), FP32, KEPT, kept)
    stages = (StageParity("swin", (swin,)), StageParity("end to end", (end,), decisions))
    return ParityReport("ort fp32", "torch fp32", stages)


def test_a_run_within_its_tolerances_passes() -> None:
    passed = report(1e-6, 1e-5)
    assert passed.passed
    passed.raise_unless_passed()
    assert passed.worst is not None
    assert passed.worst[0] == "end to end"
    assert passed.table().splitlines()[-1] == "parity of ort fp32 with torch fp32: passed"
    assert "end to end: decisions agree 20 of 20, ties turned 0; kept faces 20 of 20" in passed.table()


def test_a_failure_names_the_worst_tensor_its_index_and_what_would_have_passed() -> None:
    failed = report(face_error=3.14e-3, logit_error=2.1e-5)
    assert not failed.passed
    with pytest.raises(
        ParityError, match=r"swin/face_logits: 1 of 140 .* worst at \[3, 2\]: expected .* found"
    ) as caught:
        failed.raise_unless_passed()
    assert caught.value.tensor == "face_logits"
    assert caught.value.why == "2 checks failed."
    assert "atol 3.2e-03 would have passed" in str(caught.value)
    assert failed.table().count("failed: ") == 2


def test_kept_faces_alone_turn_the_verdict() -> None:
    kept = KEPT.copy()
    kept[0, 0] = False
    failed = report(kept=kept)
    assert not failed.passed
    with pytest.raises(ParityError, match="end to end: kept faces of 1 in 20"):
        failed.raise_unless_passed()


@pytest.mark.parametrize("stages", [(), (StageParity("swin", ()),)])
def test_comparing_nothing_is_no_pass(stages: tuple[StageParity, ...]) -> None:
    empty = ParityReport("ort fp32", "torch fp32", stages)
    assert not empty.passed
    assert empty.worst is None
    with pytest.raises(ParityError, match="nothing was compared"):
        empty.raise_unless_passed()
    assert json.loads(json.dumps(empty.to_json()))["passed"] is False


def test_what_can_not_be_compared_is_worst() -> None:
    broken = compare_tensors("states", LOGITS, LOGITS * np.float32(np.nan), FP32.token_states)
    wrong = compare_tensors("face_logits", LOGITS, LOGITS + 9, FP32.face_logits)
    both = ParityReport("e", "r", (StageParity("plm", (broken,)), StageParity("swin", (wrong,))))
    assert both.worst == ("plm", broken)
    data = json.loads(json.dumps(both.to_json(), allow_nan=False))
    assert data["stages"][0]["tensors"][0]["max_abs"] is None
    assert data["stages"][0]["tensors"][0]["nan_count"] == 140


def test_json() -> None:
    data = json.loads(json.dumps(report(1e-3).to_json(), allow_nan=False))
    assert data["schema"] == "fmmt.parity/1"
    assert data["passed"] is False
    assert data["worst"] == {"stage": "swin", "tensor": "face_logits"}
    tensor = data["stages"][0]["tensors"][0]
    assert tensor["worst_index"] == [3, 2]
    assert tensor["max_abs"] == pytest.approx(1e-3)
    assert tensor["tolerance"]["atol"] == 5e-5
    assert data["stages"][1]["decisions"]["passed"] is True


@pytest.mark.parametrize("error", [0.0, 1e-3, 1e30])
def test_the_table_is_at_most_100_columns_wide(error: float) -> None:
    small = report(error)
    long = compare_tensors("a_tensor_with_a_very_long_name_indeed", LOGITS, LOGITS[:3], Tolerance(1e-5, 1e-5, ""))
    table = ParityReport("ort fp32", "torch fp32", (*small.stages, StageParity("x" * 30, (long,)))).table()
    assert max(len(line) for line in table.splitlines()) <= 100
    heading, first = table.splitlines()[:2]
    assert heading.split()[0] == "tensor"
    assert first.startswith("swin/face_logits")
    assert "a_tenso" not in table.splitlines()[3]
    assert table.splitlines()[3].startswith("x" * 23 + "…")
    assert "5e-05+1e-05|x|" in first


@given(value=st.floats(1e-30, 1e30))
def test_the_tolerance_shown_is_never_less_than_needed(value: float) -> None:
    assert value <= float(rounded_up(value)) <= 1.1 * value  # 1.01 is shown as 1.1
