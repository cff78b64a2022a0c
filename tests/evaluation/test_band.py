"""The reference's band over seeds: intervals by SciPy, coverage by simulation, words in every branch."""

import json

import numpy as np
import pytest
from scipy.stats import t

from fmmt_deploy.errors import DataError
from fmmt_deploy.evaluation.band import reference_band

F1 = [0.6655, 0.6690, 0.6673, 0.6681, 0.6660]


def test_the_band_is_the_prediction_interval() -> None:
    band = reference_band(F1, F1)
    spread = np.std(F1, ddof=1) * np.sqrt(1 + 1 / 5)
    assert (band.low, band.high) == pytest.approx(t.interval(0.95, 4, loc=np.mean(F1), scale=spread))
    assert (band.mean, band.lowest, band.highest, band.seeds) == (pytest.approx(np.mean(F1)), 0.6655, 0.6690, 5)
    assert band.passed


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_a_new_seed_lies_in_it_as_often_as_it_says(seeds: int) -> None:
    draws = np.random.default_rng(0).normal(0.66, 0.002, (3000, seeds + 1))
    bands = [reference_band(row[:-1].tolist(), row[:-1].tolist()) for row in draws]
    hits = np.mean([band.low <= new <= band.high for band, new in zip(bands, draws[:, -1], strict=True)])
    assert hits == pytest.approx(0.95, abs=0.012)  # three standard errors of 3,000


def test_inside_and_outside() -> None:
    band = reference_band(F1, F1, 0.6673)
    assert reference_band(F1, [band.high - 1e-6] * 5).passed
    assert not reference_band(F1, [band.high + 1e-6] * 5).passed
    assert not reference_band(F1, [band.low - 1e-6] * 5).passed
    assert band.published_inside
    assert reference_band(F1, F1, band.high + 1e-6).published_inside is False
    assert reference_band(F1, F1).published_inside is None


def test_a_reference_that_no_seed_changes_has_a_band_without_width() -> None:
    band = reference_band([0.7] * 3, [0.7] * 3)
    assert (band.low, band.high, band.passed) == (pytest.approx(0.7), pytest.approx(0.7), True)
    assert not reference_band([0.7] * 3, [0.7001] * 3).passed
    assert "No seed changed it, so that the band has no width." in band.words
    assert "prediction" not in band.words


def test_no_band_leaves_what_f1_can_be() -> None:
    band = reference_band([0.05, 0.95], [0.5, 0.5])
    assert (band.low, band.high) == (0.0, 1.0)


def test_words() -> None:
    words = reference_band(F1, F1, 0.6673).words
    assert words == (  # by hand: deviation 0.1448, t of 4 degrees 2.776, √1.2
        "Over 5 seeds of the noise the reference's weighted F1 is 66.72 on average (standard deviation 0.14, 66.55 to "
        "66.90). Another seed would give one between 66.28 and 67.16 (95 % prediction interval). The engine's mean "
        "over the same seeds, 66.72, lies inside that band: PASS. That is a coarse check: the verdict rests on the "
        "difference under the same noise. 66.73, as published, lies inside it, too: one run of this reference can give "
        "that figure."
    )
    outside = reference_band(F1, [0.6] * 5, 0.68).words
    assert "The engine's mean over the same seeds, 60.00, lies outside that band." in outside
    assert "68.00, as published, lies outside it: by another seed alone, this reference on these data would" in outside
    assert "published" not in reference_band(F1, F1).words


def test_json_is_plain() -> None:
    document = json.loads(json.dumps(reference_band(F1, F1, 0.6673).to_json(), allow_nan=False))
    assert document["values"] == F1
    assert document["words"].startswith("Over 5 seeds")


@pytest.mark.parametrize(("seeds", "engine"), [(1, 1), (0, 0), (3, 2)])
def test_too_few_seeds_are_refused(seeds: int, engine: int) -> None:
    with pytest.raises(DataError, match=f"found {seeds} and {engine}"):
        reference_band(F1[:seeds], F1[:engine])
