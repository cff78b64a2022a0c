"""Checks inputs before any backend sees them, so that every engine refuses the same things with the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmmt_deploy.engines.protocol import Value
from fmmt_deploy.errors import UsageError

__all__ = ["RANKS", "check_inputs"]

RANKS: Mapping[str, int] = {
    "faces": 4,
    "input_ids": 2,
    "attention_mask": 2,
    "token_states": 3,
    "text_row": 1,
    "text_start": 1,
    "text_length": 1,
    "audio": 3,
    "audio_length": 1,
    "vision": 3,
    "vision_mask": 2,
    "face_logits": 2,
    "face_index": 2,
    "noise": 3,
}
"""How many axes each input has, in whichever graph it is."""


def check_inputs(graph: str, expected: Mapping[str, np.dtype[Any]], inputs: Mapping[str, Value]) -> None:
    """Raises UsageError where an input is missing, unknown, empty, or of another type or rank."""
    if inputs.keys() != expected.keys():
        missing, unknown = sorted(expected.keys() - inputs.keys()), sorted(inputs.keys() - expected.keys())
        raise UsageError(f"{graph} takes {sorted(expected)}; missing {missing}, unknown {unknown}.")
    for name, value in inputs.items():
        if value.dtype != expected[name]:
            raise UsageError(f"{graph} takes {name} as {expected[name]}, not {value.dtype}.")
        if len(value.shape) != RANKS[name]:
            raise UsageError(f"{graph} takes {name} with {RANKS[name]} axes, found shape {value.shape}.")
        if 0 in value.shape:
            raise UsageError(f"{graph} takes no empty {name}, found shape {value.shape}.")
