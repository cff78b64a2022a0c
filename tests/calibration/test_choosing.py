"""From statistics to scales: methods, smoothing, and what float16 can't hold, by hand on numbers that are made up."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from onnx import TensorProto

from fmmt_deploy.calibration.choosing import calibration_from_statistics, tried_choices
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.formats import EightBits
from fmmt_deploy.calibration.scales import Calibration
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.calibration.sites import Site
from fmmt_deploy.calibration.weights import Weight
from fmmt_deploy.errors import DataError, PrecisionError
from fmmt_deploy.types import GraphName

MAX = CalibrationSettings(method="max", smooth=())
SITES = (
    Site("query", "x", "wq", None, 32, 4, "q"),
    Site("key", "x", "wk", None, 32, 4, "k"),
    Site("dense", "y", "wd", None, 32, 4, "d"),
)


def weights(**factors: float) -> dict[str, Weight]:
    """(N, K); the largest of every column of (K, N) is 1, or the factor."""
    rng = np.random.default_rng(0)

    def weight(name: str, factor: float) -> Weight:
        values = rng.uniform(-0.9, 0.9, (4, 32)).astype(np.float32)
        values[:, 0] = 1
        values *= np.float32(factor)
        return Weight(name, TensorProto.FLOAT, values.shape, lambda: values)

    return {name: weight(name, factors.get(name, 1.0)) for name in ("wq", "wk", "wd")}


def seen(inputs: Mapping[str, np.ndarray], graph: GraphName = "plm", largest_output: float = 1.0) -> GraphStatistics:
    statistics = GraphStatistics(graph, SITES)
    statistics.begin({})
    for name, rows in inputs.items():
        statistics.observe(name, torch.from_numpy(rows))
    for site in SITES:
        statistics.observe(site.output, torch.full((3, 4), -largest_output))
    return statistics


def noise(scale: float = 1.0, outliers: float = 1.0) -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((400, 32)) * scale
    rows[:, 5] *= outliers
    return rows.astype(np.float32)


def chosen(
    statistics: GraphStatistics, settings: CalibrationSettings, operands: EightBits = "int8", **factors: float
) -> Calibration:
    known = weights(**factors)
    choices = tried_choices(statistics, known, settings, operands)
    return calibration_from_statistics(statistics, None, choices, known, settings, operands)


def test_one_method_without_smoothing_tries_nothing() -> None:
    rows = {"x": noise(), "y": noise(3)}
    statistics = seen(rows)
    assert tried_choices(statistics, weights(), MAX, "int8") == {}
    calibration = chosen(statistics, MAX)
    assert set(calibration.inputs) == {"x", "y"}  # one a tensor, whoever reads it
    for name, scale in calibration.inputs.items():
        assert scale.threshold == pytest.approx(np.abs(rows[name]).max(), rel=1e-6)
        assert scale.smoothing is None


def test_each_tensor_is_tried_once_in_the_graphs_that_are_smoothed() -> None:
    statistics, done = seen({"x": noise(outliers=60), "y": noise()}), []
    settings = CalibrationSettings(method="max", smooth=("plm",))
    choices = tried_choices(statistics, weights(), settings, "int8", lambda: done.append(1))
    assert len(done) == 2
    assert choices["x"].smoothing is not None  # one column of many has all of the range
    assert choices["x"].gain_db > 3
    elsewhere = seen({"x": noise(outliers=60), "y": noise()}, "swin")
    assert tried_choices(elsewhere, weights(), settings, "int8") == {}


def test_smoothed_tensors_have_the_threshold_of_what_was_seen_smoothed() -> None:
    rows = {"x": noise(outliers=60), "y": noise()}
    statistics, known = seen(rows), weights()
    settings = CalibrationSettings(method="max", smooth=("plm",))
    choices = tried_choices(statistics, known, settings, "int8")
    factors = choices["x"].smoothing
    assert factors is not None
    smoothed = GraphStatistics("plm", SITES, smoothing={"x": factors})
    smoothed.begin({})
    for name, values in rows.items():
        smoothed.observe(name, torch.from_numpy(values))
    found = calibration_from_statistics(statistics, smoothed, choices, known, settings, "int8")
    assert found.inputs["x"].threshold == pytest.approx(np.abs(rows["x"] / factors).max(), rel=1e-6)
    assert np.array_equal(found.inputs["x"].smoothing, factors)  # type: ignore[arg-type]
    assert found.inputs["y"].threshold == pytest.approx(np.abs(rows["y"]).max(), rel=1e-6)


def test_the_best_method_is_one_of_all() -> None:
    statistics = seen({"x": noise(outliers=20), "y": noise()})
    settings = CalibrationSettings(method="best", smooth=())
    choices = tried_choices(statistics, weights(), settings, "int8")
    for choice in choices.values():
        assert {tried.method for tried in choice.tried} == {"max", "percentile", "entropy", "mse"}
        assert choice.chosen.sqnr_db == max(tried.sqnr_db for tried in choice.tried)


@pytest.mark.parametrize(("largest", "wide"), [(250.0, set()), (265.0, {"dense"})])
def test_what_float16_can_not_hold(largest: float, wide: set[str]) -> None:
    """Between both scales stands the product in units of the weight's: 65504 / 2 of 1/127 are 257.9."""
    statistics = seen({"x": noise(), "y": noise()}, largest_output=largest)
    found = chosen(statistics, MAX, wq=2, wk=2)
    assert found.wide == wide
    assert chosen(statistics, MAX, operands="fp8", wq=2, wk=2).wide == set()


def test_smoothing_changes_what_float16_can_hold() -> None:
    """Rows of the weight are multiplied, and so is its scale: a product in units of that is smaller."""
    rows = {"x": noise(outliers=60), "y": noise()}
    statistics, known = seen(rows, largest_output=265.0), weights(wd=2)
    assert chosen(statistics, MAX, wd=2).wide == {"query", "key"}
    smoothed = GraphStatistics("plm", SITES, smoothing={"x": np.full(32, 4, np.float32)})
    smoothed.begin({})
    for name, values in rows.items():
        smoothed.observe(name, torch.from_numpy(values))
    assert calibration_from_statistics(statistics, smoothed, {}, known, MAX, "int8").wide == set()


@pytest.mark.parametrize("rows", [np.zeros((4, 32), np.float32), None])
def test_nothing_seen(rows: np.ndarray | None) -> None:
    statistics = seen({"y": noise()} if rows is None else {"x": rows, "y": noise()})
    for settings in (MAX, CalibrationSettings()):
        with pytest.raises(DataError) as caught:
            chosen(statistics, settings)
        assert caught.value.tensor == "x"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_not_finite(wrong: float) -> None:
    statistics = GraphStatistics("plm", SITES)
    statistics.begin({})
    rows = noise()
    rows[7, 3] = wrong
    with pytest.raises(PrecisionError) as caught:
        statistics.observe("x", torch.from_numpy(rows))
    assert caught.value.tensor == "x"
