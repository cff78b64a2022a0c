"""The matrix rate: arithmetic on a made-up clock, and one real measurement."""

import numpy as np
import pytest

from fmmt_deploy.benchmark.matrix_rate import MatrixRate
from fmmt_deploy.errors import FmmtError


class Clock:
    """Advances only when a product is made, by the next of `steps` (the last one again and again)."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps, self.products = 0.0, list(steps), 0

    def __call__(self) -> float:
        return self.now

    def multiply(self, left: np.ndarray, right: np.ndarray) -> None:
        assert left.shape == right.shape
        assert left.dtype == right.dtype == np.float32
        self.now += self.steps[min(self.products, len(self.steps) - 1)]
        self.products += 1


def test_a_rate_is_flops_by_time() -> None:
    """Two 100 × 100 matrices take 100 · 100 · 100 multiplications and as many additions."""
    clock = Clock(0.5)
    rate = MatrixRate(100, clock.multiply, clock)
    assert rate.flops == 2_000_000
    assert rate.sample_ms() == pytest.approx(500)
    assert rate.sample() == pytest.approx(4e6 / 1e12)
    assert rate.tflops(500) == pytest.approx(4e-6)


def test_the_first_product_is_thrown_away_and_the_median_taken() -> None:
    clock = Clock(60.0, 1.0, 2.0, 4.0, 2.0, 2.0)
    measured = MatrixRate(100, clock.multiply, clock).measure(seconds=0.1)
    assert measured.samples == 5
    assert clock.products == 6
    assert measured.median_tflops == pytest.approx(1e-6)
    assert measured.highest_tflops == pytest.approx(2e-6)
    assert measured.size == 100


def test_it_measures_for_as_long_as_asked() -> None:
    clock = Clock(0.25)
    assert MatrixRate(10, clock.multiply, clock).measure(seconds=3.0).samples == 12


def test_a_product_that_takes_no_time_is_refused() -> None:
    clock = Clock(0.0)
    with pytest.raises(FmmtError, match="size 10 is too small"):
        MatrixRate(10, clock.multiply, clock).sample()
    with pytest.raises(FmmtError, match="found 0"):
        MatrixRate(0)


def test_numpys_product_is_the_product() -> None:
    rate = MatrixRate(32)
    expected = rate._left.astype(np.float64) @ rate._right.astype(np.float64)
    rate.sample_ms()
    np.testing.assert_allclose(rate._product, expected, atol=1e-4)


def test_a_real_measurement_is_plausible() -> None:
    """Between a tenth of a scalar core and the fastest machines there are."""
    measured = MatrixRate(256).measure(seconds=0.05)
    assert 1e-4 < measured.median_tflops <= measured.highest_tflops < 1e3


def test_larger_products_take_longer() -> None:
    small, large = MatrixRate(8), MatrixRate(384)
    times = np.array([(small.sample_ms(), large.sample_ms()) for _ in range(5)])
    assert np.median(times[:, 0]) < np.median(times[:, 1])
