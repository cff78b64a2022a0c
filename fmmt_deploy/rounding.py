"""What float32 rounding alone can do to a model's answers."""

from __future__ import annotations

__all__ = ["LOGIT_ROUNDING", "TIE_MARGIN"]

LOGIT_ROUNDING = 2e-5
"""What a float32 logit may differ by from rounding alone; the tolerance of `fmmt parity` for it."""

TIE_MARGIN = 2 * LOGIT_ROUNDING
"""Two logits at most so far apart can change places by rounding alone, and none further apart: a changed decision
between them is a tie."""
