"""Margins, errors and crossings of one hard decision; the expected number of crossings against theory and draws."""

from math import pi, sqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fmmt_deploy.evaluation.edges import SMALLEST, Edge, edge_from_margins


def edge(reference: np.ndarray, margins: np.ndarray) -> Edge:
    """A decision by the sign of its margin."""
    sides = reference > 0
    places = [(f"u{i}", None) for i in range(len(reference))]
    return edge_from_margins("test", places, reference, margins, sides, sides != (margins > 0))


margins = st.floats(-10, 10) | st.floats(-1e-7, 1e-7) | st.sampled_from([0.0, 1.0, 0.1, 10**-0.5, 1e-8, -1e-3])


@given(st.lists(margins, min_size=1, max_size=40))
@example([9.999999999999998e-08])  # its logarithm is rounded to −7
def test_every_margin_is_in_one_bin(values: list[float]) -> None:
    reference = np.array(values)
    found = edge(reference, reference).histogram
    assert sum(found.counts) == len(values)
    assert len(found.edges) == len(found.counts) + 1
    assert list(found.edges) == sorted(set(found.edges))
    sizes = np.abs(reference)
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        assert count == int(((sizes >= low) & (sizes < high)).sum())
    if (sizes >= SMALLEST).any():  # no more bins than are needed
        assert found.counts[-1]
        assert found.counts[0] + found.counts[1]


def test_bins_are_half_decades_whatever_the_engine() -> None:
    found = edge(np.array([0.002, 0.5]), np.zeros(2)).histogram
    assert found.edges == pytest.approx((0, 10**-3, 10**-2.5, 10**-2, 10**-1.5, 10**-1, 10**-0.5, 1))
    assert found.counts == (0, 1, 0, 0, 0, 0, 1)


def test_near_counts_by_each_decision_s_own_error() -> None:
    reference = np.array([0.1, 0.1, 0.1, -0.1, 3.0])
    found = edge(reference, reference + np.array([0.05, 0.2, -0.2, 0.3, 0.0]))
    assert (found.near, found.within_largest, found.crossed) == (3, 4, 2)
    assert [item.utterance for item in found.items] == ["u2", "u3"]
    assert found.error.largest == pytest.approx(0.3)


def test_without_error_nothing_is_near() -> None:
    reference = np.array([0.0, 1e-9, -1e-9])
    found = edge(reference, reference)
    assert (found.near, found.within_largest, found.crossed, found.expected) == (0, 0, 0, 0.0)


@pytest.mark.parametrize("spread", [0.002, 0.02])
def test_the_expected_crossings_are_what_theory_says(spread: float) -> None:
    """Margins uniform on (−1, 1), errors N(0, s): n·s/√(2π) cross on average; the mean over runs is near that, too."""
    rng, n, runs = np.random.default_rng(0), 4000, 200
    theory = n * spread / sqrt(2 * pi)
    expected, crossed = [], []
    for _ in range(runs):
        reference = rng.uniform(-1, 1, n)
        found = edge(reference, reference + spread * rng.standard_normal(n))
        expected.append(found.expected)
        crossed.append(found.crossed)
    assert np.mean(expected) == pytest.approx(theory, rel=0.05)
    assert np.mean(crossed) == pytest.approx(theory, abs=3 * sqrt(theory / runs))  # a count varies as Poisson's
    if spread == 0.02:  # it says more about the next data set than the count itself
        assert np.std(expected) < np.std(crossed)


@pytest.mark.parametrize("side", [1, -1])
def test_only_errors_towards_the_edge_can_cross(side: int) -> None:
    """Ten decisions 0.1 from it, three of them off by 0.2 towards it: each crosses with three errors of ten."""
    reference = np.full(10, 0.1 * side)
    towards, away = (edge(reference, reference + off * side * (np.arange(10) < 3)) for off in (-0.2, 0.2))
    assert (towards.crossed, towards.expected) == (3, pytest.approx(3))
    assert (away.crossed, away.expected) == (0, 0)


def test_errors_far_from_the_edge_do_not_count_there() -> None:
    """Of 1,000 decisions the 200 nearest have no error; the others are far off, and too far away to cross."""
    reference = np.concatenate([np.linspace(0.001, 0.1, 200), np.full(800, 5.0)])
    found = edge(reference, reference + np.concatenate([np.zeros(200), np.full(800, -1.0)]))
    assert (found.expected, found.crossed, found.within_largest) == (0.0, 0, 200)


def test_nothing_at_all() -> None:
    found = edge(np.zeros(0), np.zeros(0))
    assert (found.count, found.expected, found.histogram.counts) == (0, 0.0, (0,))
