"""What settings may be: the range of every number, and which of them make no sense together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fmmt_deploy.architecture import FusionSizes, size_problem
from fmmt_deploy.json_values import JsonValueError
from fmmt_deploy.training.settings import ModelSettings, Settings

__all__ = ["RANGES", "Range", "check_settings"]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that are allowed.

    Attributes:
        low: The least.
        high: The largest; infinity where there is none.
        above: Whether `low` itself is excluded.
        below: Whether `high` itself is excluded.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        least = number > self.low if self.above else number >= self.low
        return least and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        if self.high == math.inf:
            return low
        high = f"{self.high:.0f}" if self.high >= 1 else f"{self.high:g}"
        if self.below:
            return f"{low} and below {high}"
        return f"{low} and at most {high}" if self.above else f"{self.low:g} to {high}"


_COUNT, _POSITIVE, _ANY_COUNT, _SHARE = Range(1), Range(0, above=True), Range(0), Range(0, 1)
_RATE, _DROP = Range(0, 1, above=True), Range(0, 1, below=True)

RANGES: Mapping[str, Range] = {
    "model.hidden_size": Range(4),
    "model.heads": _COUNT,
    "model.text_length": Range(1, 512),
    "model.audio_layers": _COUNT,
    "model.vision_layers": _COUNT,
    "model.crossmodal_layers": _COUNT,
    "model.tau": Range(0, 1e6, above=True),
    "model.threshold": _SHARE,
    "model.plm_dropout": _DROP,
    "model.dropout": _DROP,
    "model.drop_path": _DROP,
    "faces.epochs": _ANY_COUNT,
    "faces.batch_size": Range(2),  # BatchNorm can't train on one face
    "faces.learning_rate": _RATE,
    "faces.weight_decay": _DROP,
    "faces.warm_up": _SHARE,
    "faces.clip": _POSITIVE,
    "faces.grey": _SHARE,
    "faces.jitter": _SHARE,
    "faces.jitter_strength": _SHARE,
    "faces.blur": _SHARE,
    "faces.erase": _SHARE,
    "faces.limit": _ANY_COUNT,
    "target.epochs": Range(1, 100_000),  # whose steps are counted before the first
    "target.batch_size": _COUNT,
    "target.accumulate": _COUNT,
    "target.learning_rate": _RATE,
    "target.plm_learning_rate": _SHARE,
    "target.weight_decay": _DROP,
    "target.warm_up": _SHARE,
    "target.clip": _POSITIVE,
    "target.jitter": _SHARE,
    "target.faces_learning_rate": _RATE,
    "target.patience": _ANY_COUNT,
    "run.seed": Range(0, 2**53),
    "run.workers": Range(0, 256),
    "run.face_cache_gib": _ANY_COUNT,
    "run.save_minutes": _ANY_COUNT,
}
"""Of every number in `Settings` (a test holds that), but for the Swin's sizes, which are checked beside each other."""


def check_settings(settings: Settings) -> None:
    """Refuses settings that no training can have.

    Raises:
        JsonValueError: A number is out of its range, or settings contradict each other; it names the setting.
    """
    for name, allowed in RANGES.items():
        table, _, key = name.partition(".")
        number = getattr(getattr(settings, table), key)
        if number not in allowed:
            raise JsonValueError(name, str(allowed), f"{number:g}")
    _check_sizes(settings.model)
    _check_together(settings)


def _check_sizes(model: ModelSettings) -> None:
    encoders = FusionSizes(
        hidden_size=model.hidden_size,
        heads=model.heads,
        text_length=model.text_length,
        audio_length=1,
        audio_size=1,
        audio_layers=model.audio_layers,
        vision_length=1,
        vision_size=1,
        vision_layers=model.vision_layers,
        crossmodal_layers=model.crossmodal_layers,
    )
    for table, sizes in (("model", encoders), ("model.swin", model.swin)):
        if (problem := size_problem(sizes)) is not None:
            raise JsonValueError(f"{table}.{problem.field}", problem.expected, problem.found)


def _check_together(settings: Settings) -> None:
    model, target = settings.model, settings.target
    if model.modality == "T+A+V":
        return
    reads_no = "'V', and a vision-only model has no"
    if settings.faces.epochs:
        raise JsonValueError("faces.epochs", f"0 where model.modality is {reads_no} Swin", str(settings.faces.epochs))
    if model.context == "past":
        raise JsonValueError("model.context", f"'dialogue' where model.modality is {reads_no} words", "'past'")
    if target.moves_faces:
        raise JsonValueError("target.moves_faces", f"false where model.modality is {reads_no} Swin", "true")
    if target.plm_learning_rate:
        raise JsonValueError(
            "target.plm_learning_rate",
            f"0 where model.modality is {reads_no} language model",
            f"{target.plm_learning_rate:g}",
        )
