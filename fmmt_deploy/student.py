"""Student's t distribution, for intervals from few values; SciPy is no dependency of ours."""

from __future__ import annotations

import math

__all__ = ["student_quantile"]


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, by bisection of its distribution; for probabilities from ½ on.

    Args:
        probability: Above or at 0.5, below 1.
        freedom: Degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1.0
    while _student_distribution(high, freedom) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_distribution(middle, freedom) < probability else (low, middle)
    return high


def _student_distribution(t: float, freedom: int) -> float:
    """P(T ≤ t) for t ≥ 0: the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2
