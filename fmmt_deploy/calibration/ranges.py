"""The range audit: how large and how small each tensor gets on real data, against what its new type can hold.

The judge is the float32 graph, interpreted by the emulated engine, whose every tensor is seen as it is made: what a
type would do to it is plain from its magnitudes, before any GPU is there. Cases stream through; a few numbers a tensor
are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.decisions import ASKED
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.errors import DataError, PrecisionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JUDGE", "LIMITS", "Limits", "RangeAudit", "TensorRange", "check_ranges"]

JUDGE = "the float32 graph, interpreted with PyTorch on the CPU (engine 'emulated')"
"""What the magnitudes were measured on."""

Verdict = Literal["ok", "near the edge", "OVERFLOWS", "float32", "asked for"]
"""`float32`: not held in the low type; `asked for`: neither, and because it was asked for."""

_EDGE = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What a type can hold: its largest number, its smallest normal one, and its smallest one."""

    largest: float
    smallest_normal: float
    smallest: float


LIMITS: Mapping[Precision, Limits] = {
    "fp16": Limits(65504.0, 2.0**-14, 2.0**-24),
    "bf16": Limits((2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133),
}
"""IEEE 754 binary16, and bfloat16 with its subnormals."""


@dataclass(frozen=True, slots=True)
class TensorRange:
    """One tensor's magnitudes over all cases.

    Attributes:
        tensor: Its name in the float32 graph.
        node: Who makes it; empty for an input.
        held: The types that the typed graph holds it in.
        elements: How many numbers were seen.
        largest: Magnitude.
        smallest: Magnitude of what is not zero; infinite if all is.
        below_normal: Share of the numbers that are not zero but below the type's smallest normal number.
        below_smallest: Share of those below its smallest number, which may become zero.
        verdict: See `Verdict`.
    """

    tensor: str
    node: str
    held: tuple[Precision, ...]
    elements: int
    largest: float
    smallest: float
    below_normal: float
    below_smallest: float
    verdict: Verdict


@dataclass(slots=True)
class _Seen:
    elements: int = 0
    largest: float = 0.0
    smallest: float = math.inf
    below_normal: int = 0
    below_smallest: int = 0


class RangeAudit:
    """Collects the magnitudes of a graph's tensors; `observe` goes to the emulated engine.

    Args:
        typed: The typed graph whose float32 form is run.
    """

    def __init__(self, typed: Draft) -> None:
        self._typed, self._limits = typed, LIMITS[typed.around]
        self._seen: dict[str, _Seen] = {}
        self._inputs = [value.name for value in typed.model.graph.input]

    def begin(self, inputs: Mapping[str, object]) -> None:
        """Nothing depends on the case."""

    def observe(self, name: str, tensor: Tensor) -> None:
        """Takes one tensor of one case into account.

        Raises:
            DataError: An input of the graph is not finite.
            PrecisionError: The float32 graph itself computes something that is not finite.
        """
        if not tensor.is_floating_point() or not tensor.numel():
            return
        magnitudes = tensor.abs()
        seen, largest = self._seen.setdefault(name, _Seen()), float(magnitudes.max())
        if not math.isfinite(largest):
            raise self._not_finite(name)
        present = magnitudes[magnitudes > 0]
        seen.elements += tensor.numel()
        seen.largest = max(seen.largest, largest)
        if present.numel():
            seen.smallest = min(seen.smallest, float(present.min()))
            seen.below_normal += int((present < self._limits.smallest_normal).sum())
            seen.below_smallest += int((present < self._limits.smallest).sum())

    def ranges(self) -> tuple[TensorRange, ...]:
        """What was seen, in the order of the graph."""
        makers = {node.output[0]: node.name for node in self._typed.model.graph.node}
        asked = {d.node for d in self._typed.decisions if d.reason == ASKED}
        order = [*self._inputs, *makers]
        return tuple(self._range(n, makers.get(n, ""), self._seen[n], asked) for n in order if n in self._seen)

    def _range(self, name: str, node: str, seen: _Seen, asked: set[str]) -> TensorRange:
        held = (self._typed.held or {}).get(name, frozenset())
        low = self._typed.around in held
        verdict: Verdict = "float32" if node not in asked else "asked for"
        if low:
            limit = self._limits.largest
            verdict = "OVERFLOWS" if seen.largest > limit else "near the edge" if seen.largest > limit / _EDGE else "ok"
        return TensorRange(
            name,
            node,
            tuple(sorted(held)),
            seen.elements,
            seen.largest,
            seen.smallest,
            seen.below_normal / seen.elements,
            seen.below_smallest / seen.elements,
            verdict,
        )

    def _not_finite(self, name: str) -> DataError | PrecisionError:
        graph = self._typed.graph
        if name in self._inputs:
            return DataError(
                f"The input {name} of {graph} has values that are not finite.",
                why="A range can't be told from NaN or infinity.",
                fix="Repair the data, or audit on others.",
                tensor=name,
            )
        return PrecisionError(
            f"{graph} computes values that are not finite in float32 already: {name}.",
            why="Lower precision can't make that better.",
            fix="Check the checkpoint it was exported from, and the data.",
            tensor=name,
        )


def check_ranges(ranges: Sequence[TensorRange], what: str) -> None:
    """Refuses a typed graph that would overflow on the audit's data.

    Args:
        ranges: Of one graph.
        what: Which: `swin fp16`.

    Raises:
        PrecisionError: A tensor overflows, with its name and its node's.
    """
    overflowing = [found for found in ranges if found.verdict == "OVERFLOWS"]
    if not overflowing:
        return
    first, others = overflowing[0], len(overflowing) - 1
    also = f" (and {others} more)" if others else ""
    where = f"node {first.node!r}" if first.node else "an input"
    raise PrecisionError(
        f"{what} overflows: {first.tensor} of {where} reaches {first.largest:.6g}{also}.",
        why=f"Seen in {JUDGE}.",
        fix=f"Keep it in float32 with --keep-float32 '{first.node or '*'}' "
        "(and what its value flows through), or cast to bf16.",
        tensor=first.tensor,
    )
