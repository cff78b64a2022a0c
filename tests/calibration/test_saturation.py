"""Whether thresholds suit the data: scales that are off are found, those that were chosen are not."""

import numpy as np
import pytest
import torch

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.calibration.histograms import Histogram, empty_histogram, histogram_from_values
from fmmt_deploy.calibration.quantisers import rounded, sqnr_db
from fmmt_deploy.calibration.saturation import saturation_of, saturations
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.calibration.thresholds import Method, threshold_from_histogram
from fmmt_deploy.errors import DataError

RNG = np.random.default_rng(0)
DATA = {
    "normal": RNG.normal(size=100_000),
    "uniform": RNG.uniform(-1, 1, 100_000),
    "laplace": RNG.laplace(size=100_000),
    "gelu": np.maximum(RNG.normal(size=100_000), -0.1),
    "outliers": np.concatenate([RNG.normal(size=100_000), RNG.normal(0, 30, size=500)]),
}
OPERANDS = ("int8", "fp8")


def histogram_of(values: np.ndarray) -> Histogram:
    return histogram_from_values(torch.tensor(values, dtype=torch.float32), float(np.abs(np.float32(values)).max()))


HISTOGRAMS = {name: histogram_of(values) for name, values in DATA.items()}


def calibration(factors: dict[str, float] | None = None, method: Method = "mse") -> Calibration:
    """Thresholds as they are chosen; some of them off."""
    found = {name: threshold_from_histogram(histogram, method, "int8") for name, histogram in HISTOGRAMS.items()}
    off = {name: InputScale(name, threshold * (factors or {}).get(name, 1)) for name, threshold in found.items()}
    return Calibration("plm", off)


def verdicts(found: Calibration, method: Method | None = "mse", operands: EightBits = "int8") -> dict[str, str]:
    return {one.tensor: one.verdict for one in saturations(found, HISTOGRAMS, operands, method)}


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", DATA)
def test_numbers_are_those_of_the_data(name: str, operands: EightBits) -> None:
    values, largest = np.float32(DATA[name]), HISTOGRAMS[name].largest
    for factor in (0.1, 0.5, 1):
        found, beyond = saturation_of(name, HISTOGRAMS[name], largest * factor, operands), largest * factor
        excess = np.maximum(np.abs(values.astype(np.float64)) - beyond, 0)
        assert found.share == pytest.approx((excess > 0).mean(), rel=0.02, abs=2e-5)
        assert found.energy == pytest.approx(np.square(excess).sum() / np.square(values).sum(), rel=0.02, abs=1e-5)
        real = sqnr_db(values, rounded(values, beyond / LARGEST[operands], operands))
        assert found.sqnr_db == pytest.approx(real, abs=0.1)


def test_many_numbers_or_much_energy_saturate() -> None:
    many, much = (
        saturation_of("x", HISTOGRAMS[name], at, "int8") for name, at in (("normal", 3.0), ("outliers", 45.0))
    )
    assert (many.verdict, many.energy < 1e-3) == ("SATURATES", True)
    assert (much.verdict, much.share < 9e-4) == ("SATURATES", True)
    few = saturation_of("x", HISTOGRAMS["normal"], 3.5, "int8")
    assert (few.verdict, few.share > 3e-4) == ("ok", True)


@pytest.mark.parametrize("method", ["max", "mse"])
def test_thresholds_that_were_chosen_are_ok(method: Method) -> None:
    chosen = calibration(method=method)
    assert set(verdicts(chosen, method).values()) == {"ok"}


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("method", ["max", "mse", None])
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("factor", "verdict"), [(0.25, "SATURATES"), (4.0, "TOO WIDE")])
def test_a_scale_off_by_four_is_found(
    name: str, factor: float, verdict: str, method: Method | None, operands: EightBits
) -> None:
    found = verdicts(calibration({name: factor}, method or "max"), method, operands)
    assert found.pop(name) == verdict
    assert set(found.values()) == {"ok"}


def test_a_percentile_of_heavy_tails_that_is_off_is_found_where_the_method_is_known() -> None:
    heavy = histogram_of(np.random.default_rng(1).standard_t(4, size=100_000))
    chosen = threshold_from_histogram(heavy, "percentile", "int8", 99.9)
    assert heavy.largest > 2.5 * chosen
    for method, verdict in ((None, "ok"), ("percentile", "OFF")):
        assert saturation_of("x", heavy, 2.5 * chosen, "int8", method, 99.9).verdict == verdict


def test_tensors_that_were_never_seen_are_refused() -> None:
    with pytest.raises(DataError, match="never reached normal of plm"):
        saturations(calibration(), {}, "int8")
    with pytest.raises(DataError, match="x saturates can't be told"):
        saturation_of("x", empty_histogram(), 1.0, "int8")
