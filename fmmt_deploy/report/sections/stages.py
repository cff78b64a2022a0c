"""Error stage by stage: what parity compared, and how far it was from what is allowed."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.report.blocks import Block, Charts, Figure, Heading, Listing, Paragraph, Section, Table
from fmmt_deploy.report.charts.errors import ErrorRow, errors_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Candidate, Evidence, Facts
from fmmt_deploy.report.figures import NONE, counted, error, exponential

__all__ = ["parity_section", "tensors_table"]


def parity_section(facts: Facts) -> Section:
    """Parity of every engine judged."""
    words = (
        "Every graph by itself, on the same inputs, then the model end to end, against the reference in float32. "
        "A tensor passes where each of its elements is within the tolerance of its precision."
    )
    blocks: list[Block] = [Paragraph(words, "lead")]
    for candidate in facts.candidates:
        blocks += [Heading(candidate.label), *_candidate(candidate)]
    if not facts.candidates:
        blocks.append(Paragraph("Not compared: run `fmmt parity`.", "note"))
    return Section("parity", "Error by stage", tuple(blocks))


def _candidate(candidate: Candidate) -> Iterator[Block]:
    if not candidate.parity:
        yield Paragraph(f"Not compared: run `fmmt parity --engine {candidate.engine}`.", "note")
    for evidence in candidate.parity:
        yield from _parity(evidence)
    if candidate.itself is not None:
        yield Paragraph(_itself(candidate.itself))


def _parity(evidence: Evidence) -> Iterator[Block]:
    document = evidence.document
    if evidence.state == "stale":
        yield Paragraph(f"Stale: {evidence.why}. What follows is of the bundle as it was then.", "note")
    data = document["data"].text or "self-test"
    against = document["reference"].text
    yield Paragraph(f"`{document['engine'].text}` against `{against}` on `{data}`; receipt `{evidence.path}`.")
    named = _named(document)
    rows = [row for stage, tensor in named if (row := _error_row(stage, tensor)) is not None]
    if rows:
        svg = errors_chart("Errors by stage", rows, "absolute error")
        caption = (
            "A line from the mean to the largest error; the dashed stroke is what is allowed where it came nearest."
        )
        yield Charts((Figure(svg, "How far each tensor is off.", caption),), tensors_table(document))
    elif named:
        yield tensors_table(document)
    yield from _decisions(document)


def _named(document: Document) -> list[tuple[str, Document]]:
    return [(stage["name"].text, tensor) for stage in document["stages"] for tensor in stage["tensors"]]


def _error_row(stage: str, tensor: Document) -> ErrorRow | None:
    mean, largest = tensor["mean_abs"].number, tensor["max_abs"].number
    allowed = _allowed(tensor)
    if mean is None or largest is None or not (largest or allowed):  # masks that are equal have nothing to show
        return None
    return ErrorRow(_label(stage, tensor), mean, largest, allowed, tensor["passed"].flag is True)


def _label(stage: str, tensor: Document) -> str:
    return f"{stage}: {tensor['name'].text}"


def _allowed(tensor: Document) -> float:
    """`atol + rtol · |reference|` at the element that needs most, or at the largest error's if none does."""
    tolerance, at = tensor["tolerance"], abs(tensor["worst_reference"].number or 0.0)
    return (tolerance["atol"].number or 0.0) + (tolerance["rtol"].number or 0.0) * at


def tensors_table(document: Document) -> Table:
    """Every tensor that was compared, from a parity report."""
    rows = [
        (
            _label(stage, tensor),
            error(tensor["max_abs"].number),
            error(tensor["mean_abs"].number),
            error(tensor["relative_norm"].number),
            _tolerance(tensor["tolerance"]),
            "✓ passed" if tensor["passed"].flag else f"✗ {tensor['failure'].text or 'FAILED'}",
        )
        for stage, tensor in _named(document)
    ]
    heads = ("tensor", ">largest", ">mean", ">relative norm", "allowed", "verdict")
    return Table(heads, rows, "Absolute errors")


def _tolerance(tolerance: Document) -> str:
    atol, rtol = tolerance["atol"].number, tolerance["rtol"].number
    if not atol:
        return NONE
    return f"{exponential(atol)} + {exponential(rtol)} |x|" if rtol else exponential(atol)


def _decisions(document: Document) -> Iterator[Block]:
    found = [(stage["name"].text, stage["decisions"]) for stage in document["stages"] if stage["decisions"]]
    items = [_decision_words(name, decisions) for name, decisions in found]
    if items:
        yield Listing(tuple(items))


def _decision_words(name: str, decisions: Document) -> str:
    total, changed = decisions["utterances"].count or 0, len(decisions["changed"])
    ties = counted(len(decisions["ties"]), "tie")
    kept = decisions["kept_changed"]
    faces = f"; kept faces differ for {len(kept)}" if kept else ""
    failures = "; ".join(decisions["failures"].texts)
    failed = f". FAILED: {failures}" if failures else ""
    return f"{name}: {counted(total, 'utterance')}, {changed} decided otherwise, {ties} turned{faces}{failed}."


def _itself(evidence: Evidence) -> str:
    document = evidence.document
    passed = "passed" if document["passed"].flag else "FAILED"
    checks = counted(len(document["checks"]), "check")
    return (
        f"Compared with itself, in other batches, orders, sizes and padding: {passed} ({checks}; receipt "
        f"`{evidence.path}`)."
    )
