"""How to calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from fmmt_deploy.calibration.thresholds import METHODS, PERCENTILE, Method
from fmmt_deploy.types import GraphName

__all__ = ["DIALOGUES", "METHOD_CHOICES", "CalibrationSettings", "MethodChoice"]

MethodChoice: TypeAlias = Literal["best", "max", "percentile", "entropy", "mse"]
"""A method for all tensors; or, for each, the one whose products are nearest to float32's."""

METHOD_CHOICES: tuple[MethodChoice, ...] = get_args(MethodChoice)

DIALOGUES = 64
"""So many are calibrated on, unless asked otherwise: MELD's have ten utterances and 130 tokens each."""


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How to calibrate.

    Attributes:
        method: How thresholds are chosen from what was seen.
        percentile: Of the method of that name: above 0, at most 100.
        smooth: Graphs whose inputs of products are smoothed, where that helps (Xiao et al., SmoothQuant, 2023).
        dialogues: How many are calibrated on; None for all.
        seed: Which ones, and which of their rows are sampled.
    """

    method: MethodChoice = "best"
    percentile: float = PERCENTILE
    smooth: tuple[GraphName, ...] = ("plm",)
    dialogues: int | None = DIALOGUES
    seed: int = 0

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that are tried."""
        return METHODS if self.method == "best" else (self.method,)
