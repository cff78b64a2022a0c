"""Why a benchmark is invalid, and which of its rows."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.benchmark.validity import rows_by_reason
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.sections.contenders import contender

__all__ = ["reason_lines"]

_BOUNDARIES = {"device": "compute alone", "engine": "engine calls"}


def reason_lines(document: Document) -> tuple[str, ...]:
    """Every reason once, with the tables or rows that it is of: `it drifted (offline: ort, no cache, batched)`."""
    whose = rows_by_reason(_rows(document))
    reasons = dict.fromkeys((*document["reasons"].texts, *whose))
    return tuple(f"{reason} ({'; '.join(whose[reason])})" if reason in whose else reason for reason in reasons)


def _rows(document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Tables and rows, by name, with their own reasons."""
    for workload in document["workloads"]:
        of = f" of {workload['workload']['source'].text}" if len(document["workloads"]) > 1 else ""
        for boundary, name in _BOUNDARIES.items():
            yield from _table(name + of, workload[boundary])
        for scenario, table in workload["files"].members():
            yield from _table(scenario.replace("-", " ") + of, table)
    yield from _table("cold start", document["cold_start"])


def _table(name: str, table: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A row says its table's reasons as well, which are named once."""
    whole = table["validity"]["reasons"].texts
    yield name, whole
    for row in table["rows"]:
        part = f", {row['part'].text}" if row["part"].text else ""
        reasons = (*row["reasons"].texts, *row["ratio"]["reasons"].texts)
        yield f"{name}: {contender(row)}{part}", tuple(reason for reason in reasons if reason not in whole)
