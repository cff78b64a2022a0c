"""What padding wastes: real ÷ processed, for ways to batch and for buckets; and the best buckets, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Padding", "batched", "best_buckets", "bucketed", "stepped"]


@dataclass(frozen=True, slots=True)
class Padding:
    """What a choice computes.

    Attributes:
        choice: What is chosen.
        real: What the data hold.
        processed: The same with padding.
    """

    choice: str
    real: int
    processed: int

    @property
    def ratio(self) -> float:
        """Real ÷ processed: 1 is no padding."""
        return self.real / self.processed if self.processed else 1.0


def batched(lengths: Sequence[int], batch: int, in_order: bool) -> Padding:
    """So many at a time, padded to the longest of each batch.

    Args:
        lengths: Of each item.
        batch: How many at a time.
        in_order: Sorted by length first, the longest first; otherwise as they come.
    """
    ordered = sorted(lengths, reverse=True) if in_order else list(lengths)
    batches = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
    name = f"{'sorted' if in_order else 'unsorted'}, {batch} at a time"
    return Padding(name, sum(ordered), sum(max(b) * len(b) for b in batches))


def stepped(lengths: Sequence[int], step: int) -> Padding:
    """One at a time, padded to a multiple of `step`."""
    return Padding(f"multiples of {step}", sum(lengths), sum(-(-n // step) * step for n in lengths))


def bucketed(lengths: Sequence[int], edges: Sequence[int], weights: Sequence[int] | None = None) -> Padding:
    """Each padded to the smallest of the edges that is long enough.

    Args:
        lengths: None longer than the last edge.
        edges: Ascending.
        weights: How many items of that length are computed together; default one.
    """
    counts = np.asarray(weights if weights is not None else [1] * len(lengths), np.int64)
    values = np.asarray(lengths, np.int64)
    padded = np.asarray(edges, np.int64)[np.searchsorted(edges, values)]
    name = f"{len(edges)} bucket{'s' if len(edges) > 1 else ''}: {', '.join(map(str, edges))}"
    return Padding(name, int(values @ counts), int(padded @ counts))


def best_buckets(lengths: Sequence[int], count: int, weights: Sequence[int] | None = None) -> tuple[int, ...]:
    """The edges of `count` buckets that pad least: exact, by dynamic programming over the distinct lengths.

    Args:
        lengths: At least one.
        count: Buckets; fewer are given where there are no more distinct lengths.
        weights: See `bucketed`.

    Returns:
        Ascending edges, each a length that occurs, the last the longest.
    """
    values, where = np.unique(np.asarray(lengths, np.int64), return_inverse=True)
    counts = np.bincount(where, weights if weights is None else np.asarray(weights, np.float64)).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(counts)])
    buckets = min(count, len(values))
    # least[j]: the least processed for the j shortest distinct lengths with as many buckets as there were rounds
    least = np.concatenate([[0.0], np.full(len(values), np.inf)])
    choices = []
    for _ in range(buckets):
        cost = least[:, None] + values[None, :] * (before[None, 1:] - before[:, None])  # from i to the bucket's edge j
        cost[np.tril_indices(len(values) + 1, -1, len(values))] = np.inf  # a bucket begins before it ends
        chosen = cost.argmin(axis=0)
        choices.append(chosen)
        least = np.concatenate([[np.inf], cost[chosen, np.arange(len(values))]])
    edges, end = list[int](), len(values)
    for chosen in reversed(choices):
        edges.append(int(values[end - 1]))
        end = int(chosen[end - 1])
    assert end == 0
    ascending = tuple(reversed(edges))
    assert all(a < b for a, b in pairwise(ascending))
    return ascending
