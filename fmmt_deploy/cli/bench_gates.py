"""What a benchmark is held to, and what the command ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.benchmark.document import Bench
from fmmt_deploy.benchmark.regression import Regression, check_alike, regression
from fmmt_deploy.benchmark.saved_figures import Terms, saved_from_document
from fmmt_deploy.cli.output import Table, plain_values
from fmmt_deploy.errors import ArtefactError, FmmtError, SlowerError, UnstableError, UsageError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text

__all__ = ["Gates", "Outcome", "gates_from_options", "judged"]


DEFAULT_ALLOWED = 0.05
"""Where an earlier run is compared with and nothing is said of how much slower this one may be."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a run is held to.

    Attributes:
        min_speed_up: How many times as fast as the baseline the last engine must be; None for no such gate.
        earlier: An earlier run's document; None for nothing to compare with.
        allowed: As what share it may be slower than that; None to compare without a gate.
        allow_invalid: Whether figures may be INVALID.
    """

    min_speed_up: float | None
    earlier: Mapping[str, object] | None
    allowed: float | None
    allow_invalid: bool

    def check(self, planned: Terms) -> None:
        """Says before anything is measured whether a run can be compared with the earlier one.

        Raises:
            UsageError: It is of something else; see `check_alike`.
        """
        if self.earlier is not None:
            check_alike(saved_from_document(self.earlier, "The earlier report").terms, planned)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        document: What is shown with --json, and kept.
        verdict: `VALID`, `INVALID` or `SLOWER`.
        failure: What the command ends with; None where all is well.
        parts: What is shown beside the tables.
    """

    document: Mapping[str, object]
    verdict: str
    failure: FmmtError | None
    parts: Sequence[Table]


def gates_from_options(
    min_speed_up: float | None,
    baseline_report: Path | None,
    fail_on_regression: str | None,
    allow_invalid: bool,
    scenarios: Sequence[str],
) -> Gates:
    """Reads the options of the gates.

    Raises:
        UsageError: They make no sense together.
        ArtefactError: The earlier run's file is no such document.
    """
    if fail_on_regression is not None and baseline_report is None:
        raise UsageError(
            "--fail-on-regression compares with an earlier run.", fix="Add --baseline-report FILE, as --save wrote it."
        )
    if min_speed_up is not None and set(scenarios) == {"server"}:
        raise UsageError(
            "--min-speed-up is about ratios, which the server scenario has none of.",
            fix="Add --scenario single-stream or --scenario offline.",
        )
    earlier = None if baseline_report is None else read_report(baseline_report)
    allowed = None if fail_on_regression is None else share_from_text(fail_on_regression)
    return Gates(min_speed_up, earlier, allowed, allow_invalid)


def read_report(path: Path) -> dict[str, object]:
    """Reads what `--save` wrote.

    Raises:
        ArtefactError: It can't be read, or is something else.
    """
    try:
        document = json_object_from_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, JsonValueError) as error:
        raise ArtefactError(f"The report {path} can't be read.", why=str(error), path=path) from error
    saved_from_document(document, str(path))
    return document


def share_from_text(text: str) -> float:
    """Reads `5%` or `0.05`.

    Raises:
        UsageError: It is neither, or not from 0 to below 1.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UsageError(f"--fail-on-regression {text} is no share.", fix="Give for example 5% or 0.05.")
    return share


def judged(bench: Bench, gates: Gates) -> Outcome:
    """Holds a run to its gates.

    A figure that is not to be believed says neither that an engine is fast enough nor that it is not: so INVALID comes
    before SLOWER.

    Raises:
        UsageError: The earlier run is of something else; see `regression`.
    """
    document, compared = {name: plain_values(value) for name, value in bench.to_json().items()}, None
    if gates.earlier is not None:
        allowed = DEFAULT_ALLOWED if gates.allowed is None else gates.allowed
        compared = regression(gates.earlier, document, allowed, take_invalid=gates.allow_invalid)
    wrong = next(_failures(bench, gates, compared), None)
    verdict = "SLOWER" if isinstance(wrong, SlowerError) else bench.validity.word
    document["regression"] = None if compared is None else compared.to_json()
    return Outcome(document, verdict, wrong, () if compared is None else (_compared(compared),))


def _compared(found: Regression) -> Table:
    rows = [
        (c.row, c.measure, f"{c.times:.2f}×", _span(c.low, c.high), c.scaled_by, c.verdict) for c in found.changes
    ] + [(row, "", "", "", "", "missing") for row in found.missing]
    columns = ("beside the earlier run", "", "times as long", "between", "scaled by", "")
    return Table(f"Regression: {found.verdict}, {found.allowed:.0%} slower is allowed", columns, rows)


def _span(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def _failures(bench: Bench, gates: Gates, compared: Regression | None) -> Iterator[FmmtError]:
    if not bench.validity.valid and not gates.allow_invalid:
        yield UnstableError(
            "This run is INVALID.",
            why=bench.validity.reasons[0],
            fix="Close what else runs on this machine and measure again, or longer; --allow-invalid takes it as it is.",
        )
    if compared is not None and gates.allowed is not None and (problem := compared.problem()) is not None:
        yield problem
    if gates.min_speed_up is not None:
        yield from _too_slow(bench, gates.min_speed_up)


def _too_slow(bench: Bench, wanted: float) -> Iterator[SlowerError]:
    """Where the last engine, in the last scenario that has ratios, is not so many times as fast as the baseline."""
    for report in bench.workloads:
        last = [table.figures[-1] for table in report.files if table.scenario != "server"][-1]
        if last.ratio is None or last.ratio.median < wanted:
            found = "nothing to compare with" if last.ratio is None else f"{last.ratio.median:.2f} times"
            yield SlowerError(
                f"{last.engine} should be {wanted:g} times as fast as the baseline, found {found}.",
                why=f"{report.workload.source}, {last.result.scenario}",
                fix="See the share of the machine's rate for what is slow; run it on an idle machine.",
            )
