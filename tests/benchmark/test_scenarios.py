"""Single stream and offline: figures by hand."""

import json
from collections import Counter

import numpy as np
import pytest

from fmmt_deploy.benchmark.scenarios import drawn, offline_from_seconds, single_stream_from_samples
from fmmt_deploy.errors import FmmtError


def test_single_stream_is_told_by_its_p90() -> None:
    """1 to 100 ms: nearest-rank p90 is 90; 44 samples are the fewest for its bound, see test_percentiles."""
    times = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    found = single_stream_from_samples(times)
    assert [p.percent for p in found.percentiles] == [50, 90, 99]
    assert [p.ms for p in found.percentiles] == [50, 90, 99]
    assert found.claimed == 90
    assert found.reasons == ()
    assert found.samples_ms == tuple(times)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["valid"] is True
    assert document["per_second"] == pytest.approx(1000 / 50.5)
    assert [p["valid"] for p in document["percentiles"]] == [True, True, False]
    assert "samples_ms" not in document


def test_a_percentile_of_too_few_samples_is_not_claimed() -> None:
    assert single_stream_from_samples([1.0] * 44).reasons == ()
    few = single_stream_from_samples([1.0] * 43)
    assert "p90 needs at least 44" in few.reasons[0]
    assert few.to_json()["valid"] is False
    assert "p99 needs" in single_stream_from_samples([1.0] * 100, claimed=99).reasons[0]
    assert "count as 20" in single_stream_from_samples([1.0] * 100, independent=20).reasons[0]


def test_no_query_is_no_scenario() -> None:
    with pytest.raises(FmmtError, match="at least one"):
        single_stream_from_samples([])


def test_draws_are_even_with_replacement_and_by_seed() -> None:
    """Binomial counts: 10,000 draws of 4 are 2,500 each, give or take 4 × √(10,000 × ¼ × ¾) = 173."""
    alone = [(name,) for name in "abcd"]
    queries = drawn(alone, 10_000, seed=1)
    assert len(queries) == 10_000
    assert all(abs(number - 2500) < 173 for number in Counter(queries).values())
    assert queries == drawn(alone, 10_000, seed=1) != drawn(alone, 10_000, seed=2)


def test_dialogues_are_drawn_whole_and_in_order() -> None:
    dialogues = [("a0", "a1", "a2"), ("b0", "b1")]
    queries = drawn(dialogues, 50, seed=3)
    assert 50 <= len(queries) <= 52
    text = "".join(queries).replace("a0a1a2", ".").replace("b0b1", ".")
    assert set(text) == {"."}


@pytest.mark.parametrize("units", [[], [()]])
def test_nothing_can_be_drawn_from_nothing(units: list[tuple[int, ...]]) -> None:
    with pytest.raises(FmmtError, match="no query"):
        drawn(units, 1, seed=0)


def test_offline_is_throughput_with_its_spread() -> None:
    """20 queries in 4, 5 and 10 s: 5, 4 and 2 a second; of three the median's interval reaches from end to end."""
    found = offline_from_seconds(20, [4.0, 5.0, 10.0])
    assert found.rates == (5, 4, 2)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["per_second"] == {"median": 4, "lowest": 2, "highest": 5, "interval": [2, 5]}
    assert document["valid"] is True


def test_offline_of_too_few_repetitions_is_said() -> None:
    few = offline_from_seconds(20, [4.0, 5.0])
    assert few.reasons == ("a throughput needs at least 3 repetitions for a spread, there are 2",)
    assert few.to_json()["valid"] is False


@pytest.mark.parametrize(("queries", "seconds"), [(0, [1.0]), (1, []), (1, [0.0])])
def test_no_throughput_of_nothing(queries: int, seconds: list[float]) -> None:
    with pytest.raises(FmmtError, match="throughput"):
        offline_from_seconds(queries, seconds)
