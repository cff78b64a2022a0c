"""Rows chosen uniformly out of a stream, in constant memory, whatever the pieces it comes in.

Every row number has a hash; the rows with the smallest hashes are kept. So the choice depends on the seed and on the
order of the rows only, and two samples merge into the sample of both streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Reservoir"]


class Reservoir:
    """At most `size` rows of a stream.

    Args:
        columns: Numbers a row.
        size: How many rows are kept.
        seed: Of the choice; 0 to 2^32 − 1. Streams that are to be merged need a seed each.
    """

    def __init__(self, columns: int, size: int, seed: int) -> None:
        self.seen = 0
        self._size, self._seed = size, seed
        self._keys = np.zeros(0, np.uint64)
        self._rows = np.zeros((0, columns), np.float32)

    @property
    def rows(self) -> NDArray[np.float32]:
        """(at most size, columns): those kept, in no order that means anything."""
        return self._rows

    def update(self, rows: Tensor) -> None:
        """Takes the next rows of the stream, (any number, columns), float32."""
        keys = _hashes(self._seed, self.seen, len(rows))
        self.seen += len(rows)
        if len(self._keys) == self._size:
            (candidates,) = np.nonzero(keys < self._keys.max(initial=0))
        else:
            candidates = np.arange(len(keys))
        candidates = candidates[_smallest(keys[candidates], self._size)]
        if candidates.size:
            self._keep(keys[candidates], rows.numpy()[candidates])

    def merged(self, other: Reservoir) -> Reservoir:
        """The sample of both streams; it goes on as this one would have.

        Raises:
            ValueError: Both have the same seed, so their choices are not independent, or different sizes.
        """
        if self._seed == other._seed or self._size != other._size:
            raise ValueError("samples that are merged need the same size and a seed each")
        both = Reservoir(self._rows.shape[1], self._size, self._seed)
        both.seen, both._keys, both._rows = self.seen + other.seen, self._keys, self._rows
        both._keep(other._keys, other._rows)
        return both

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds; see `from_arrays`."""
        settings = np.array([self._size, self._seed, self.seen], np.int64)
        return {"settings": settings, "keys": self._keys, "rows": self._rows}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Reservoir:
        """The reservoir that `arrays` was called on; the two go on alike."""
        size, seed, seen = (int(number) for number in arrays["settings"])
        found = cls(arrays["rows"].shape[1], size, seed)
        found.seen, found._keys, found._rows = seen, arrays["keys"], arrays["rows"]
        return found

    def _keep(self, keys: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Of those held and these, the ones with the smallest keys, in their order."""
        keys, rows = np.concatenate([self._keys, keys]), np.concatenate([self._rows, rows])
        kept = _smallest(keys, self._size)
        self._keys, self._rows = keys[kept], rows[kept]


def _smallest(keys: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    return np.argsort(keys)[:count]


def _hashes(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al., 2014) of row numbers, one sequence a seed."""
    numbers = np.arange(start, start + count, dtype=np.uint64)
    return _mixed(_mixed(numbers) + _mixed(np.array([seed], np.uint64)))


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
