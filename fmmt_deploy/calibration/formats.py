"""What each precision means inside a graph: the type around the products, and that of their operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fmmt_deploy.bundle.manifest import Precision

__all__ = ["EIGHT_BITS", "FORMATS", "LARGEST", "Around", "EightBits", "Format", "eight_bits_of"]

Around: TypeAlias = Literal["fp32", "fp16", "bf16"]
EightBits: TypeAlias = Literal["int8", "fp8"]


@dataclass(frozen=True, slots=True)
class Format:
    """What a precision means inside a graph.

    Attributes:
        around: The type of whatever is low and not an operand of a quantised product.
        operands: The type of the operands of products with weights; None if that is `around`, too.
    """

    around: Around
    operands: EightBits | None = None


FORMATS: Mapping[Precision, Format] = {
    "fp32": Format("fp32"),
    "fp16": Format("fp16"),
    "bf16": Format("bf16"),
    "int8-fp32": Format("fp32", "int8"),
    "int8": Format("fp16", "int8"),
    "fp8": Format("fp16", "fp8"),
}

LARGEST: Mapping[EightBits, float] = {"int8": 127.0, "fp8": 448.0}
"""The largest quantised number that scales aim at: symmetric int8 leaves −128 out; E4M3 ends at 448."""

EIGHT_BITS: tuple[Precision, ...] = tuple(precision for precision, form in FORMATS.items() if form.operands is not None)
"""The precisions that need calibration."""


def eight_bits_of(precision: Precision) -> EightBits:
    """The type of the operands of a precision that needs calibration.

    Raises:
        ValueError: It needs none.
    """
    operands = FORMATS[precision].operands
    if operands is None:
        raise ValueError(f"{precision} has no operands of 8 bits")
    return operands
