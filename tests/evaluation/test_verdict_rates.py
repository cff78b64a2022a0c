"""How often interval and verdict are right, on simulated test sets of MELD's size with engines of known loss.

Here 300 sets each with 500 resamples; `scripts/verdict_simulation.py` has the 1,000 with 10,000.
"""

from functools import cache

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.evaluation.verdict import Equivalence
from tests.evaluation.planted import DIALOGUES, SUPPORT, UTTERANCES, Planted, expected, expected_f1

SETS = 300


@cache
def judged(planted: Planted) -> tuple[Equivalence, ...]:
    return tuple(planted.judged(SETS, seed=11, resamples=500))


def rate(planted: Planted, verdict: str) -> float:
    return float(np.mean([run.verdict == verdict for run in judged(planted)]))


def covered(planted: Planted) -> float:
    """How often the interval holds the engine's true loss."""
    return float(np.mean([run.interval.low <= -planted.loss <= run.interval.high for run in judged(planted)]))


def test_the_simulation_is_what_it_says() -> None:
    """Scikit-learn on a large sample: MELD's mix, the reference's F1, the planted loss and flips."""
    planted = Planted(0.03, 0.01)
    labels, reference, decisions = planted.sets(150, 0)
    assert np.bincount(labels.ravel()) / 150 == pytest.approx(SUPPORT, rel=0.1)
    f1 = [f1_score(labels.ravel(), run.ravel(), average="weighted") for run in (reference, decisions)]
    assert f1[0] == pytest.approx(expected_f1(expected(0, 0)[0]), abs=0.004)
    assert 0.655 <= f1[0] <= 0.665
    assert f1[0] - f1[1] == pytest.approx(0.03, abs=0.002)
    flips = Planted(0.0, 0.01).sets(150, 0)
    assert np.mean(flips[1] != flips[2]) == pytest.approx(0.01, abs=0.001)
    assert (DIALOGUES, UTTERANCES) == (280, 2610)


@pytest.mark.parametrize("loss", [0.0, 0.003, 0.01, 0.03])
def test_the_interval_covers_the_true_loss(loss: float) -> None:
    """90 % by name; three standard errors of 300 sets are 5 points. More is no error: few changes make it careful."""
    assert covered(Planted(loss, 0.01)) >= 0.85


def test_ignoring_dialogues_covers_too_seldom_where_changes_come_in_dialogues() -> None:
    planted = Planted(0.01, 0.01, alike=0.8)
    runs = planted.judged(100, seed=11, resamples=300, by_dialogue=False)
    share = np.mean([run.interval.low <= -planted.loss <= run.interval.high for run in runs])
    assert share < 0.8
    assert covered(planted) >= 0.85


def test_an_engine_without_a_loss_is_equivalent() -> None:
    """Nine changed decisions, as 16-bit floats have. With 26 the set is too small to be sure as often."""
    assert rate(Planted(0.0, 0.003), "EQUIVALENT") >= 0.85
    assert rate(Planted(0.0, 0.01), "DIFFERENT") <= 0.01
    assert rate(Planted(0.0, 0.01), "EQUIVALENT") >= 0.25


def test_a_loss_of_three_points_is_always_found() -> None:
    assert rate(Planted(0.03, 0.01), "DIFFERENT") >= 0.99


@pytest.mark.parametrize("flips", [0.0, 0.002, 0.01])
def test_an_engine_at_the_margin_passes_no_more_often_than_the_level(flips: float) -> None:
    """5 %; three standard errors of 300 sets are 3.8 points."""
    assert rate(Planted(0.005, flips), "EQUIVALENT") <= 0.088
    assert rate(Planted(0.005, flips), "DIFFERENT") <= 0.088


def test_a_small_loss_is_never_called_different_and_a_large_one_never_equivalent() -> None:
    assert rate(Planted(0.003, 0.01), "DIFFERENT") <= 0.05
    assert rate(Planted(0.01, 0.01), "EQUIVALENT") <= 0.01
