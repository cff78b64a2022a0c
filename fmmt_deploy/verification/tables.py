"""What a verification found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fmmt_deploy.benchmark.statistics import format_ms
from fmmt_deploy.benchmark.validity import Validity
from fmmt_deploy.cli.output import Table
from fmmt_deploy.verification.goals import Found, Goal, goals_of, reasons_of_row, shares_of_rates
from fmmt_deploy.verification.outcomes import Outcome
from fmmt_deploy.verification.settings import SCENARIOS, Settings, files_step

__all__ = ["tables_of"]

Row: TypeAlias = Mapping[str, Any]
Results: TypeAlias = Mapping[str, Mapping[str, Any]]

_TIMES = ", and × the published loop with 95 % intervals over turns"


def tables_of(settings: Settings, outcomes: Sequence[Outcome]) -> list[Table]:
    """The goals, what was measured of each engine, what of it is INVALID, and what is not done."""
    results: Results = {outcome.name: outcome.result for outcome in outcomes if outcome.state == "done"}
    goals = [
        (goal.what, _number(goal, goal.wanted), _number(goal, goal.found), goal.engine or "–", goal.verdict)
        for goal in goals_of(settings, outcomes)
    ]
    tables = [Table("goals", ("", "wanted", "found", "by", ""), goals)]
    if rows := [row for faces in settings.faces for row in _single_stream(results, faces)]:
        columns = ("faces", "engine", "p50 alone", "×", "", "p50 cached", "")
        tables.append(Table(f"files to labels, one after the other{_TIMES}", columns, rows))
    if rows := [row for faces in settings.faces for row in _offline(results, faces)]:
        tables.append(Table(f"files to labels, all at once{_TIMES}", ("faces", "engine", "utt/s", "×", ""), rows))
    if shares := _shares(results):
        tables.append(Table("best batches, share of the matrix rate", ("engine", "plm", "swin", ""), shares))
    if wrong := _grouped(_invalid(settings, results)):
        tables.append(Table("INVALID", ("why", "figures"), wrong))
    if undone := _grouped(_undone(outcomes)):
        tables.append(Table("not done", ("why", "what"), undone))
    return tables


def _single_stream(results: Results, faces: int) -> Iterator[tuple[object, ...]]:
    """An engine's figures without and with the dialogue cache side by side."""
    rows = _rows(results, files_step(faces, "single-stream"))
    cached = {row["engine"]: row for row in rows if row["way"] == "cached"}
    alone = {_name(row): row for row in rows if row["way"] != "cached"}
    for name in dict.fromkeys((*alone, *cached)):
        one, other = alone.get(name), cached.get(name)
        yield (faces, name, _p50(one), _ratio(one), _word(one), _p50(other), _word(other))


def _offline(results: Results, faces: int) -> Iterator[tuple[object, ...]]:
    for row in _rows(results, files_step(faces, "offline")):
        yield (faces, _name(row), f"{row['per_second']['median']:.1f}", _ratio(row), _word(row))


def _name(row: Row) -> str:
    return f"{row['engine']}, published" if row["way"] == "published" else str(row["engine"])


def _word(row: Row | None) -> str:
    return "" if row is None else Validity(reasons_of_row(row)).word


def _shares(results: Results) -> list[tuple[str, ...]]:
    shares = shares_of_rates(results)
    word = Validity(next((found.reasons for found in shares.values()), ())).word
    names = dict.fromkeys(engine for engine, _ in shares)
    return [(name, *(_share(shares.get((name, graph))) for graph in ("plm", "swin")), word) for name in names]


def _invalid(settings: Settings, results: Results) -> Iterator[tuple[str, str]]:
    """Reasons, and what each is about: a whole table where it holds for all of it."""
    for step in (files_step(faces, scenario) for faces in settings.faces for scenario in SCENARIOS):
        of_table = results.get(step, {}).get("validity", {}).get("reasons", ())
        yield from ((reason, f"all of {step}") for reason in of_table)
        for row in _rows(results, step):
            own = (reason for reason in reasons_of_row(row) if reason not in of_table)
            yield from ((reason, f"{row['engine']} {row['way']}, {step}") for reason in own)
    yield from ((reason, "all stages") for reason in results.get("stages", {}).get("validity", {}).get("reasons", ()))


def _undone(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str]]:
    """Steps, and engines that a step did without; steps that only waited for one of them are left to the record."""
    for outcome in outcomes:
        if outcome.state != "done" and not (outcome.state == "skipped" and "is not done" in outcome.why):
            yield f"{outcome.state}: {outcome.why}", outcome.name
        dropped = outcome.result.get("dropped", {})
        assert isinstance(dropped, Mapping)
        yield from ((f"dropped: {why}", f"{who} ({outcome.name})") for who, why in dropped.items())


def _grouped(pairs: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    by_reason: dict[str, list[str]] = {}
    for why, what in pairs:
        by_reason.setdefault(why, []).append(what)
    return [(why, "; ".join(found)) for why, found in by_reason.items()]


def _rows(results: Results, step: str) -> Sequence[Row]:
    rows: Sequence[Row] = results.get(step, {}).get("rows", ())
    return rows


def _p50(row: Row | None) -> str:
    return "–" if row is None else format_ms(row["latency"]["p50_ms"])


def _ratio(row: Row | None) -> str:
    """The median with its interval, where there are enough turns for one."""
    if row is None or row["ratio"] is None:
        return "–"
    median, low, high = (row["ratio"][name] for name in ("median", "low", "high"))
    return f"{median:.1f}" if low is None else f"{median:.1f} ({low:.1f}–{high:.1f})"


def _share(found: Found | None) -> str:
    return "–" if found is None else f"{found.value:.0%}"


def _number(goal: Goal, value: float | None) -> str:
    """A share where one is wanted, else how many times as fast."""
    if value is None:
        return "–"
    return f"{value:.0%}" if goal.wanted < 1 else f"{value:.1f}×"
