"""How good the decisions are, and whether two runs are equivalent: arrays in, frozen values out."""

from fmmt_deploy.evaluation.comparison import EQUIVALENCE_RULES, Comparison, EquivalenceRule, compare
from fmmt_deploy.evaluation.evaluation import Evaluation, Spread, evaluate, over_seeds

__all__ = [
    "EQUIVALENCE_RULES",
    "Comparison",
    "EquivalenceRule",
    "Evaluation",
    "Spread",
    "compare",
    "evaluate",
    "over_seeds",
]
