"""What a candidate precision may change, by precision, before it is no candidate any more.

These are rules for choosing among precisions on the data at hand. Whether an engine may replace the reference on
other data is another question, with uncertainty; `evaluation.equivalence` answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.rounding import TIE_MARGIN

__all__ = ["EQUIVALENCE_RULES", "EquivalenceRule"]


@dataclass(frozen=True, slots=True)
class EquivalenceRule:
    """What still counts as equivalent.

    Attributes:
        max_changed_share: Largest share of decisions that may change, ties not counted.
        max_f1_drop: Largest drop of weighted F1, 0 to 1, ties not counted.
        tie_margin: A changed decision is a tie if the reference's two logits lie at most so far apart; the same for
            every precision.
    """

    max_changed_share: float
    max_f1_drop: float
    tie_margin: float = TIE_MARGIN


EQUIVALENCE_RULES: Mapping[Precision, EquivalenceRule] = {
    # A changed decision costs about its share in weighted F1 (one of MELD's 2,610: 0.0004). In float32 every allowed
    # change may be for the worse; at lower precision there are enough of them to go both ways, so half may be.
    "fp32": EquivalenceRule(max_changed_share=0.001, max_f1_drop=0.001),
    "fp16": EquivalenceRule(max_changed_share=0.005, max_f1_drop=0.0025),
    "bf16": EquivalenceRule(max_changed_share=0.010, max_f1_drop=0.005),  # 3 bits of mantissa fewer than fp16
    "int8-fp32": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),
    "int8": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),
    "fp8": EquivalenceRule(max_changed_share=0.020, max_f1_drop=0.010),  # as the other 8 bits
}
