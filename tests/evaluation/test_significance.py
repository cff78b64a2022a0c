"""McNemar against SciPy's binomial test, the bootstrap against a plain one with scikit-learn's F1."""

from time import perf_counter, process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from fmmt_deploy.evaluation.significance import Interval, clustered_bootstrap_interval, mcnemar
from fmmt_deploy.types import IntArray


def by_utterances(labels: IntArray, reference: IntArray, decisions: IntArray, **options: Any) -> Interval:
    """As if utterances were independent."""
    return clustered_bootstrap_interval(labels, reference, decisions, np.arange(len(labels)), **options)


@given(only_reference=st.integers(0, 60), only_candidate=st.integers(0, 60), both=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_binomial_test(only_reference: int, only_candidate: int, both: int) -> None:
    reference = np.array([True] * only_reference + [False] * only_candidate + [True, False] * both, bool)
    candidate = np.array([False] * only_reference + [True] * only_candidate + [True, False] * both, bool)
    test = mcnemar(reference, candidate)
    assert (test.only_reference_right, test.only_candidate_right) == (only_reference, only_candidate)
    n = only_reference + only_candidate
    expected = binomtest(only_reference, n, 0.5).pvalue if n else 1.0
    assert test.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_a_whole_test_set() -> None:
    """Numbers far beyond float64's factorials."""
    reference = np.arange(2610) < 2000
    assert mcnemar(reference, ~reference).p_value == pytest.approx(binomtest(2000, 2610).pvalue, rel=1e-9)


def test_mcnemar_of_many_changes_takes_no_time() -> None:
    """It took 6 s while every binomial coefficient was computed anew."""
    start, reference = process_time(), np.arange(10_000) % 2 == 0
    assert mcnemar(reference, ~reference).p_value == 1.0
    assert process_time() - start < 1


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    random = np.random.default_rng(4)
    n = 200
    labels = random.choice(7, n, p=[0.4, 0.1, 0.05, 0.1, 0.15, 0.05, 0.15])
    reference = np.where(random.random(n) < 0.7, labels, random.integers(0, 7, n))
    decisions = np.where(random.random(n) < 0.8, reference, random.integers(0, 7, n))
    interval = by_utterances(labels, reference, decisions, resamples=4000)
    plain = []
    for _ in range(800):
        chosen = random.integers(0, n, n)
        scores = [
            f1_score(labels[chosen], run[chosen], average="weighted", zero_division=0) for run in (decisions, reference)
        ]
        plain.append(scores[0] - scores[1])
    low, high = np.quantile(plain, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.1 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.1 * (high - low))
    assert interval.confidence == 0.95


def test_the_same_seed_gives_the_same_interval() -> None:
    random = np.random.default_rng(4)
    labels, reference, decisions = random.integers(0, 7, (3, 50))
    first = by_utterances(labels, reference, decisions, seed=1, resamples=200)
    assert by_utterances(labels, reference, decisions, seed=1, resamples=200) == first
    assert by_utterances(labels, reference, decisions, seed=2, resamples=200) != first


def test_equal_runs_have_an_interval_of_zero_width() -> None:
    labels, decisions = np.random.default_rng(0).integers(0, 7, (2, 50))
    interval = by_utterances(labels, decisions, decisions)
    assert (interval.low, interval.high) == (0, 0)


def test_a_lower_confidence_is_narrower() -> None:
    labels, reference, decisions = np.random.default_rng(4).integers(0, 7, (3, 50))
    wide = by_utterances(labels, reference, decisions, confidence=0.95)
    narrow = by_utterances(labels, reference, decisions, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def clustered_runs(
    random: np.random.Generator, dialogues: int, spoilt: float
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Labels, two runs and dialogues of unequal length, in some of which the second run is wrong again and again."""
    clusters = np.repeat(np.arange(dialogues), random.integers(1, 20, dialogues))
    labels = random.choice(7, len(clusters), p=[0.4, 0.1, 0.05, 0.1, 0.15, 0.05, 0.15])
    reference = np.where(random.random(len(labels)) < 0.7, labels, random.integers(0, 7, len(labels)))
    broken = (random.random(dialogues) < spoilt)[clusters] & (random.random(len(labels)) < 0.8)
    return labels, reference, np.where(broken, random.integers(0, 7, len(labels)), reference), clusters


def test_the_clustered_interval_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(5)
    labels, reference, decisions, clusters = clustered_runs(random, 30, 0.3)
    interval = clustered_bootstrap_interval(labels, reference, decisions, 100 - 3 * clusters, resamples=8000)
    plain = []
    for _ in range(1000):
        chosen = np.concatenate([np.flatnonzero(clusters == c) for c in random.integers(0, 30, 30)])
        scores = [
            f1_score(labels[chosen], run[chosen], average="weighted", zero_division=0) for run in (decisions, reference)
        ]
        plain.append(scores[0] - scores[1])
    low, high = np.quantile(plain, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.1 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.1 * (high - low))
    assert interval.confidence == 0.95


def test_only_the_clustered_interval_covers_what_comes_by_dialogue() -> None:
    """Where errors come by the dialogue, the interval over utterances holds the true difference far too seldom."""
    random = np.random.default_rng(6)
    labels, reference, decisions, _ = clustered_runs(random, 30_000, 0.2)
    truth = f1_score(labels, decisions, average="weighted") - f1_score(labels, reference, average="weighted")
    covered = np.zeros(2)
    for _ in range(200):
        labels, reference, decisions, clusters = clustered_runs(random, 60, 0.2)
        by_dialogue = clustered_bootstrap_interval(labels, reference, decisions, clusters, resamples=300)
        by_utterance = by_utterances(labels, reference, decisions, resamples=300)
        covered += [interval.low <= truth <= interval.high for interval in (by_dialogue, by_utterance)]
    shares = covered / 200
    assert 0.87 <= shares[0] <= 0.99  # 0.95, less what 60 dialogues and 300 resamples cost
    assert shares[1] < 0.8


def test_clustered_intervals_of_equal_runs_and_of_one_dialogue_have_no_width() -> None:
    labels, reference, decisions = np.random.default_rng(0).integers(0, 7, (3, 50))
    equal = clustered_bootstrap_interval(labels, decisions, decisions, np.arange(50) // 5)
    assert (equal.low, equal.high) == (0, 0)
    one = clustered_bootstrap_interval(labels, reference, decisions, np.full(50, 3), resamples=20)
    scores = [f1_score(labels, run, average="weighted", zero_division=0) for run in (decisions, reference)]
    assert one.low == one.high == pytest.approx(scores[0] - scores[1])


def test_a_whole_test_set_takes_no_time() -> None:
    labels, reference, decisions, clusters = clustered_runs(np.random.default_rng(0), 280, 0.2)
    start = perf_counter()
    first = clustered_bootstrap_interval(labels, reference, decisions, clusters)
    assert perf_counter() - start < 1
    assert clustered_bootstrap_interval(labels, reference, decisions, clusters) == first
    assert clustered_bootstrap_interval(labels, reference, decisions, clusters, seed=1) != first
