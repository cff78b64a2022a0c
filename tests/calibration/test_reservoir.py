"""Rows chosen out of a stream."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from fmmt_deploy.calibration.reservoir import Reservoir


def numbered(start: int, stop: int, columns: int = 3) -> torch.Tensor:
    """Rows that tell their number."""
    return torch.arange(start, stop, dtype=torch.float32)[:, None] + torch.zeros(columns)


def sample(seed: int, cuts: tuple[int, ...], size: int = 20) -> Reservoir:
    found = Reservoir(3, size, seed)
    for start, stop in zip((0, *cuts), cuts, strict=False):
        found.update(numbered(start, stop))
    return found


def test_choice_does_not_depend_on_the_pieces() -> None:
    whole, pieces = sample(1, (1000,)), sample(1, (1, 2, 19, 20, 21, 21, 500, 1000))
    np.testing.assert_array_equal(whole.rows, pieces.rows)
    assert whole.seen == pieces.seen == 1000
    assert len(set(whole.rows[:, 0])) == 20


def test_short_streams_are_kept_whole() -> None:
    assert sorted(sample(0, (7, 12)).rows[:, 0]) == list(range(12))
    assert Reservoir(3, 20, 0).rows.shape == (0, 3)
    assert sample(0, (50,), size=0).rows.shape == (0, 3)


def test_choice_is_uniform_and_differs_by_seed() -> None:
    chosen = np.concatenate([sample(seed, (100,)).rows[:, 0] for seed in range(500)]).astype(int)
    # 500 choices of 20 out of 100: each row 100 times
    assert chisquare(np.bincount(chosen, minlength=100)).pvalue > 1e-3
    assert len({tuple(sorted(sample(seed, (100,)).rows[:, 0])) for seed in range(500)}) == 500


def test_merged_samples_are_fair_to_both_and_go_on() -> None:
    shares = []
    for seed in range(0, 400, 2):
        long, short = sample(seed, (300,)), Reservoir(3, 20, seed + 1)
        short.update(-1 - numbered(0, 100))
        both = long.merged(short)
        assert both.seen == 400
        assert both.rows.shape == (20, 3)
        shares.append((both.rows[:, 0] < 0).mean())
        both.update(numbered(300, 310))
        assert both.seen == 410
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)


def test_merging_needs_two_seeds_and_one_size() -> None:
    for other in (sample(1, (9,)), sample(2, (9,), size=5)):
        with pytest.raises(ValueError, match="a seed each"):
            sample(1, (9,)).merged(other)


def test_goes_on_after_arrays() -> None:
    found = sample(3, (100,))
    again = Reservoir.from_arrays({name: array.copy() for name, array in found.arrays().items()})
    for one in (found, again):
        one.update(numbered(100, 900))
    np.testing.assert_array_equal(found.rows, again.rows)
    assert any(found.rows[:, 0] >= 100)
