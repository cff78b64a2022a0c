"""Where tensors saturate: against ONNX Runtime's calibrator, TensorRT's algorithm written out, and real rounding."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy, norm

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.calibration.histograms import BINS, Histogram, empty_histogram, histogram_from_values
from fmmt_deploy.calibration.quantisers import rounded, sqnr_db
from fmmt_deploy.calibration.thresholds import METHODS, Method, expected_error, threshold_from_histogram
from fmmt_deploy.errors import DataError, UsageError

OPERANDS = ("int8", "fp8")
RNG = np.random.default_rng(7)
DATA = {
    "normal": RNG.normal(size=100_000),
    "laplace": RNG.laplace(size=100_000),
    "heavy": RNG.standard_t(3, size=100_000),
    "outliers": np.concatenate([RNG.normal(size=100_000), RNG.normal(0, 20, size=100)]),
    "uniform": RNG.uniform(-3, 3, size=100_000),
    "gelu": torch.nn.functional.gelu(torch.tensor(RNG.normal(0, 2, size=100_000))).numpy(),
}


def histogram_of(values: np.ndarray) -> Histogram:
    return histogram_from_values(torch.tensor(values, dtype=torch.float32), float(np.abs(np.float32(values)).max()))


def by_onnxruntime(method: str, values: np.ndarray, quantised_bins: int = 0, percentile: float = 0) -> float:
    collector = HistogramCollector(method, True, 2049, quantised_bins, percentile, None)
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": values.astype(np.float32)})
        return float(collector.compute_collection_result()["x"][1])


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("percentile", [90.0003, 99.0003, 99.9873])
def test_percentile_is_onnxruntimes_and_numpys(name: str, percentile: float) -> None:
    """At shares that are no whole number of values, so that rounding of a cumulated sum decides nothing."""
    values = DATA[name]
    found = threshold_from_histogram(histogram_of(values), "percentile", "int8", percentile)
    own_bin, its_bin = histogram_of(values).width, np.abs(values).max() / 2049
    assert found == pytest.approx(by_onnxruntime("percentile", values, percentile=percentile), abs=own_bin + its_bin)
    exact = np.percentile(np.abs(values), percentile, method="inverted_cdf")
    assert found == pytest.approx(exact, abs=own_bin)
    assert threshold_from_histogram(histogram_of(values), "percentile", "int8", 100) == histogram_of(values).largest


@pytest.mark.parametrize("name", ["normal", "laplace", "outliers"])
def test_entropy_is_near_onnxruntimes(name: str) -> None:
    """Near only: it counts both signs, in whole numbers, and puts what is left of a division into the last bin."""
    values = DATA[name]
    found = threshold_from_histogram(histogram_of(values), "entropy", "int8")
    its = by_onnxruntime("entropy", np.concatenate([values, -values]), quantised_bins=256)
    assert found == pytest.approx(its, rel=0.5 if name == "outliers" else 0.15)


def divergence_written_out(counts: list[int], kept: int) -> float:
    """Loop for loop from the paper of TensorRT's calibrator; quantised as QuantizeLinear does; SciPy's entropy."""
    reference = [float(count) for count in counts[:kept]]
    reference[-1] += sum(counts[kept:])
    codes = [round((i + 0.5) / kept * 127) for i in range(kept)]
    candidate = [0.0] * kept
    for code in set(codes):
        mine = [i for i in range(kept) if codes[i] == code]
        present = [i for i in mine if reference[i]]
        for i in present:
            candidate[i] = sum(counts[j] for j in mine) / len(present)
    return float(entropy(reference, candidate))


def test_entropy_takes_the_least_divergence() -> None:
    edges = np.arange(BINS + 1) / 256  # a normal density, cut at 9 of 16 standard deviations
    counts = (np.diff(norm.cdf(edges)) * 1e7).astype(np.int64) * (edges[1:] <= 9)
    found = threshold_from_histogram(Histogram(counts, 16.0, 9.0), "entropy", "int8")
    chosen = round(found * 256)
    plain = [int(counts[1]), *counts[1:].tolist()]
    others = (200, 500, 800, 900, 1000, chosen - 40, chosen + 40, 1300, 1400)
    assert all(divergence_written_out(plain, chosen) <= divergence_written_out(plain, bins) for bins in others)


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", DATA)
def test_mse_is_as_good_as_the_best_of_real_rounding(name: str, operands: EightBits) -> None:
    values = DATA[name].astype(np.float32)
    found = threshold_from_histogram(histogram_of(values), "mse", operands)
    largest = np.abs(values).max()

    def real(threshold: float) -> float:
        return sqnr_db(values, rounded(values, threshold / LARGEST[operands], operands))

    best = max(real(largest * 2.0**-octaves) for octaves in np.linspace(0, 5, 101))
    assert real(found) >= best - 0.03
    assert -10 * np.log10(expected_error(histogram_of(values), found, operands)) == pytest.approx(real(found), abs=0.05)


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 4.0])
def test_expected_error_is_that_of_real_rounding(operands: EightBits, factor: float) -> None:
    values = DATA["laplace"].astype(np.float32)
    threshold = float(np.abs(values).max()) * factor
    real = sqnr_db(values, rounded(values, threshold / LARGEST[operands], operands))
    found = -10 * np.log10(expected_error(histogram_of(values), threshold, operands))
    assert found == pytest.approx(real, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.sampled_from([0.5, 3.0, 30.0]),
    st.sampled_from(METHODS),
    st.sampled_from(OPERANDS),
    st.integers(-20, 20),
)
def test_bounds_and_scaling(
    seed: int, count: int, freedom: float, method: Method, operands: EightBits, octaves: int
) -> None:
    values = np.random.default_rng(seed).standard_t(freedom, count).clip(-1e6, 1e6).astype(np.float32)
    found = threshold_from_histogram(histogram_of(values), method, operands)
    assert 0 < found <= np.abs(values).max()
    assert threshold_from_histogram(histogram_of(values * 2.0**octaves), method, operands) == found * 2.0**octaves


@pytest.mark.parametrize("factor", [0.3, 1.7, 100.0])
@pytest.mark.parametrize("method", METHODS)
def test_any_factor_scales_the_threshold(method: Method, factor: float) -> None:
    one, other = (threshold_from_histogram(histogram_of(DATA["normal"] * f), method, "int8") for f in (1, factor))
    assert other == pytest.approx(one * factor, rel=0.08 if method == "entropy" else 0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[1.0] * 9, [0.0] * 999 + [-5.0], [1e-30], [-3e38, 1.0]])
def test_odd_data(method: Method, values: list[float]) -> None:
    for operands in OPERANDS:
        found = threshold_from_histogram(histogram_of(np.array(values)), method, operands)
        assert 0 < found <= np.abs(np.float32(values)).max()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_or_zeros_only_are_refused(method: Method) -> None:
    for found in (empty_histogram(), histogram_of(np.zeros(5))):
        with pytest.raises(DataError, match="nothing but zeros"):
            threshold_from_histogram(found, method, "int8")


@pytest.mark.parametrize("percentile", [0, -1, 100.1, float("nan")])
def test_no_percentile(percentile: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 100"):
        threshold_from_histogram(histogram_of(np.ones(5)), "percentile", "int8", percentile)
