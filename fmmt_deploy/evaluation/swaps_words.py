"""Who is to blame for a difference of F1, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.evaluation.words import counted, points
from fmmt_deploy.types import GraphName

__all__ = ["FEWEST_CHANGES", "blamed", "words_about"]

FEWEST_CHANGES = 6
"""Fewer changed decisions blame nobody: if each were for the worse by a coin's toss, all would be in 1 of 16 cases for
five, and a bootstrap, which sees no other outcome, would take that for certain. For six it is 1 of 32."""


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
    decisions = f"{counted(changed, 'decision')} changed"
    noisiest = _noisiest(error_shares)
    if not changed:
        return f"No decision changed, so nobody is to blame.{noisiest}"
    graphs = blamed(difference, shares, intervals) if changed >= FEWEST_CHANGES else ()
    if not graphs:
        why = "can be told from chance" if intervals else "can be judged on a single dialogue"
        whole = f"the difference of {points(difference, True)} points of F1"
        return f"{decisions}, but nobody can be blamed: no graph's share in {whole} {why}.{noisiest}"
    parts = [f"{graph} for {points(shares[graph], True)} ({_words_of(intervals[graph])})" for graph in graphs]
    verb = ("is" if len(graphs) == 1 else "are") + (" to blame" if difference < 0 else " the cause")
    listed = _listed(parts)
    return f"{listed} {verb}: of {points(difference, True)} points of F1, with {decisions}.{noisiest}"


def _noisiest(error_shares: Mapping[GraphName, float]) -> str:
    graph = max(error_shares, key=lambda name: error_shares[name])
    if len(error_shares) == 1 or not error_shares[graph]:
        return ""
    return f" Of the logits' mean squared error {min(1.0, error_shares[graph]):.0%} comes from {graph}."


def _words_of(interval: Interval) -> str:
    return f"{100 * interval.confidence:g} % interval {points(interval.low, True)} to {points(interval.high, True)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
