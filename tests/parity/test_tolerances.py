"""The tolerance table: the promises it must keep, and its agreement with selection's rules."""

from dataclasses import fields

import pytest

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.parity.tolerances import TOLERANCES, StageTolerances, Tolerance, coarsest
from fmmt_deploy.rounding import LOGIT_ROUNDING, TIE_MARGIN
from fmmt_deploy.selection.rules import EQUIVALENCE_RULES


def test_float32_promises_2e_5_on_logits_and_the_same_kept_faces() -> None:
    assert (TOLERANCES["fp32"].logits.atol, TOLERANCES["fp32"].logits.rtol) == (2e-5, 0.0)
    assert TOLERANCES["fp32"].kept.min_share == 1.0
    assert TOLERANCES["fp32"].logits.atol == LOGIT_ROUNDING
    assert 2 * TOLERANCES["fp32"].logits.atol == TIE_MARGIN


def test_every_precision_has_a_row_with_reasons() -> None:
    assert tuple(TOLERANCES) == PRECISIONS
    for stages in TOLERANCES.values():
        assert all(getattr(stages, stage.name).reason for stage in fields(StageTolerances))


def test_no_stage_is_stricter_at_a_lower_precision() -> None:
    for stage in ("face_logits", "token_states", "logits"):
        atols = [getattr(TOLERANCES[precision], stage).atol for precision in PRECISIONS]
        assert atols == sorted(atols)
    for stage in ("kept", "decisions"):
        shares = [getattr(TOLERANCES[precision], stage).min_share for precision in PRECISIONS]
        assert shares == sorted(shares, reverse=True)


def test_the_same_integers_have_the_same_row_and_fp8_a_wider_one() -> None:
    """A step of E4M3 is 1/16 of a number and more; int8 has 127 of them in the largest."""
    assert TOLERANCES["int8-fp32"] == TOLERANCES["int8"]
    for stage in ("face_logits", "token_states", "logits"):
        int8, fp8 = (getattr(TOLERANCES[precision], stage).atol for precision in ("int8", "fp8"))
        assert 2 * int8 <= fp8 <= 8 * int8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_selection_judges_decisions_by_the_same_numbers(precision: Precision) -> None:
    rule = EQUIVALENCE_RULES[precision]
    assert rule.max_changed_share == pytest.approx(1 - TOLERANCES[precision].decisions.min_share)
    assert rule.tie_margin == TIE_MARGIN


def test_mixed_precisions_are_held_to_the_coarsest() -> None:
    assert coarsest(["fp32", "int8", "fp16"]) == "int8"
    assert coarsest(["fp16", "bf16"]) == "bf16"
    assert coarsest(["fp32"]) == "fp32"


def test_a_tolerance_shows_both_its_parts() -> None:
    assert str(Tolerance(2e-5, 0.0, "")) == "2e-05"
    assert str(Tolerance(5e-5, 1e-5, "")) == "5e-05+1e-05|x|"
