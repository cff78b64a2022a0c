"""The verdict over all stages of a model, as a table for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity.decisions import DecisionComparison
from fmmt_deploy.parity.metrics import TensorComparison

__all__ = ["SCHEMA", "ParityReport", "StageParity", "badness", "failure_text", "finite_json", "rounded_up"]

SCHEMA = "fmmt.parity/1"
WIDTH = 100
COLUMNS = {
    "tensor": 24,
    "max abs": 8,
    "mean abs": 8,
    "rel norm": 8,
    "cosine": 9,
    "allowed": 14,
    "needed": 8,
    "verdict": 7,
}
"""Heading and width; two blanks lie between them."""


@dataclass(frozen=True, slots=True)
class StageParity:
    """One stage: a graph by itself, or the model end to end, where `decisions` says if the answers are the same."""

    name: str
    tensors: tuple[TensorComparison, ...]
    decisions: DecisionComparison | None = None

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it passed."""
        return (
            bool(self.tensors)
            and all(tensor.passed for tensor in self.tensors)
            and (self.decisions is None or self.decisions.passed)
        )


@dataclass(frozen=True, slots=True)
class ParityReport:
    """An engine against the reference.

    Attributes:
        engine: What was tested, for example `ort fp32`.
        reference: What it was held against, for example `torch fp32`.
        stages: One entry a stage.
    """

    engine: str
    reference: str
    stages: tuple[StageParity, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a stage and all of them passed."""
        return bool(self.stages) and all(stage.passed for stage in self.stages)

    @property
    def worst(self) -> tuple[str, TensorComparison] | None:
        """Stage and tensor that failed worst or, if none did, came nearest to its tolerance; None without tensors."""
        tensors = [(stage.name, tensor) for stage in self.stages for tensor in stage.tensors]
        return max(tensors, key=lambda named: badness(named[1]), default=None)

    def raise_unless_passed(self) -> None:
        """Turns a negative verdict into an error that names the worst tensor.

        Raises:
            ParityError: A stage failed, or nothing was compared.
        """
        if self.passed:
            return
        failures = self._failures() or ["nothing was compared"]
        worst = self.worst
        raise ParityError(
            f"{self.engine} does not compute what {self.reference} computes: {failures[0]}.",
            why=f"{len(failures)} checks failed." if len(failures) > 1 else "",
            fix="Run 'fmmt parity' for all stages; the first stage that fails is the one to look at.",
            tensor=None if worst is None else worst[1].name,
        )

    def to_json(self) -> dict[str, object]:
        """Plain values; numbers that could not be computed are null."""
        return {
            "schema": SCHEMA,
            "engine": self.engine,
            "reference": self.reference,
            "passed": self.passed,
            "worst": None if self.worst is None else {"stage": self.worst[0], "tensor": self.worst[1].name},
            "stages": [
                {
                    "name": stage.name,
                    "passed": stage.passed,
                    "tensors": [finite_json(asdict(tensor)) | {"passed": tensor.passed} for tensor in stage.tensors],
                    "decisions": None
                    if stage.decisions is None
                    else asdict(stage.decisions) | {"passed": stage.decisions.passed},
                }
                for stage in self.stages
            ],
        }

    def table(self) -> str:
        """A plain table, at most 100 columns wide; failures in words below it."""
        lines = [_row(list(COLUMNS))]
        lines += [_row(_cells(stage.name, tensor)) for stage in self.stages for tensor in stage.tensors]
        lines += [_decision_line(stage) for stage in self.stages if stage.decisions is not None]
        lines.append(f"parity of {self.engine} with {self.reference}: {'passed' if self.passed else 'FAILED'}")
        lines += [f"failed: {failure}" for failure in self._failures()]
        return "\n".join(part for line in lines for part in textwrap.wrap(line, WIDTH))

    def _failures(self) -> list[str]:
        found = []
        for stage in self.stages:
            found += [f"{stage.name}/{failure_text(tensor)}" for tensor in stage.tensors if not tensor.passed]
            found += [f"{stage.name}: {failure}" for failure in (stage.decisions.failures if stage.decisions else ())]
            found += [] if stage.tensors else [f"{stage.name}: nothing was compared"]
        return found


def badness(tensor: TensorComparison) -> float:
    """Above 1 where a tensor failed: how many times its tolerance it needs; infinite where it can't be compared."""
    if not isfinite(tensor.needed_atol):
        return inf
    if tensor.tolerance.atol:
        return tensor.needed_atol / tensor.tolerance.atol
    return inf if tensor.needed_atol else 0.0


def failure_text(tensor: TensorComparison) -> str:
    """Name, what is wrong, the worst element and the tolerance that would have passed."""
    parts = [f"{tensor.name}: {tensor.failure}"]
    if tensor.elements:
        place, expected, found = list(tensor.worst_index), tensor.worst_reference, tensor.worst_actual
        parts.append(f"worst at {place}: expected {expected:.7g}, found {found:.7g}")
    if isfinite(tensor.needed_atol):
        parts.append(f"atol {rounded_up(tensor.needed_atol)} would have passed")
    return "; ".join(parts)


def rounded_up(value: float) -> str:
    """Two digits, never less than the value, so that the number shown would really have passed."""
    text = f"{value:.1e}"
    last_digit = float("1e" + text.split("e")[1]) / 10
    return text if float(text) >= value else f"{float(text) + last_digit:.1e}"


def _cells(stage: str, tensor: TensorComparison) -> list[str]:
    numbers = (tensor.max_abs, tensor.mean_abs, tensor.relative_norm)
    cosine = f"{tensor.cosine:.6f}" if isfinite(tensor.cosine) else "-"
    needed = rounded_up(tensor.needed_atol) if isfinite(tensor.needed_atol) else "-"
    verdict = "passed" if tensor.passed else "FAILED"
    name = f"{stage}/{tensor.name}"
    return [name, *(_short(number) for number in numbers), cosine, str(tensor.tolerance), needed, verdict]


def _short(number: float) -> str:
    return f"{number:.1e}" if isfinite(number) else "-"


def _row(cells: list[str]) -> str:
    name, *others = [
        cell if len(cell) <= width else cell[: width - 1] + "…"
        for cell, width in zip(cells, COLUMNS.values(), strict=True)
    ]
    widths = list(COLUMNS.values())
    return "  ".join(
        [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
    )


def _decision_line(stage: StageParity) -> str:
    decisions = stage.decisions
    if decisions is None or not decisions.utterances:
        return f"{stage.name}: decisions could not be compared"
    total = decisions.utterances
    agreed = total - len(decisions.changed) - len(decisions.ties)
    kept = "" if decisions.kept_changed is None else f"; kept faces {total - len(decisions.kept_changed)} of {total}"
    return f"{stage.name}: decisions agree {agreed} of {total}, ties turned {len(decisions.ties)}{kept}"


def finite_json(value: Any) -> Any:
    """The same, with None for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value
