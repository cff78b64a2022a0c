"""Shares of a whole: how much of it each of a few players brings (Shapley, "A value for n-person games", 1953).

A player's share is the mean of what it adds, over every order in which the players can join. Shares add up to the
whole, and a player that never changes anything has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np

from fmmt_deploy.evaluation.scores import DoubleArray

__all__ = ["shapley_shares"]


def shapley_shares(joined: Sequence[Sequence[bool]], values: DoubleArray) -> DoubleArray:
    """Each player's share of the whole's value, less the value without anybody: (players, …).

    Args:
        joined: (2^players, players), who has joined; every subset once, in any order.
        values: (2^players, …), the value of each.
    """
    row = {tuple(map(bool, subset)): number for number, subset in enumerate(joined)}
    players = len(joined[0])
    shares = np.zeros((players, *values.shape[1:]))
    for subset, before in row.items():
        for player in range(players):
            if not subset[player]:
                after = row[(*subset[:player], True, *subset[player + 1 :])]
                # differences first: a player that changes nothing has exactly 0, not what rounding left over
                shares[player] += _weight(sum(subset), players) * (values[after] - values[before])
    return shares


def _weight(before: int, players: int) -> float:
    """In what part of all orders exactly these players, `before` of them, come before the one that joins."""
    return factorial(before) * factorial(players - 1 - before) / factorial(players)
