"""Who is to blame for a difference of F1, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.types import GraphName

__all__ = ["blamed", "words_about"]


def blamed(
    difference: float, shares: Mapping[GraphName, float], intervals: Mapping[GraphName, Interval]
) -> tuple[GraphName, ...]:
    """The graphs that the difference comes from, the largest share first.

    Those are the ones whose share has the difference's sign, and an interval without 0.
    """
    found = [
        graph
        for graph, interval in intervals.items()
        if shares[graph] * difference > 0 and (interval.low > 0 or interval.high < 0)
    ]
    return tuple(sorted(found, key=lambda graph: -abs(shares[graph])))


def words_about(
    difference: float,
    changed: int,
    shares: Mapping[GraphName, float],
    intervals: Mapping[GraphName, Interval],
    error_shares: Mapping[GraphName, float],
) -> str:
    """A sentence or two for a reader of the table.

    Args:
        difference: Of F1, the engine throughout less the reference throughout, 0 to 1.
        changed: Decisions that differ between the two.
        shares: Each graph's share of the difference.
        intervals: Of those shares; empty where there is none.
        error_shares: Each graph's share of the logits' mean squared error, parts of 1.
    """
    decisions = f"{changed} decision{'s' * (changed != 1)} changed"
    noisiest = _noisiest(error_shares)
    if not changed:
        return f"No decision changed, so nobody is to blame.{noisiest}"
    graphs = blamed(difference, shares, intervals)
    if not graphs:
        why = "can be told from chance" if intervals else "can be judged on a single dialogue"
        points = f"the difference of {_points(difference)} points of F1"
        return f"{decisions}, but nobody can be blamed: no graph's share in {points} {why}.{noisiest}"
    parts = [
        f"{g} for {_points(shares[g])} (95 % interval {_points(intervals[g].low)} to {_points(intervals[g].high)})"
        for g in graphs
    ]
    verb = ("is" if len(graphs) == 1 else "are") + (" to blame" if difference < 0 else " the cause")
    listed = _listed(parts)
    return f"{listed} {verb}: of {_points(difference)} points of F1, with {decisions}.{noisiest}"


def _noisiest(error_shares: Mapping[GraphName, float]) -> str:
    graph = max(error_shares, key=lambda name: error_shares[name])
    if len(error_shares) == 1 or not error_shares[graph]:
        return ""
    return f" Of the logits' mean squared error {min(1.0, error_shares[graph]):.0%} comes from {graph}."


def _points(share: float) -> str:
    """Percentage points with a real minus."""
    return f"{100 * share:+.2f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
