"""Statistics of times: percentiles against NumPy's and by hand, and ratios on made-up drifts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from fmmt_deploy.benchmark.statistics import (
    Ratio,
    format_ms,
    format_ratio,
    paired_ratio,
    summarise,
)
from fmmt_deploy.errors import FmmtError

TIMES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=250)


@given(times=TIMES)
@settings(max_examples=60, deadline=None)
def test_percentiles_are_numpys_inverted_cdf(times: list[float]) -> None:
    summary = summarise(times)
    found = [summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms]
    assert found == np.percentile(times, [50, 90, 95, 99], method="inverted_cdf").tolist()
    low, middle, high = np.percentile(times, [25, 50, 75], method="inverted_cdf")
    assert summary.spread == pytest.approx((high - low) / middle)
    assert summary.mean_ms == pytest.approx(np.mean(times))
    assert (summary.lowest_ms, summary.highest_ms, summary.samples) == (min(times), max(times), len(times))


def test_percentiles_by_hand() -> None:
    summary = summarise([float(i) for i in range(200, 0, -1)])
    assert (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms) == (100, 180, 190, 198)
    assert json.loads(json.dumps(summary.to_json()))["p99_ms"] == 198


@pytest.mark.parametrize("times", [[], [1.0, 0.0], [1.0, -2.0], [float("nan")], [float("inf")]])
def test_what_is_no_time_is_refused(times: list[float]) -> None:
    with pytest.raises(FmmtError, match="positive numbers"):
        summarise(times)
    with pytest.raises(FmmtError, match="positive numbers"):
        paired_ratio(times, times)


def test_the_ratio_holds_on_a_machine_that_drifts() -> None:
    """A candidate 5 times as fast on a machine that slows by 2.5 within the run and has a hiccup.

    A ratio scatters by 7 %, so the median of 40 by 1.25 · 7 % / √40 = 1.4 %; three of those are allowed.
    """
    random = np.random.default_rng(0)
    drift = np.linspace(1, 2.5, 40)
    baseline = 100 * drift * random.lognormal(0, 0.05, 40)
    candidate = 20 * drift * random.lognormal(0, 0.05, 40)
    baseline[7] *= 30
    ratio = paired_ratio(baseline, candidate)
    assert ratio.median == np.median(baseline / candidate)
    assert ratio.median == pytest.approx(5, rel=0.042)
    assert ratio.low < 5 < ratio.high
    assert ratio.high - ratio.low < 0.5
    assert ratio.pairs == 40
    assert json.loads(json.dumps(ratio.to_json()))["confidence"] == 0.95


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """95 % of 200 intervals; 180 to 200 leaves room for the bootstrap's small-sample error."""
    random = np.random.default_rng(1)
    covered = 0
    for i in range(200):
        ratio = paired_ratio(random.lognormal(0, 0.2, 25), random.lognormal(0, 0.2, 25), seed=i, resamples=300)
        covered += ratio.low <= 1 <= ratio.high
    assert 180 <= covered < 200


@pytest.mark.parametrize("pairs", [6, 7, 11, 25])
def test_the_interval_of_few_pairs_is_not_too_narrow(pairs: int) -> None:
    """At least 95 % of 1,000 intervals, less 3 standard errors; of 7 pairs the bootstrap alone covers 87 %."""
    random = np.random.default_rng(pairs)
    covered = 0
    for i in range(1000):
        ratio = paired_ratio(random.lognormal(0, 0.2, pairs), random.lognormal(0, 0.2, pairs), seed=i, resamples=200)
        covered += ratio.low <= 1 <= ratio.high
    assert covered / 1000 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("pairs", "confidence"), [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.95)])
def test_so_few_pairs_say_how_little_they_know(pairs: int, confidence: float) -> None:
    """The true median is outside all n ratios with 2 · ½ⁿ; six are the fewest for 95 %."""
    ratio = paired_ratio(np.arange(1.0, pairs + 1), np.ones(pairs))
    assert (ratio.low, ratio.high, ratio.confidence) == (1.0, pairs, confidence)


def test_the_interval_is_scipys() -> None:
    """Percentile bootstrap of the same median, by SciPy."""
    baseline, candidate = np.random.default_rng(3).lognormal(0, 0.3, (2, 101))
    ours = paired_ratio(baseline, candidate, resamples=6000)
    theirs = bootstrap(
        (baseline / candidate,), np.median, n_resamples=6000, method="percentile", random_state=np.random.default_rng(9)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.05 * width)


def test_the_same_seed_gives_the_same_interval() -> None:
    baseline, candidate = np.random.default_rng(0).lognormal(0, 0.3, (2, 20))
    assert paired_ratio(baseline, candidate, seed=1) == paired_ratio(baseline, candidate, seed=1)
    few = [paired_ratio(baseline, candidate, seed=seed, resamples=20) for seed in (1, 2)]
    assert few[0] != few[1]
    narrow, wide = (paired_ratio(baseline, candidate, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_ten_per_cent_slowdown_is_seen() -> None:
    """The gate's fault injection: 10 % slower with 5 % of noise, 40 pairs."""
    random = np.random.default_rng(2)
    baseline, candidate = 100 * random.lognormal(0, 0.05, 40), 110 * random.lognormal(0, 0.05, 40)
    assert paired_ratio(baseline, candidate).high < 1


def test_unpaired_samples_are_refused() -> None:
    with pytest.raises(FmmtError, match="found 2 and 1"):
        paired_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(0.0852, "85.2 µs"), (1.234, "1.23 ms"), (9.996, "10.0 ms"), (99.96, "100 ms"), (456, "456 ms"), (4560, "4.56 s")],
)
def test_times_are_shown_with_three_digits(time_ms: float, text: str) -> None:
    assert format_ms(time_ms) == text


def test_ratios_are_shown_with_three_digits() -> None:
    assert format_ratio(Ratio(5.123, 4.981, 5.296, 20, 0.95)) == "5.12× (4.98–5.30)"
