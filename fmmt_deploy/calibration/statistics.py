"""What is remembered of a tensor while calibration data stream through: enough for every method, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.calibration.histograms import BINS, Histogram, empty_histogram, histogram_from_values
from fmmt_deploy.calibration.reservoir import Reservoir
from fmmt_deploy.errors import DataError, PrecisionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCKS", "ROWS_KEPT", "ColumnExtremes", "TensorStatistics"]

BLOCKS = 8
"""Histograms a tensor: cases are dealt out to them in turn, so that the spread over parts of the data can be told."""

ROWS_KEPT = 256
"""Rows sampled of a tensor by default."""


class ColumnExtremes:
    """The smallest and largest number of each column of a tensor.

    Args:
        tensor: Its name.
        columns: How many.
        is_input: Whether it is an input of the graph, and so what is not finite is the data's fault.
    """

    def __init__(self, tensor: str, columns: int, *, is_input: bool = False) -> None:
        self.tensor = tensor
        self._is_input = is_input
        self._low = np.full(columns, np.inf, np.float32)
        self._high = np.full(columns, -np.inf, np.float32)

    @property
    def columns(self) -> int:
        """How many."""
        return len(self._low)

    @property
    def smallest(self) -> float:
        """Of all numbers; infinite if none was seen."""
        return float(self._low.min())

    @property
    def largest(self) -> float:
        """Of all numbers; minus infinity if none was seen."""
        return float(self._high.max())

    @property
    def magnitudes(self) -> NDArray[np.float32]:
        """(columns,): the largest magnitude of each; 0 if none was seen."""
        return np.maximum(np.maximum(self._high, -self._low), np.float32(0))

    def update(self, rows: Tensor) -> float:
        """Takes rows into account.

        Args:
            rows: (rows, columns), float32.

        Returns:
            The largest magnitude among them; 0 if there are none.

        Raises:
            DataError: A number is not finite, in an input of the graph.
            PrecisionError: A number is not finite, in what the float32 graph itself computes.
            ValueError: The shape or the type is wrong.
        """
        if rows.ndim != 2 or rows.shape[1] != self.columns or str(rows.dtype) != "torch.float32":
            raise ValueError(f"{self.tensor} should be float32 (rows, {self.columns}), is {rows.dtype} {rows.shape}")
        if not len(rows):
            return 0.0
        low, high = rows.amin(0).numpy(), rows.amax(0).numpy()
        magnitude = float(np.maximum(high, -low).max())
        if not np.isfinite(magnitude):
            raise self._not_finite(rows)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        return magnitude

    def merged(self, other: ColumnExtremes) -> ColumnExtremes:
        """Of all that both saw."""
        both = ColumnExtremes(self.tensor, self.columns, is_input=self._is_input)
        both._low, both._high = np.minimum(self._low, other._low), np.maximum(self._high, other._high)
        return both

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds but its name; see `from_arrays`."""
        return {"low": self._low, "high": self._high, "is_input": np.array(self._is_input)}

    @classmethod
    def from_arrays(cls, tensor: str, arrays: Mapping[str, NDArray[Any]]) -> ColumnExtremes:
        """The extremes that `arrays` was called on."""
        found = cls(tensor, len(arrays["low"]), is_input=bool(arrays["is_input"]))
        found._low, found._high = arrays["low"], arrays["high"]
        return found

    def _not_finite(self, rows: Tensor) -> DataError | PrecisionError:
        row, column = (~rows.isfinite()).nonzero()[0].tolist()
        where = f"{float(rows[row, column])} in row {row}, column {column}"
        if self._is_input:
            return DataError(
                f"The input {self.tensor} has values that are not finite: {where}.",
                why="No range can be told from NaN or infinity.",
                fix="Repair the data, or calibrate on others.",
                tensor=self.tensor,
            )
        return PrecisionError(
            f"The float32 graph computes values that are not finite: {self.tensor} has {where}.",
            why="No range can be told from NaN or infinity, and eight bits can't make that better.",
            fix="Check the checkpoint it was exported from, and the data.",
            tensor=self.tensor,
        )


class TensorStatistics:
    """What was seen of one tensor that products read.

    Args:
        tensor: Its name.
        columns: Numbers a row, K.
        seed: Of the rows that are sampled; statistics that are to be merged need one each.
        rows_kept: How many rows are sampled.
        is_input: Whether the tensor is an input of the graph.
    """

    def __init__(
        self, tensor: str, columns: int, seed: int = 0, rows_kept: int = ROWS_KEPT, *, is_input: bool = False
    ) -> None:
        self.extremes = ColumnExtremes(tensor, columns, is_input=is_input)
        self._blocks = [empty_histogram() for _ in range(BLOCKS)]
        self._sample = Reservoir(columns, rows_kept, seed)

    @property
    def tensor(self) -> str:
        """Its name."""
        return self.extremes.tensor

    @property
    def rows(self) -> int:
        """How many were seen."""
        return self._sample.seen

    @property
    def column_largest(self) -> NDArray[np.float32]:
        """(K,): the largest magnitude of each column."""
        return self.extremes.magnitudes

    @property
    def sample(self) -> NDArray[np.float32]:
        """(at most rows_kept, K): rows, chosen uniformly out of all."""
        return self._sample.rows

    @property
    def blocks(self) -> tuple[Histogram, ...]:
        """(BLOCKS,): the magnitudes of the cases whose number leaves this remainder."""
        return tuple(self._blocks)

    @property
    def histogram(self) -> Histogram:
        """The magnitudes of all cases."""
        whole = empty_histogram()
        for block in self._blocks:
            whole = whole.merged(block)
        return whole

    def update(self, rows: Tensor | NDArray[np.float32], case: int = 0) -> None:
        """Takes rows into account.

        Args:
            rows: (rows, K), float32.
            case: Number of the dialogue, or of the batch, that they belong to.

        Raises:
            DataError, PrecisionError, ValueError: See `ColumnExtremes.update`; nothing was changed then.
        """
        import torch

        rows = torch.tensor(rows) if isinstance(rows, np.ndarray) else rows
        largest = self.extremes.update(rows)
        block = case % BLOCKS
        self._blocks[block] = self._blocks[block].merged(histogram_from_values(rows, largest))
        self._sample.update(rows)

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """The statistics of all that both saw.

        Raises:
            ValueError: Both have the same seed, or differ in how many rows they keep.
        """
        both = TensorStatistics(self.tensor, self.extremes.columns)
        both.extremes = self.extremes.merged(other.extremes)
        both._blocks = [mine.merged(its) for mine, its in zip(self._blocks, other._blocks, strict=True)]
        both._sample = self._sample.merged(other._sample)
        return both

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds but its name, for `numpy.savez`; see `from_arrays`."""
        return {
            **{f"extremes.{name}": array for name, array in self.extremes.arrays().items()},
            **{f"sample.{name}": array for name, array in self._sample.arrays().items()},
            "counts": np.stack([block.counts for block in self._blocks]),
            "reaches": np.array([(block.reach, block.largest) for block in self._blocks]),
        }

    @classmethod
    def from_arrays(cls, tensor: str, arrays: Mapping[str, NDArray[Any]]) -> TensorStatistics:
        """The statistics that `arrays` was called on; the two go on alike, bit for bit.

        Raises:
            ValueError: They are not of this layout.
        """
        counts, reaches = arrays["counts"], arrays["reaches"]
        if counts.shape != (BLOCKS, BINS) or reaches.shape != (BLOCKS, 2):
            raise ValueError(f"statistics of {tensor} should have {BLOCKS} histograms of {BINS} bins")
        extremes = ColumnExtremes.from_arrays(tensor, _under("extremes.", arrays))
        found = cls(tensor, extremes.columns)
        found.extremes, found._sample = extremes, Reservoir.from_arrays(_under("sample.", arrays))
        found._blocks = [Histogram(c, float(r), float(m)) for c, (r, m) in zip(counts, reaches, strict=True)]
        return found


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
