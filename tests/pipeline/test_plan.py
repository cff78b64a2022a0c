"""How texts are padded."""

import numpy as np
import pytest

from fmmt_deploy.pipeline.plan import padded_tokens


@pytest.mark.parametrize(
    ("lengths", "multiple", "most", "expected"),
    [
        ([3, 5], 1, None, 5),
        ([3, 5], 4, None, 8),
        ([8], 4, None, 8),
        ([9], 8, 12, 12),
        ([13], 8, 12, 13),
        ([1], 32, 512, 32),
    ],
)
def test_texts_are_padded_to_a_multiple(lengths: list[int], multiple: int, most: int | None, expected: int) -> None:
    rows = [np.arange(1, length + 1) for length in lengths]
    ids, mask = padded_tokens(rows, multiple, most)
    assert ids.shape == mask.shape == (len(rows), expected)
    assert mask.sum(axis=1).tolist() == lengths
    assert all((ids[i, : len(row)] == row).all() and not ids[i, len(row) :].any() for i, row in enumerate(rows))
