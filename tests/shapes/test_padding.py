"""The padding that choices waste, against the figures published for MELD, and against every possible choice."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.benchmark.workload import MELD_TOKENS
from fmmt_deploy.shapes.padding import batched, best_buckets, bucketed, stepped

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def meld() -> list[int]:
    """280 lengths, spread evenly within the bins of MELD's histogram, in an order drawn once."""
    lower = [2, *list(MELD_TOKENS)[:-1]]
    bins = zip(lower, MELD_TOKENS.items(), strict=True)
    lengths = [round(low + (i + 0.5) / count * (high - low)) for low, (high, count) in bins for i in range(count)]
    assert len(lengths) == 280
    assert np.mean(lengths) == pytest.approx(134, abs=3)
    return np.random.default_rng(0).permutation(lengths).tolist()


@pytest.mark.parametrize(
    ("choice", "published"),
    [
        ("step 32", 0.90),
        ("sorted 4", 0.98),
        ("sorted 8", 0.945),
        ("sorted 16", 0.91),
        ("sorted 32", 0.81),
        ("unsorted 8", 0.51),
    ],
)
def test_the_figures_measured_on_meld(meld: list[int], choice: str, published: float) -> None:
    """Real ÷ processed tokens of MELD's test set, counted by others on the data themselves."""
    how, size = choice.split()
    found = stepped(meld, int(size)) if how == "step" else batched(meld, int(size), in_order=how == "sorted")
    assert found.real == sum(meld)
    assert found.ratio == pytest.approx(published, abs=0.02)


@given(LENGTHS, st.integers(1, 5))
def test_best_buckets_are_the_best_there_are(lengths: list[int], count: int) -> None:
    edges = best_buckets(lengths, count)
    distinct = sorted(set(lengths))
    assert edges[-1] == distinct[-1]
    assert set(edges) <= set(distinct)
    assert len(edges) == min(count, len(distinct))
    others = combinations(distinct[:-1], len(edges) - 1)
    least = min(sum(min(e for e in (*some, distinct[-1]) if e >= n) for n in lengths) for some in others)
    assert bucketed(lengths, edges).processed == least


@given(LENGTHS, st.integers(1, 4))
def test_weights_are_repetitions(lengths: list[int], count: int) -> None:
    weights = [1 + i % 3 for i in range(len(lengths))]
    repeated = [n for n, w in zip(lengths, weights, strict=True) for _ in range(w)]
    edges = best_buckets(lengths, count, weights)
    assert bucketed(lengths, edges, weights).processed == bucketed(repeated, best_buckets(repeated, count)).processed
    assert bucketed(lengths, edges, weights).real == sum(repeated)


def test_more_buckets_never_pad_more(meld: list[int]) -> None:
    processed = [bucketed(meld, best_buckets(meld, n)).processed for n in (1, 2, 4, 8, 16, 500)]
    assert processed == sorted(processed, reverse=True)
    assert processed[0] == 280 * max(meld)
    assert processed[-1] == sum(meld)
    # sixteen that are chosen beat sixteen of equal steps
    assert bucketed(meld, best_buckets(meld, 16)).ratio > stepped(meld, 32).ratio


def test_padding_counted_by_hand() -> None:
    assert bucketed([3, 5, 9], [5, 9]).processed == 5 + 5 + 9
    assert bucketed([3, 5, 9], [5, 9]).choice == "2 buckets: 5, 9"
    assert batched([1, 4, 2, 3], 2, in_order=False).processed == 4 + 4 + 3 + 3
    assert batched([1, 4, 2, 3], 2, in_order=True).processed == 4 + 4 + 2 + 2
    assert batched([1, 4, 2], 2, in_order=True).processed == 4 + 4 + 1
    assert stepped([1, 32, 33], 32).processed == 32 + 32 + 64
