"""`--require fp16>=0.95`: how much of a graph's matrix products must be in a precision, or the command fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.errors import PrecisionError, UsageError

__all__ = ["Requirement", "check_requirement", "requirement_from_option"]

_OPTION = re.compile(r"\s*([a-z0-9-]+)\s*>=\s*([0-9]*\.?[0-9]+)\s*(%?)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """At least this share of the FLOPs of matrix products is in this precision.

    Attributes:
        precision: Which one.
        min_share: From 0 to 1.
    """

    precision: Precision
    min_share: float

    def __str__(self) -> str:
        return f"{self.precision}>={self.min_share:g}"


def requirement_from_option(text: str) -> Requirement:
    """Reads `fp16>=0.95` or `fp16>=95%`.

    Raises:
        UsageError: It is not a precision, `>=` and a share from 0 to 1.
    """
    match = _OPTION.fullmatch(text)
    precision = next((p for p in PRECISIONS if match is not None and p == match[1]), None)
    share = float(match[2]) / (100 if match[3] else 1) if match is not None else -1.0
    if precision is None or not 0 <= share <= 1:
        raise UsageError(
            f"{text!r} is not a requirement.",
            why=f"It should be one of {', '.join(PRECISIONS)}, then >=, then a share from 0 to 1.",
            fix="For example: --require 'fp16>=0.95' (quoted, or the shell takes > for a file).",
        )
    return Requirement(precision, share)


def check_requirement(requirement: Requirement, shares: Mapping[Precision, float], what: str) -> None:
    """Compares what was realised with what was required.

    Args:
        requirement: What was asked for.
        shares: Share of the FLOPs of matrix products in each precision; absent is 0.
        what: Whose shares they are, for the message: `swin fp16`, `the engine of plm`.

    Raises:
        PrecisionError: The share is lower, or not a number.
    """
    share = shares.get(requirement.precision, 0.0)
    if share >= requirement.min_share:
        return
    found = ", ".join(f"{precision} {value:.2%}" for precision, value in shares.items()) or "no matrix products"
    raise PrecisionError(
        f"{what} has {share:.2%} of its matrix-product FLOPs in {requirement.precision}; "
        f"{requirement.min_share:.2%} were required.",
        why=f"Found: {found}.",
        fix="Look at what was kept back and why, or require less.",
    )
