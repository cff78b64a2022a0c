"""Which sample, by its rank, bounds a percentile: exact, whatever the samples' distribution.

Of n independent samples, how many lie above the true p-th percentile is binomial. So an order statistic bounds the
percentile with a stated confidence, and of too few samples not even the largest one does: p90 needs 44 and p99 459 at
99 %. MLPerf's early-stopping estimate is the same bound, but one sample higher: it needs 64 and 662.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, lgamma, log, log1p

__all__ = ["CONFIDENCE", "allowed_above", "needed_samples"]

CONFIDENCE = 0.99
"""Of each bound by itself; MLPerf's."""


@lru_cache(maxsize=256)
def allowed_above(samples: int, percent: int, confidence: float = CONFIDENCE) -> int | None:
    """How many of so many samples may exceed a limit, if the true percentile is to be within it with confidence.

    It is the largest t with P(Binomial(samples, 1 − percent / 100) ≤ t) ≤ 1 − confidence.

    Returns:
        That number, or None where even none would not do.
    """
    share, total, allowed = 1 - percent / 100, 0.0, None
    for above in range(samples + 1):
        total += exp(
            lgamma(samples + 1)
            - lgamma(above + 1)
            - lgamma(samples - above + 1)
            + above * log(share)
            + (samples - above) * log1p(-share)
        )
        if total > (1 - confidence) * (1 + 1e-9):  # within rounding, 0.01 is not above 1 − 0.99
            return allowed
        allowed = above
    return allowed


def needed_samples(percent: int, confidence: float = CONFIDENCE) -> int:
    """The fewest independent samples whose largest bounds a percentile from above."""
    return ceil(log(1 - confidence) / log(percent / 100) - 1e-9)
