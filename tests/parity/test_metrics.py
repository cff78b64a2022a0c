"""Tensor comparisons: measures against NumPy and SciPy, the rule against numpy.isclose, and every way to fail."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cosine

from fmmt_deploy.errors import FmmtError
from fmmt_deploy.parity import EXACT, TOLERANCES, Tolerance, compare_outputs, compare_tensors
from fmmt_deploy.parity.metrics import RELATIVE_FLOOR
from tests.golden import GOLDEN

WIDE = Tolerance(0.5, 0.0, "for the test")
FLOATS = st.floats(-100, 100, width=32)


@given(data=st.data(), shape=array_shapes(max_dims=4, max_side=4), rtol=st.sampled_from([0.0, 1e-3, 0.5]))
@settings(max_examples=60, deadline=None)
def test_measures_are_numpys(data: st.DataObject, shape: tuple[int, ...], rtol: float) -> None:
    expected = data.draw(arrays(np.float32, shape, elements=FLOATS))
    found = data.draw(arrays(np.float32, shape, elements=FLOATS))
    comparison = compare_tensors("x", expected, found, Tolerance(1.0, rtol, ""))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    assert comparison.elements == a.size
    assert comparison.max_abs == np.abs(a - b).max()
    assert comparison.mean_abs == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    assert comparison.max_relative == pytest.approx((np.abs(a - b) / np.maximum(np.abs(a), RELATIVE_FLOOR)).max())
    assert comparison.passed == bool(np.all(np.abs(a - b) - rtol * np.abs(a) <= 1.0))
    assert comparison.worst_reference == a[comparison.worst_index]
    assert comparison.worst_actual == b[comparison.worst_index]
    assume(np.linalg.norm(a) > 1e-3 and np.linalg.norm(b) > 1e-3)
    assert comparison.relative_norm == pytest.approx(np.linalg.norm((a - b).ravel()) / np.linalg.norm(a.ravel()))
    assert comparison.cosine == pytest.approx(1 - cosine(a.ravel(), b.ravel()), abs=1e-9)


@given(
    expected=arrays(np.float32, (3, 4), elements=FLOATS),
    found=arrays(np.float32, (3, 4), elements=FLOATS),
    rtol=st.sampled_from([0.0, 1e-2]),
)
@settings(max_examples=60, deadline=None)
def test_the_tolerance_that_would_have_passed_passes_and_less_does_not(
    expected: np.ndarray, found: np.ndarray, rtol: float
) -> None:
    needed = compare_tensors("x", expected, found, Tolerance(0.0, rtol, "")).needed_atol
    assert compare_tensors("x", expected, found, Tolerance(needed, rtol, "")).passed
    a, b = expected.astype(np.float64), found.astype(np.float64)
    assert np.isclose(b, a, atol=needed * (1 + 1e-12) + 1e-12, rtol=rtol).all()
    if needed:
        less = Tolerance(np.nextafter(needed, 0.0), rtol, "")
        assert not compare_tensors("x", expected, found, less).passed


def test_the_worst_element_is_the_one_furthest_beyond_the_rule() -> None:
    """An error of 1 on 1000 is within a relative 0.01, one of 0.5 on 1 is not."""
    expected = np.array([[1000.0, 1.0], [0.0, 0.0]], np.float32)
    found = np.array([[1001.0, 1.5], [0.0, 0.0]], np.float32)
    comparison = compare_tensors("x", expected, found, Tolerance(0.1, 0.01, ""))
    assert comparison.worst_index == (0, 1)
    assert (comparison.worst_reference, comparison.worst_actual) == (1.0, 1.5)
    assert comparison.needed_atol == pytest.approx(0.49)
    assert comparison.max_abs == 1.0
    assert comparison.failure == "1 of 4 elements differ by more than 1e-01+1e-02|x|"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [True, False])
def test_what_is_not_finite_has_failed_even_if_both_sides_agree(value: float, both: bool) -> None:
    expected, found = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    found[1, 1] = value
    if both:
        expected[1, 1] = value
    comparison = compare_tensors("x", expected, found, WIDE)
    assert not comparison.passed
    assert ("the reference" if both else "the engine") in comparison.failure
    assert comparison.worst_index == (1, 1)
    assert (comparison.nan_count, comparison.inf_count) == ((1, 0) if np.isnan(value) else (0, 1))
    assert np.isnan(comparison.max_abs)


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"expected float64 \(2, 3\), found float64 \(3, 2\)"),
        (np.zeros(2, np.float32), np.zeros(2, np.float16), "expected float32 .* found float16"),
        (np.zeros((0, 7)), np.zeros((0, 7)), "nothing to compare"),
    ],
)
def test_what_can_not_be_compared_has_failed(expected: np.ndarray, found: np.ndarray, message: str) -> None:
    comparison = compare_tensors("x", expected, found, WIDE)
    assert not comparison.passed
    assert re.search(message, comparison.failure)


def test_a_mask_leaves_padding_out() -> None:
    expected, found = np.ones((2, 3, 4), np.float32), np.ones((2, 3, 4), np.float32)
    found[0, 2], found[1, 1, 3] = np.nan, 1.25
    mask = np.array([[True, True, False], [True, True, True]])
    comparison = compare_tensors("states", expected, found, WIDE, mask)
    assert comparison.passed
    assert (comparison.elements, comparison.worst_index, comparison.max_abs) == (20, (1, 1, 3), 0.25)
    assert comparison.nan_count == 0
    assert not compare_tensors("states", expected, found, WIDE).passed


def test_a_mask_that_hides_everything_has_failed() -> None:
    ones = np.ones((2, 3), np.float32)
    assert "nothing to compare" in compare_tensors("x", ones, ones, WIDE, np.zeros(2, bool)).failure


def test_a_mask_of_another_shape_is_a_bug() -> None:
    with pytest.raises(FmmtError, match=r"first axes of \(2, 3\), found \(3,\)"):
        compare_tensors("x", np.ones((2, 3)), np.ones((2, 3)), WIDE, np.ones(3, bool))


@pytest.mark.parametrize("kind", [np.bool_, np.int64])
def test_integers_and_masks_are_equal_or_wrong(kind: type) -> None:
    expected = np.array([1, 0, 1], kind)
    assert compare_tensors("kept", expected, expected.copy(), EXACT).passed
    comparison = compare_tensors("kept", expected, np.array([1, 1, 1], kind), EXACT)
    assert (comparison.passed, comparison.worst_index) == (False, (1,))


def test_zero_vectors() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert (compare_tensors("x", zero, zero, WIDE).cosine, compare_tensors("x", zero, zero, WIDE).relative_norm) == (
        1,
        0,
    )
    assert (compare_tensors("x", zero, one, WIDE).cosine, compare_tensors("x", zero, one, WIDE).relative_norm) == (
        0,
        np.inf,
    )


def test_a_scalar_can_be_compared() -> None:
    assert compare_tensors("f1", np.array(0.5), np.array(0.5), EXACT).passed


def test_golden_logits_with_one_wrong_row_fail_by_that_row() -> None:
    """A fault as an engine would make it: the second row of a batch holds its neighbour's answer."""
    logits = np.load(GOLDEN / "roberta" / "expected.npz")["logits"]
    wrong = logits.copy()
    wrong[1] = wrong[0]
    comparison = compare_tensors("logits", logits, wrong, TOLERANCES["fp32"].logits)
    assert (comparison.passed, comparison.worst_index[0]) == (False, 1)
    assert compare_tensors("logits", logits, logits + np.float32(1e-5), TOLERANCES["fp32"].logits).passed
    half = logits.astype(np.float16).astype(np.float32)
    assert not compare_tensors("logits", logits, half, TOLERANCES["fp32"].logits).passed
    assert compare_tensors("logits", logits, half, TOLERANCES["fp16"].logits).passed


def test_outputs_are_compared_in_the_tolerances_order() -> None:
    outputs = {"a": np.ones(2), "b": np.ones((2, 2)), "unlisted": np.ones(1)}
    changed = outputs | {"b": np.full((2, 2), 9.0)}
    mask = {"b": np.zeros((2, 2), bool)}
    compared = compare_outputs(outputs, changed, {"b": WIDE, "a": EXACT})
    assert [(c.name, c.passed, c.tolerance) for c in compared] == [("b", False, WIDE), ("a", True, EXACT)]
    assert "masked" in compare_outputs(outputs, changed, {"b": WIDE}, mask)[0].failure


def test_a_missing_output_has_failed() -> None:
    one = {"a": np.ones(2)}
    first, second = compare_outputs(one | {"b": np.ones(2)}, one, {"a": WIDE, "b": WIDE})
    assert first.passed
    assert second.failure == "the engine has no such output"
    assert compare_outputs(one, one | {"b": np.ones(2)}, {"a": WIDE, "b": WIDE})[1].failure.startswith("the reference")


def test_no_output_in_common_has_failed() -> None:
    (comparison,) = compare_outputs({"a": np.ones(2)}, {"b": np.ones(2)}, {"a": WIDE})
    assert "no output in common" in comparison.failure
    assert not comparison.passed
    with pytest.raises(FmmtError, match="at least one"):
        compare_outputs({"a": np.ones(2)}, {"a": np.ones(2)}, {})


def test_the_verdict_is_the_failure() -> None:
    comparison = compare_tensors("x", np.ones(2), np.ones(2), EXACT)
    assert not replace(comparison, failure="something").passed
