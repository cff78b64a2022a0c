"""Whether an engine computes what the reference computes: arrays in, frozen values out."""

from fmmt_deploy.parity.decisions import DecisionComparison, compare_decisions
from fmmt_deploy.parity.metrics import TensorComparison, compare_outputs, compare_tensors
from fmmt_deploy.parity.report import ParityReport, StageParity
from fmmt_deploy.parity.tolerances import EXACT, TOLERANCES, StageTolerances, Tolerance, coarsest

__all__ = [
    "EXACT",
    "TOLERANCES",
    "DecisionComparison",
    "ParityReport",
    "StageParity",
    "StageTolerances",
    "TensorComparison",
    "Tolerance",
    "coarsest",
    "compare_decisions",
    "compare_outputs",
    "compare_tensors",
]
