"""Checks inputs before any backend sees them, so that every engine refuses the same things with the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.errors import UsageError

__all__ = ["check_inputs"]


def check_inputs(graph: str, expected: Mapping[str, np.dtype[Any]], inputs: Mapping[str, Array]) -> None:
    """Raises UsageError where an input is missing, unknown, empty, or of another type."""
    if inputs.keys() != expected.keys():
        missing, unknown = sorted(expected.keys() - inputs.keys()), sorted(inputs.keys() - expected.keys())
        raise UsageError(f"{graph} takes {sorted(expected)}; missing {missing}, unknown {unknown}.")
    for name, array in inputs.items():
        if array.dtype != expected[name]:
            raise UsageError(f"{graph} takes {name} as {expected[name]}, not {array.dtype}.")
        if array.size == 0:
            raise UsageError(f"{graph} takes no empty {name}, found shape {array.shape}.")
