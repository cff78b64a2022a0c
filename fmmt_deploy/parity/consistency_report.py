"""The verdict of the self-consistency gate: rows for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite

from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity.metrics import TensorComparison
from fmmt_deploy.parity.report import badness, failure_text, finite_json, rounded_up
from fmmt_deploy.types import GraphName

__all__ = ["COLUMNS", "SCHEMA", "ConsistencyCheck", "ConsistencyReport", "Finding", "check_from_findings"]

SCHEMA = "fmmt.consistency/1"

COLUMNS = ("graph", "check", "compared", "worst at", "max abs", "allowed", "verdict")


@dataclass(frozen=True, slots=True)
class Finding:
    """One tensor of one row in two runs.

    Attributes:
        where: The sizes and the row, in words.
        tensor: How far the two are apart, and whether that is allowed.
    """

    where: str
    tensor: TensorComparison


@dataclass(frozen=True, slots=True)
class ConsistencyCheck:
    """One check of one graph.

    Attributes:
        graph: Which graph.
        name: Which check.
        compared: How many tensors were compared.
        worst: The one that failed worst or came nearest to its tolerance; None if nothing was compared.
    """

    graph: GraphName
    name: str
    compared: int
    worst: Finding | None

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it passed."""
        return self.worst is not None and self.worst.tensor.passed

    def __str__(self) -> str:
        return f"{self.graph}: {self.name}"


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """Engines against themselves.

    Attributes:
        engine: What was tested, for example `trt fp16`.
        checks: One entry for each check of each graph.
        deterministic: For each graph, whether the same inputs gave the same bits whenever they were given.
    """

    engine: str
    checks: tuple[ConsistencyCheck, ...]
    deterministic: Mapping[GraphName, bool]

    @property
    def passed(self) -> bool:
        """Whether there is a check and all of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[ConsistencyCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def raise_unless_passed(self) -> None:
        """Turns a negative verdict into an error that names graph, check, row, tensor and tolerance.

        Raises:
            ParityError: A check failed, or there was none.
        """
        if self.passed:
            return
        texts = [_text(check) for check in self.failed] or ["nothing was checked"]
        first = self.failed[0].worst if self.failed else None
        raise ParityError(
            f"{self.engine} does not agree with itself: {texts[0]}.",
            why=f"{len(texts)} checks failed." if len(texts) > 1 else "",
            fix="Do not use this engine: build it again, with another optimisation level, profile or TensorRT.",
            tensor=None if first is None else first.tensor.name,
        )

    def rows(self) -> list[tuple[object, ...]]:
        """The cells of a table with `COLUMNS`."""
        return [_cells(check) for check in self.checks]

    def summary(self) -> str:
        """The verdict, what failed, and which graphs are deterministic; a line each."""
        shaky = [graph for graph, same in self.deterministic.items() if not same]
        lines = [
            f"self-consistency of {self.engine}: {'passed' if self.passed else 'FAILED'}",
            f"not the same bits in every run: {', '.join(shaky)}" if shaky else "the same bits in every run",
        ]
        return "\n".join([*lines, *(f"failed: {_text(check)}" for check in self.failed)])

    def to_json(self) -> dict[str, object]:
        """Plain values; numbers that could not be computed are null."""
        return {
            "schema": SCHEMA,
            "engine": self.engine,
            "passed": self.passed,
            "deterministic": dict(self.deterministic),
            "checks": [
                {
                    "graph": check.graph,
                    "check": check.name,
                    "passed": check.passed,
                    "compared": check.compared,
                    "worst": None
                    if check.worst is None
                    else {"where": check.worst.where, "tensor": finite_json(asdict(check.worst.tensor))},
                }
                for check in self.checks
            ],
        }


def check_from_findings(graph: GraphName, name: str, findings: Iterable[Finding]) -> ConsistencyCheck:
    """Keeps the worst of all findings of a check; one that failed is worse than any that passed."""
    found = list(findings)
    return ConsistencyCheck(graph, name, len(found), max(found, key=_severity, default=None))


def _severity(finding: Finding) -> tuple[bool, float, float]:
    tensor = finding.tensor
    if not isfinite(tensor.max_abs):  # it did not run, or is not finite, or was only looked at for that
        return (not tensor.passed, 0.0 if tensor.passed else inf, 0.0)
    return (not tensor.passed, badness(tensor), tensor.max_abs)


def _text(check: ConsistencyCheck) -> str:
    if check.worst is None:
        return f"{check}: nothing was compared"
    return f"{check}, {check.worst.where}, {failure_text(check.worst.tensor)}"


def _cells(check: ConsistencyCheck) -> tuple[object, ...]:
    verdict = "passed" if check.passed else "FAILED"
    if check.worst is None:
        return (check.graph, check.name, 0, "-", "-", "-", verdict)
    tensor = check.worst.tensor
    max_abs = rounded_up(tensor.max_abs) if isfinite(tensor.max_abs) else "-"
    where = check.worst.where if tensor.max_abs > 0 or not check.passed else "-"
    return (check.graph, check.name, check.compared, where, max_abs, str(tensor.tolerance), verdict)
