"""How far thresholds would be others: against doing it for real, with other data."""

import numpy as np
import pytest

from fmmt_deploy.calibration.spread import STABLE_WITHIN, spread_of
from fmmt_deploy.calibration.statistics import BLOCKS, TensorStatistics
from fmmt_deploy.calibration.thresholds import METHODS, Method, threshold_from_histogram
from fmmt_deploy.errors import DataError

COLUMNS = 16


def dialogues(seed: int, count: int = 64) -> list[np.ndarray]:
    """Rows of dialogues, each with a loudness of its own."""
    rng = np.random.default_rng(seed)
    loud = np.exp(rng.normal(0, 0.3, count))
    return [(rng.laplace(size=(40, COLUMNS)) * by).astype(np.float32) for by in loud]


def statistics_of(cases: list[np.ndarray]) -> TensorStatistics:
    found = TensorStatistics("x", COLUMNS)
    for number, rows in enumerate(cases):
        found.update(rows, number)
    return found


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_seeds_is_what_other_seeds_would_change(method: Method) -> None:
    """The jackknife's mean over data sets, against the spread of thresholds that really have other dialogues."""
    thresholds, told = [], []
    for seed in range(24):
        found = spread_of(statistics_of(dialogues(seed)), method, "int8", 99)
        thresholds.append(found.threshold)
        told.append(found.seeds)
    real = np.std(thresholds, ddof=1) / np.mean(thresholds)
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(real, rel=0.4)


@pytest.mark.parametrize("method", METHODS)
def test_halves_are_those_of_the_cases(method: Method) -> None:
    """Each split is calibrated on its own here; even and odd numbers are one of the seven."""
    cases = dialogues(3)
    found = spread_of(statistics_of(cases), method, "int8")
    even, odd = (
        threshold_from_histogram(statistics_of(half).histogram, method, "int8") for half in (cases[::2], cases[1::2])
    )
    assert found.threshold == threshold_from_histogram(statistics_of(cases).histogram, method, "int8")
    assert found.halves is not None
    assert found.halves >= abs(even - odd) / found.threshold


def test_two_cases_by_hand() -> None:
    found = spread_of(statistics_of([np.full((1, COLUMNS), size, np.float32) for size in (3, 4)]), "max", "int8")
    assert (found.tensor, found.threshold, found.halves) == ("x", 4, 0.25)
    assert found.seeds == pytest.approx(np.sqrt((0.25**2 + 0) / 2))
    cases = [np.full((rows, COLUMNS), size, np.float32) for rows, size in ((3, 1), (2, 3))]
    found = spread_of(statistics_of(cases), "percentile", "int8", 50)  # 1 of the whole and one half, 3 of the other
    assert (found.threshold, found.halves, found.seeds) == pytest.approx((1, 2, np.sqrt(2)), rel=0.01)


def test_data_that_are_all_alike_have_no_spread() -> None:
    found = spread_of(statistics_of([dialogues(0, 1)[0]] * 16), "mse", "int8")
    assert (found.halves, found.seeds, found.verdict) == (0, 0, "ok")


def test_one_loud_dialogue_makes_it_unstable() -> None:
    cases = dialogues(0)
    cases[5] *= 20
    found = spread_of(statistics_of(cases), "max", "int8")
    assert found.verdict == "UNSTABLE"
    # every half without that dialogue is far off: half of the fourteen
    assert found.seeds == pytest.approx(np.sqrt(0.5), rel=0.2)
    assert found.seeds > STABLE_WITHIN


def test_a_second_choice_of_calm_data_is_stable() -> None:
    calm = [np.random.default_rng(n).normal(size=(60, COLUMNS)).astype(np.float32) for n in range(24)]
    assert spread_of(statistics_of(calm), "mse", "int8").verdict == "ok"


def test_too_few_cases_are_told() -> None:
    one = spread_of(statistics_of(dialogues(0, 1)), "mse", "int8")
    assert (one.halves, one.seeds, one.verdict) == (None, None, "too few cases")
    assert spread_of(statistics_of(dialogues(0, 2)), "mse", "int8").halves is not None


def test_nothing_seen_is_refused() -> None:
    with pytest.raises(DataError, match="nothing at all"):
        spread_of(TensorStatistics("x", COLUMNS), "max", "int8")


def test_splits_are_balanced() -> None:
    from fmmt_deploy.calibration.spread import _balanced_splits

    signs = np.array(_balanced_splits()) * 2 - 1
    np.testing.assert_array_equal(signs @ signs.T, BLOCKS * np.eye(BLOCKS - 1))
    assert (signs.sum(axis=1) == 0).all()
