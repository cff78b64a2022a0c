"""The deployment card: what a paper or a review needs of a report, in Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from fmmt_deploy.foreign_text import harmless, one_line
from fmmt_deploy.report.blocks import Table
from fmmt_deploy.report.facts import Candidate, Facts
from fmmt_deploy.report.figures import NONE, counted
from fmmt_deploy.report.finding import damage_words, finding_from_candidate
from fmmt_deploy.report.modes import data_words, judged_mode
from fmmt_deploy.report.sections.decisions import classes_table
from fmmt_deploy.report.sections.legal import LICENCE_HEADS, LICENCES, NOTICE
from fmmt_deploy.report.sections.origins import hashes_table, machines, tools_table
from fmmt_deploy.report.sections.reasons import reason_lines
from fmmt_deploy.report.sections.speed import SCENARIOS, scenario_table
from fmmt_deploy.report.sections.stages import tensors_table

__all__ = ["card_from_facts", "markdown_from_table"]

_REASONS = 3
"""The most reasons against a benchmark that are named."""

_ESCAPED = re.compile(r"([\\`*_|<>\[\]#&~$])")
_LIST_MARK = re.compile(r"^(\d*)([-+.)])(?= |$|--)")
"""What would make a list, or a rule, of the text behind it."""


def card_from_facts(facts: Facts, now: datetime | None = None) -> str:
    """The card's text.

    Args:
        facts: What is known.
        now: The day it is written; default today.
    """
    day = (now or datetime.now(UTC)).date().isoformat()
    parts = [
        f"# Deployment card: {_plain(facts.name)}",
        f"Written {day} by `fmmt report` from {counted(len(facts.receipts), 'receipt')}. F1 in points (hundredths).",
        *_verdicts(facts),
        *(part for candidate in facts.candidates for part in _candidate(candidate)),
        *_speed(facts),
        *_origins(facts),
        "## Licences and legal notice",
        markdown_from_table(Table(LICENCE_HEADS, LICENCES)),
        *NOTICE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_from_table(table: Table) -> str:
    """A table, with what Markdown would take for its own escaped, its caption above."""
    heads = [name for name, _ in table.heads]
    rule = ["---:" if kind == "n" else "---" for _, kind in table.heads]
    body = [[_plain(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(line)} |" for line in (heads, rule, *body)]
    return "\n".join([*([f"{_words(table.caption)}:", ""] if table.caption else []), *lines])


def _verdicts(facts: Facts) -> Iterator[str]:
    yield "## Verdict"
    if facts.damaged:
        yield f"**✗ Damaged. {damage_words(facts)}.**"
        yield "\n".join(f"* {_plain(f'{kept.path} {kept.problem}')}" for kept in facts.damaged)
    if not facts.candidates:
        yield "No engine was judged."
    for candidate in facts.candidates:
        found = finding_from_candidate(facts, candidate)
        yield f"**{found.mark} {_plain(found.title)}**"
        lines = (*found.problems, *found.evidence, *found.remarks, *(f"Missing: {what}" for what in found.missing))
        yield "\n".join(f"* {_words(line)}" for line in lines)


def _candidate(candidate: Candidate) -> Iterator[str]:
    yield f"## {_plain(candidate.label)}"
    for evidence in (*candidate.f1, *candidate.parity):
        document = evidence.document
        of = _words(data_words(evidence))
        stale = f" Stale: {_plain(evidence.why)}." if evidence.state == "stale" else ""
        if evidence in candidate.f1:
            yield f"F1 on {of}.{stale}"
            yield markdown_from_table(classes_table(judged_mode(document)["equivalence"]))
        else:
            yield f"Parity on {of}.{stale}"
            yield markdown_from_table(tensors_table(document))
    if not candidate.f1:
        yield "F1 was not judged: run `fmmt eval`."
    if not candidate.parity:
        yield "Parity was not judged: run `fmmt parity`."


def _speed(facts: Facts) -> Iterator[str]:
    yield "## Speed"
    if facts.bench is None:
        yield "Not measured: run `fmmt bench`."
        return
    document = facts.bench.document
    valid = "VALID" if document["valid"].flag else "INVALID"
    yield f"{valid}. From files to labels."
    yield "\n".join(_reasons(reason_lines(document)))
    for workload in document["workloads"]:
        yield f"Workload: {_words(workload['workload']['source'].text)}."
        for name, title in SCENARIOS.items():
            if workload["files"][name]:
                yield f"{title}."
                yield markdown_from_table(scenario_table(name, workload["files"][name]))


def _reasons(reasons: Sequence[str]) -> Iterator[str]:
    yield from (f"* INVALID: {_words(reason)}" for reason in reasons[:_REASONS])
    if (more := len(reasons) - _REASONS) > 0:
        yield f"* {counted(more, 'reason')} more: see the page."


def _origins(facts: Facts) -> Iterator[str]:
    yield "## Hardware and versions"
    yield "\n".join(f"* {_plain(machine)}" for machine in machines(facts)) or NONE
    yield markdown_from_table(tools_table(facts))
    yield "## Hashes"
    yield markdown_from_table(hashes_table(facts))
    yield "## How to check it"
    path = one_line(shlex.quote(facts.name))
    yield "`fmmt verify` checks every hash and receipt, and replays the bundle's self-test:"
    yield f"```sh\nfmmt verify -b {path}\nfmmt status -b {path}\n```"


def _plain(text: str) -> str:
    """A text in one line, without what Markdown would take for its own, or a terminal for an order."""
    return _LIST_MARK.sub(r"\1\\\2", _escaped(_joined(text)))


def _words(text: str) -> str:
    """The same, but what stands between backticks stays code."""
    pieces: Sequence[str] = re.split(r"`([^`]+)`", _joined(text))
    text = "".join(f"`{piece}`" if place % 2 else _escaped(piece) for place, piece in enumerate(pieces))
    return _LIST_MARK.sub(r"\1\\\2", text)


def _joined(text: str) -> str:
    return harmless(" ".join(text.split()))


def _escaped(text: str) -> str:
    return _ESCAPED.sub(r"\\\1", text)
