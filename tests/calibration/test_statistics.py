"""What is remembered of a tensor, against the raw numbers."""

import io

import numpy as np
import pytest
import torch

from fmmt_deploy.calibration.statistics import BLOCKS, ColumnExtremes, TensorStatistics
from fmmt_deploy.errors import DataError, PrecisionError

CASES = [np.random.default_rng(n).standard_t(4, (5 + n, 6)).astype(np.float32) * np.arange(6) for n in range(20)]
CASES = [case.astype(np.float32) for case in CASES]


def seen(cases: list[tuple[int, np.ndarray]], seed: int = 0, pieces: int = 1) -> TensorStatistics:
    found = TensorStatistics("x", 6, seed, rows_kept=16)
    for number, rows in cases:
        for part in np.array_split(rows, pieces):
            found.update(torch.tensor(part), number)
    return found


def same(one: TensorStatistics, other: TensorStatistics) -> bool:
    mine, its = one.arrays(), other.arrays()
    return mine.keys() == its.keys() and all(np.array_equal(mine[name], its[name]) for name in mine)


NUMBERED = list(enumerate(CASES))


def test_it_is_what_the_whole_data_say() -> None:
    found, whole = seen(NUMBERED), np.concatenate(CASES)
    np.testing.assert_array_equal(found.column_largest, np.abs(whole).max(axis=0))
    assert (found.extremes.smallest, found.extremes.largest) == (whole.min(), whole.max())
    assert found.rows == len(whole)
    np.testing.assert_array_equal(found.histogram.counts, np.histogram(np.abs(whole), found.histogram.edges)[0])
    rows = {tuple(row) for row in whole}
    assert len(found.sample) == 16
    assert all(tuple(row) in rows for row in found.sample)


def test_blocks_are_the_cases_in_turn() -> None:
    found = seen(NUMBERED)
    for number, block in enumerate(found.blocks):
        mine = np.abs(np.concatenate(CASES[number::BLOCKS]))
        assert (block.total, block.largest) == (mine.size, mine.max())


@pytest.mark.parametrize("pieces", [2, 5])
def test_pieces_do_not_matter(pieces: int) -> None:
    assert same(seen(NUMBERED), seen(NUMBERED, pieces=pieces))


def test_halves_merge_to_the_whole() -> None:
    both, whole = seen(NUMBERED[::2], 1).merged(seen(NUMBERED[1::2], 2)), seen(NUMBERED)
    np.testing.assert_array_equal(both.histogram.counts, whole.histogram.counts)
    np.testing.assert_array_equal(both.column_largest, whole.column_largest)
    assert (both.rows, len(both.sample), both.tensor) == (whole.rows, 16, "x")


def test_goes_on_bit_for_bit_after_a_file() -> None:
    first, file = seen(NUMBERED[:7]), io.BytesIO()
    np.savez(file, **first.arrays())
    file.seek(0)
    with np.load(file) as stored:
        again = TensorStatistics.from_arrays("x", dict(stored))
    for number, rows in NUMBERED[7:]:
        again.update(rows, number)
    assert same(again, seen(NUMBERED))


def test_other_layouts_are_refused() -> None:
    stored = seen(NUMBERED).arrays() | {"counts": np.zeros((3, 5), np.int64)}
    with pytest.raises(ValueError, match="of x should have 8 histograms of 4096 bins"):
        TensorStatistics.from_arrays("x", stored)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("is_input", "error"), [(True, DataError), (False, PrecisionError)])
def test_what_is_not_finite_is_named_and_changes_nothing(bad: float, is_input: bool, error: type) -> None:
    found = TensorStatistics("encoder/fc1", 6, is_input=is_input)
    found.update(CASES[3])
    before, rows = found.arrays(), CASES[4].copy()
    rows[2, 5] = bad
    with pytest.raises(error, match=r"encoder/fc1 has .*(nan|inf) in row 2, column 5") as caught:
        found.update(rows)
    assert caught.value.tensor == "encoder/fc1"
    assert all(np.array_equal(before[name], array) for name, array in found.arrays().items())


def test_wrong_shapes_and_types_are_refused() -> None:
    for rows in (torch.zeros(3, 5), torch.zeros(6), torch.zeros(3, 6, dtype=torch.float16)):
        with pytest.raises(ValueError, match=r"x should be float32 \(rows, 6\)"):
            TensorStatistics("x", 6).update(rows)


def test_no_rows_are_fine() -> None:
    found = TensorStatistics("x", 6)
    found.update(torch.zeros(0, 6))
    assert (found.rows, found.histogram.total, found.column_largest.tolist()) == (0, 0, [0] * 6)


def test_extremes_alone() -> None:
    one, other = ColumnExtremes("y", 2), ColumnExtremes("y", 2)
    assert one.update(torch.tensor([[1.0, -9.0], [0.5, 2.0]])) == 9
    other.update(torch.tensor([[-4.0, 3.0]]))
    assert one.merged(other).magnitudes.tolist() == [4, 9]
    again = ColumnExtremes.from_arrays("y", one.arrays())
    assert again.magnitudes.tolist() == [1, 9]
    assert (again.smallest, again.largest) == (-9, 2)


def test_memory_is_constant() -> None:
    found = TensorStatistics("x", 6, rows_kept=16)
    sizes = []
    for number, rows in NUMBERED:
        found.update(rows, number)
        sizes.append(sum(array.nbytes for array in found.arrays().values()))
    assert len(set(sizes[3:])) == 1
