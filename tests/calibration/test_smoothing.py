"""SmoothQuant's factors by the paper's formula; the sweep against quantising everything for real, in NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.smoothing import ALPHAS, GAIN_DB, SmoothingChoice, smoothing_factors, sweep
from fmmt_deploy.calibration.statistics import TensorStatistics
from fmmt_deploy.calibration.thresholds import METHODS
from fmmt_deploy.errors import DataError

K = 96
MAGNITUDES = arrays(np.float32, K, elements=st.one_of(st.just(0.0), st.floats(2.0**-100, 2.0**100, width=32)))


def statistics_of(rows: np.ndarray) -> TensorStatistics:
    found = TensorStatistics("x", rows.shape[1], rows_kept=200)
    for case, part in enumerate(np.array_split(rows.astype(np.float32), 10)):
        found.update(part, case)
    return found


def rows_with_outliers(factor: float, count: int = 600) -> np.ndarray:
    """As after a LayerNorm of a language model: a few columns are far larger than all others."""
    rows = np.random.default_rng(0).normal(size=(count, K))
    rows[:, [3, 50]] *= factor
    return rows.astype(np.float32)


def weight(seed: int, columns: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, (K, columns)).astype(np.float32)


def real_sqnr(rows: np.ndarray, weights: np.ndarray, found: SmoothingChoice) -> float:
    """Of int8 integers multiplied and summed up, in decibels; apart from the modules under test."""
    factors = np.ones(K) if found.smoothing is None else found.smoothing.astype(np.float64)
    left, right = rows / factors, weights * factors[:, None]
    step, steps = found.chosen.threshold / 127, np.abs(right).max(axis=0) / 127
    products = np.clip(np.round(left / step), -128, 127) @ np.round(right / steps) * step * steps
    exact = rows.astype(np.float64) @ weights
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - products).sum()))


def test_factors_by_hand() -> None:
    columns, rows = np.float32([16, 1, 4]), np.float32([1, 4, 0.25])
    for alpha, expected in ((1.0, [16, 1, 4]), (0.0, [1, 0.25, 4]), (0.5, [4, 0.5, 4])):
        np.testing.assert_allclose(
            smoothing_factors(columns, rows, alpha), np.array(expected) / np.prod(expected) ** (1 / 3), rtol=2**-11
        )


@given(MAGNITUDES, MAGNITUDES, st.floats(0, 1))
def test_factors_are_always_usable(columns: np.ndarray, rows: np.ndarray, alpha: float) -> None:
    found = smoothing_factors(columns, rows, alpha)
    assert found.dtype == np.float32
    assert ((found > 0) & np.isfinite(found)).all()
    assert (found[(columns == 0) | (rows == 0)] == 1).all()
    inverse = 1 / found
    assert (np.abs(inverse.astype(np.float16) - inverse) <= np.spacing(inverse)).all()  # a float16 number
    assert (inverse >= np.finfo(np.float16).smallest_normal).all()


def test_smoothing_changes_no_product() -> None:
    rows, weights = rows_with_outliers(50).astype(np.float64), weight(1).astype(np.float64)
    factors = smoothing_factors(np.float32(np.abs(rows).max(axis=0)), np.abs(weights).max(axis=1), 0.7)
    np.testing.assert_allclose((rows / factors) @ (weights * factors[:, None]), rows @ weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_outliers_are_smoothed_and_it_gains_for_real(method: str) -> None:
    rows, weights = rows_with_outliers(40), weight(1)
    found, plain = (sweep(statistics_of(rows), [weights], "int8", [method], alphas=alphas) for alphas in (ALPHAS, ()))
    assert found.smoothing is not None
    assert found.smoothing[3] > 4 * np.median(found.smoothing)
    gain = real_sqnr(rows, weights, found) - real_sqnr(rows, weights, plain)
    assert gain > 3


def test_errors_that_are_told_are_real() -> None:
    rows, weights = rows_with_outliers(40, count=200), weight(1)  # all rows are sampled
    for alphas in ((), (0.5,), (0.8,)):
        found = sweep(statistics_of(rows), [weights], "int8", alphas=alphas)
        assert found.chosen.sqnr_db == pytest.approx(real_sqnr(rows, weights, found), abs=0.1)
        assert [(t.alpha, t.method) for t in found.tried] == [(a, m) for a in (None, *alphas) for m in METHODS]


def test_the_best_of_all_that_was_tried_is_taken() -> None:
    found = sweep(statistics_of(rows_with_outliers(40)), [weight(1)], "int8")
    assert found.chosen.sqnr_db == max(tried.sqnr_db for tried in found.tried)
    assert found.plain.sqnr_db == max(tried.sqnr_db for tried in found.tried if tried.alpha is None)
    assert found.gain_db == found.chosen.sqnr_db - found.plain.sqnr_db >= GAIN_DB


@pytest.mark.parametrize("operands", ["int8", "fp8"])
def test_no_multiplication_where_it_gains_nothing(operands: EightBits) -> None:
    rows = np.sign(np.random.default_rng(1).normal(size=(300, K))) * np.random.default_rng(2).uniform(0, 1, (300, K))
    found = sweep(statistics_of(rows), [weight(1)], operands)
    assert found.smoothing is None
    assert (found.chosen, found.gain_db) == (found.plain, 0)
    assert len(found.tried) == (1 + len(ALPHAS)) * len(METHODS)


def test_fp8_needs_less_smoothing() -> None:
    """Its numbers have exponents: columns of many sizes are equally well off (Kuzmin et al., 2022)."""
    int8, fp8 = (sweep(statistics_of(rows_with_outliers(5)), [weight(1)], operands) for operands in ("int8", "fp8"))
    assert int8.smoothing is not None
    assert fp8.smoothing is None


def test_products_that_read_one_tensor_are_smoothed_together() -> None:
    rows, parts = statistics_of(rows_with_outliers(40)), [weight(n) * 4**n for n in range(3)]
    together, stacked = sweep(rows, parts, "int8"), sweep(rows, [np.hstack(parts)], "int8")
    assert together.smoothing is not None
    np.testing.assert_array_equal(together.smoothing, stacked.smoothing)
    np.testing.assert_allclose(
        [tried.sqnr_db for tried in together.tried], [tried.sqnr_db for tried in stacked.tried], atol=1e-3
    )


def test_fp8_weights_have_a_scale_each() -> None:
    """A huge weight that no number ever meets spoils the matrix it is in, one of two, and not the other."""
    rows, spoilt = rows_with_outliers(1), weight(0)
    rows[:, 7], spoilt[7, 0] = 0, 1e6
    assert sweep(statistics_of(rows), [spoilt], "fp8", alphas=()).chosen.sqnr_db == pytest.approx(0, abs=0.5)
    both = sweep(statistics_of(rows), [spoilt, weight(1)], "fp8", alphas=()).chosen.sqnr_db
    assert both == pytest.approx(10 * np.log10(2), abs=0.5)


@pytest.mark.parametrize("rows", [np.zeros((5, K)), np.zeros((0, K))])
def test_nothing_or_zeros_only_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(DataError, match="How to quantise x can't be told"):
        sweep(statistics_of(rows), [weight(1)], "int8")


def test_rows_of_zeros_in_weights_and_columns_of_zeros_in_the_input() -> None:
    rows, weights = rows_with_outliers(40), weight(1)
    rows[:, 7], weights[9] = 0, 0
    found = sweep(statistics_of(rows), [weights], "int8")
    assert found.smoothing is not None
    assert (found.smoothing[7], found.smoothing[9]) == (1, 1)
