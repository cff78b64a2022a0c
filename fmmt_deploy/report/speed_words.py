"""How fast a candidate is, in a sentence."""

from __future__ import annotations

from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Candidate, Facts
from fmmt_deploy.report.figures import ms
from fmmt_deploy.report.sections.contenders import contender, ratio_words

__all__ = ["speed_words"]


def speed_words(facts: Facts, candidate: Candidate) -> str:
    """The fastest way of the candidate in the latest benchmark, one utterance at a time, from files to labels."""
    if facts.bench is None:
        return "Speed was not measured."
    name = candidate.engine if candidate.precision == "fp32" else f"{candidate.engine}:{candidate.precision}"
    found = [
        (time, row, table["baseline"].text)
        for workload in facts.bench.document["workloads"]
        for table in (workload["files"]["single-stream"],)
        for row in table["rows"]
        if row["engine"].text == name and (time := _p90(row)) is not None
    ]
    if not found:
        return "Speed was measured of other engines only."
    time, row, baseline = min(found, key=lambda one: one[0])
    stale = " (stale)" if facts.bench.state == "stale" else ""
    invalid = " INVALID:" if row["valid"].flag is False else ""
    faster = f", {ratio_words(row['ratio'])} as fast as {baseline}" if row["ratio"] and baseline else ""
    faster += " (INVALID ratio)" if faster and row["ratio"]["valid"].flag is False else ""
    return f"Speed{stale}:{invalid} p90 of an utterance from files to label {ms(time)} ({contender(row)}){faster}."


def _p90(row: Document) -> float | None:
    return next((p["ms"].number for p in row["percentiles"] if p["percent"].count == 90), None)
