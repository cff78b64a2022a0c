"""How good the decisions are, and whether two runs are equivalent: arrays in, frozen values out."""

from fmmt_deploy.evaluation.equivalence import equivalence
from fmmt_deploy.evaluation.evaluation import Evaluation, Spread, evaluate, over_seeds
from fmmt_deploy.evaluation.verdict import Equivalence

__all__ = ["Equivalence", "Evaluation", "Spread", "equivalence", "evaluate", "over_seeds"]
