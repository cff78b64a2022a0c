"""Exact bounds of percentiles: against SciPy's binomial, MLPerf's published numbers, and by simulation."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, expon

from fmmt_deploy.benchmark.order_ranks import allowed_above, needed_samples
from fmmt_deploy.benchmark.percentiles import percentile_of, percentiles_of
from fmmt_deploy.errors import FmmtError


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("percent", [1, 10, 50, 90, 95, 99])
def test_allowed_above_is_scipys_binomial(percent: int, confidence: float) -> None:
    """The largest t with P(Bin(n, 1 − p) ≤ t) ≤ 1 − confidence, by SciPy's distribution function."""
    for samples in (1, 2, 5, 7, 29, 44, 63, 64, 100, 299, 459, 461, 1000, 5000):
        cumulated = binom.cdf(np.arange(samples + 1), samples, 1 - percent / 100)
        few = np.flatnonzero(cumulated <= 1 - confidence)
        expected = int(few[-1]) if few.size else None
        assert allowed_above(samples, percent, confidence) == expected, samples


def test_the_fewest_samples_are_mlperfs() -> None:
    """LoadGen's early stopping at 99 %: h_min(t = 0, p99) = 459; single stream needs 64 and 662, one sample above."""
    assert needed_samples(99) == 459
    assert needed_samples(90) == 44
    for percent, mlperf in ((90, 64), (99, 662)):
        assert allowed_above(mlperf, percent) == 1
        assert allowed_above(mlperf - 1, percent) == 0
        assert allowed_above(needed_samples(percent), percent) == 0
        assert allowed_above(needed_samples(percent) - 1, percent) is None


@pytest.mark.parametrize(("samples", "percent"), [(44, 90), (100, 90), (459, 99), (1000, 99), (60, 50)])
def test_bounds_hold_as_often_as_they_say(samples: int, percent: int) -> None:
    """Exponential latencies, whose percentile SciPy knows: each bound misses it in 1 % of 4,000 cases, or fewer."""
    times = expon.rvs(size=(4000, samples), random_state=np.random.default_rng(samples))
    truth = expon.ppf(percent / 100)
    found = [percentile_of(row, percent) for row in times]
    too_low = np.mean([p.high_ms is None or p.high_ms < truth for p in found])
    too_high = np.mean([p.low_ms is not None and p.low_ms > truth for p in found])
    assert too_low < 0.01 + 3 * np.sqrt(0.01 / 4000)
    assert too_high < 0.01 + 3 * np.sqrt(0.01 / 4000)
    assert too_low > 0.001  # neither is it so wide that it would hold whatever happens


def test_samples_that_belong_together_count_once() -> None:
    """Every query measured twice: taken for independent the bound would be too low; counted once it holds."""
    random = np.random.default_rng(5)
    misses = {100: 0, 200: 0}
    for _ in range(2000):
        twice = np.repeat(random.exponential(1, 100), 2)
        for independent in misses:
            bound = percentile_of(twice, 90, independent=independent).high_ms
            misses[independent] += bound is not None and bound < expon.ppf(0.9)
    assert misses[100] / 2000 < 0.01 + 3 * np.sqrt(0.01 / 2000)
    assert misses[200] / 2000 > 0.025
    once, both = percentile_of(twice[::2], 90), percentile_of(twice, 90, independent=100)
    assert (once.ms, once.low_ms, once.high_ms) == (both.ms, both.low_ms, both.high_ms)


@given(times=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=600), percent=st.sampled_from([50, 90, 99]))
@settings(max_examples=80, deadline=None)
def test_bounds_enclose_numpys_percentile(times: list[float], percent: int) -> None:
    found = percentile_of(times, percent)
    assert found.ms == np.percentile(times, percent, method="inverted_cdf")
    assert found.low_ms is None or found.low_ms <= found.ms
    assert (found.high_ms is None) == (len(times) < found.needed)
    assert found.high_ms is None or (found.high_ms in times and found.high_ms >= found.ms)


def test_too_few_samples_are_said() -> None:
    p50, p90, p99 = percentiles_of([float(i) for i in range(1, 101)])
    assert p50.reasons == p90.reasons == ()
    assert p99.high_ms is None
    assert p99.reasons == ("p99 needs at least 459 independent samples for a bound at 99%, there are 100",)
    (together,) = percentiles_of(np.ones(500), [99], independent=50)
    assert together.reasons[0].endswith("there are 500 that count as 50")
    document = json.loads(json.dumps(p99.to_json(), allow_nan=False))
    assert (document["ms"], document["valid"], document["needed"]) == (99, False, 459)
    assert json.loads(json.dumps(p90.to_json()))["valid"] is True


@pytest.mark.parametrize(
    ("times", "percent", "independent"),
    [([], 90, None), ([1.0, -1.0], 90, None), ([1.0], 0, None), ([1.0], 100, None), ([1.0], 90, 2), ([1.0], 90, 0)],
)
def test_what_makes_no_sense_is_refused(times: list[float], percent: int, independent: int | None) -> None:
    with pytest.raises(FmmtError):
        percentile_of(times, percent, independent=independent)
