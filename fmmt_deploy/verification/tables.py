"""What a verification found, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmmt_deploy.benchmark.statistics import format_ms
from fmmt_deploy.cli.output import Table
from fmmt_deploy.verification.goals import Goal, goals_of, shares_of_rates
from fmmt_deploy.verification.outcomes import Outcome
from fmmt_deploy.verification.settings import Settings

__all__ = ["tables_of"]

Results = Mapping[str, Mapping[str, Any]]


def tables_of(settings: Settings, outcomes: Sequence[Outcome]) -> list[Table]:
    """The goals, what was measured of each engine, and what is not done."""
    results: Results = {outcome.name: outcome.result for outcome in outcomes if outcome.state == "done"}
    goals = [
        (goal.what, _number(goal, goal.wanted), _number(goal, goal.found), goal.engine or "–", goal.verdict)
        for goal in goals_of(settings, outcomes)
    ]
    tables = [Table("goals", ("", "wanted", "found", "by", ""), goals)]
    rows = [row for faces in settings.faces for row in _ways_of_engines(results, faces)]
    if rows:
        columns = ("faces", "engine", "p50 alone", "p50 cached", "utt/s")
        tables.append(Table("latency, and throughput of many dialogues", columns, rows))
    if shares := _shares(results):
        tables.append(Table("best batches, share of the matrix rate", ("engine", "plm", "swin"), shares))
    if undone := _undone(outcomes):
        tables.append(Table("not done", ("why", "steps"), undone))
    return tables


def _ways_of_engines(results: Results, faces: int) -> list[tuple[object, ...]]:
    offline = results.get(f"{faces} faces", {}).get("offline_utterances_per_s", {})
    by_engine: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in _ways(results, faces):
        name = f"{row['engine']}, published" if row["way"] == "published" else row["engine"]
        by_engine.setdefault(name, {})[row["way"]] = row
    rows: list[tuple[object, ...]] = []
    for name, ways in by_engine.items():
        published = ways.get("published")
        rate = offline.get(name) if published is None else published["per_second"]
        alone, cached = _p50(published or ways.get("alone")), _p50(ways.get("cached"))
        rows.append((faces, name, alone, cached, "–" if rate is None else f"{rate:.1f}"))
    return rows


def _shares(results: Results) -> list[tuple[str, ...]]:
    shares = shares_of_rates(results)
    names = dict.fromkeys(engine for engine, _ in shares)
    return [(name, *(_share(shares.get((name, graph))) for graph in ("plm", "swin"))) for name in names]


def _ways(results: Results, faces: int) -> Sequence[Mapping[str, Any]]:
    report = results.get(f"{faces} faces", {}).get("report") or {}
    ways: Sequence[Mapping[str, Any]] = report.get("ways", ())
    return ways


def _p50(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else format_ms(row["latency"]["p50_ms"])


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _undone(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Steps by reason; those that only waited for one of them are left out, the record has them."""
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.state != "done" and not (outcome.state == "skipped" and "is not done" in outcome.why):
            reasons.setdefault(f"{outcome.state}: {outcome.why}", []).append(outcome.name)
    return [(why, ", ".join(names)) for why, names in reasons.items()]


def _number(goal: Goal, value: float | None) -> str:
    """A share where one is wanted, else how many times as fast."""
    if value is None:
        return "–"
    return f"{value:.0%}" if goal.wanted < 1 else f"{value:.1f}×"
