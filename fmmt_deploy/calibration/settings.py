"""How to calibrate."""

from __future__ import annotations

from dataclasses import dataclass

from fmmt_deploy.calibration.thresholds import PERCENTILE, Method
from fmmt_deploy.types import GraphName

__all__ = ["DIALOGUES", "CalibrationSettings"]

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

    method: Method = "mse"
    percentile: float = PERCENTILE
    smooth: tuple[GraphName, ...] = ("plm",)
    dialogues: int | None = DIALOGUES
    seed: int = 0
