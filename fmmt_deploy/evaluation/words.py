"""Numbers as a verdict's words say them."""

from __future__ import annotations

import math

__all__ = ["counted", "margin_words", "points", "rounded_up_points"]


def points(share: float, signed: bool = False) -> str:
    """A share of 1 as points of F1: `66.73`, or signed `−0.02`; what would round to 0 keeps two digits.

    Args:
        share: It.
        signed: Whether to show a plus, too.
    """
    value = 100 * share
    if abs(value) < 1e-9:  # rounding of a mean over draws
        return "0.00"
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        text = f"{abs(value):.{1 - math.floor(math.log10(abs(value)))}f}"
    return ("−" if value < 0 else "+" if signed else "") + text


def counted(number: int, one: str, many: str = "") -> str:
    """`1 decision`, `2,610 decisions`.

    Args:
        number: How many.
        one: The word for one.
        many: The word for another number; default `one` and s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def margin_words(share: float) -> str:
    """A margin as it was given: `0.5 points`, `1 point`."""
    value = f"{100 * share:g}"
    return f"{value} {'point' if value == '1' else 'points'}"


def rounded_up_points(share: float) -> str:
    """A share of 1 as points of F1, no less than it is: a margin that is said still passes."""
    return f"{math.ceil(10_000 * share - 1e-9) / 100:.2f}"
