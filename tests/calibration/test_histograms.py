"""Histograms of magnitudes, against numpy.histogram and raw numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.calibration.histograms import Histogram, empty_histogram, histogram_from_values

PIECES = st.lists(st.tuples(st.integers(0, 9), st.floats(-30, 30)), min_size=1, max_size=6)


def histogram_of(values: np.ndarray) -> Histogram:
    return histogram_from_values(torch.tensor(values), float(np.abs(values).max(initial=0)))


def same(one: Histogram, other: Histogram) -> bool:
    return np.array_equal(one.counts, other.counts) and (one.reach, one.largest) == (other.reach, other.largest)


def test_counts_are_numpys() -> None:
    values = np.random.default_rng(0).standard_t(3, (700, 800)).astype(np.float32)  # more than is counted at once
    found = histogram_of(values)
    np.testing.assert_array_equal(found.counts, np.histogram(np.abs(values), found.edges)[0])
    assert found.total == values.size
    assert found.largest == np.abs(values).max()
    assert found.reach / 2 <= found.largest < found.reach
    np.testing.assert_allclose(found.centres, (found.edges[:-1] + found.edges[1:]) / 2)


@given(PIECES)
def test_pieces_merge_to_the_whole_in_any_order(pieces: list[tuple[int, float]]) -> None:
    parts = [np.random.default_rng(seed).normal(0, 2.0**power, 50).astype(np.float32) for seed, power in pieces]
    whole = histogram_of(np.concatenate(parts))
    for order in (parts, parts[::-1]):
        merged = empty_histogram()
        for part in order:
            merged = merged.merged(histogram_of(part))
        assert same(merged, whole)


@pytest.mark.parametrize("values", [[0.0], [1e-38, 0], [1e-45], [3.4e38, 1], [1.0], [2.0, -2.0], [0.0] * 5])
def test_ends_of_the_range(values: list[float]) -> None:
    found = histogram_of(np.array(values, np.float32)).merged(histogram_of(np.float32([3])))
    assert found.total == len(values) + 1
    assert found.reach > found.largest >= 3


def test_powers_of_two_scale_it_exactly() -> None:
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    one, eighth = histogram_of(values), histogram_of(values / 8)
    np.testing.assert_array_equal(one.counts, eighth.counts)
    assert one.reach == 8 * eighth.reach


@pytest.mark.parametrize("factor", [0, 0.25, 0.5, 0.9, 0.999, 1, 3])
def test_what_is_beyond_a_threshold(factor: float) -> None:
    values = np.random.default_rng(2).laplace(size=200_000).astype(np.float32)
    found, threshold = histogram_of(values), float(np.abs(values).max()) * factor
    excess = np.maximum(np.abs(values.astype(np.float64)) - threshold, 0)
    share, energy = (excess > 0).mean(), np.square(excess).sum() / np.square(values.astype(np.float64)).sum()
    assert found.share_beyond(threshold) == pytest.approx(share, rel=0.02, abs=2e-5)
    assert found.energy_beyond(threshold) == pytest.approx(energy, rel=0.02, abs=1e-5)


def test_nothing_seen_nothing_beyond() -> None:
    zeros = histogram_of(np.zeros(4, np.float32))
    for found in (empty_histogram(), zeros):
        assert found.share_beyond(0) == found.energy_beyond(0) == 0


def test_numbers_that_are_all_alike() -> None:
    found = histogram_of(np.ones(5, np.float32))
    assert found.share_beyond(0.5) == 1
    assert found.energy_beyond(0.25) == pytest.approx(0.75**2)


def test_at_the_edge_of_a_bin_counts_are_exact() -> None:
    found = histogram_of(np.random.default_rng(4).uniform(-1, 1, 50_000).astype(np.float32))
    for edge in (1, 100, 3000):
        assert found.share_beyond(found.edges[edge]) == pytest.approx(
            found.counts[edge:].sum() / found.total, rel=1e-12
        )
