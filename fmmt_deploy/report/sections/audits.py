"""Hard decisions, where a small error does much, and which graph a difference comes from."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.report.blocks import Block, Charts, Figure, Heading, Paragraph, Section, Table
from fmmt_deploy.report.charts.bars import SwapRow, swaps_chart
from fmmt_deploy.report.charts.histogram import MarkedValue, margins_histogram
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Facts
from fmmt_deploy.report.figures import NONE, counted, error, number, percent, short, signed_points
from fmmt_deploy.report.modes import data_words, judged_mode
from fmmt_deploy.report.sections.decisions import interval_words

__all__ = ["audit_section", "swap_section"]

_EDGES = {
    "gate": ("The face gate", "a face is used if Σp² is above the threshold", "|Σp² − threshold| of the reference"),
    "decision": ("The decision", "the largest of seven logits", "lead of the reference's decision, in logits"),
}


def audit_section(facts: Facts) -> Section:
    """The discontinuity audit of every engine that has one."""
    words = (
        "The model decides hard in two places, and there a small error can do much: how near each decision is to its "
        "edge, how far the engine is off, and which decisions crossed. Bins in another colour lie within the largest "
        "error seen."
    )
    blocks: list[Block] = [Paragraph(words, "lead")]
    found = [(title, audit) for title, document in _judged(facts) if (audit := judged_mode(document)["audit"])]
    for title, audit in found:
        blocks += [Heading(title), *_blocks(audit)]
    if not found:
        blocks.append(Paragraph("Not audited: run `fmmt eval` with `--reference`.", "note"))
    return Section("audit", "Hard decisions", tuple(blocks))


def swap_section(facts: Facts) -> Section:
    """The swap matrix of every engine that has one."""
    words = (
        "Every mixture of the reference's graphs and the engine's on the same data, so that a difference is blamed on "
        "the graph it comes from. A full dot is a graph of the engine."
    )
    blocks: list[Block] = [Paragraph(words, "lead")]
    found = [(title, swaps) for title, document in _judged(facts) if (swaps := document["swaps"])]
    for title, swaps in found:
        blocks += [Heading(title), *_swaps(swaps)]
    if not found:
        blocks.append(Paragraph("Not measured: run `fmmt eval` with `--reference` and `--swap`.", "note"))
    return Section("swaps", "Which graph is to blame", tuple(blocks))


def _judged(facts: Facts) -> Iterator[tuple[str, Document]]:
    """Every evaluation with a reference, under the engine's name, and the data's where there are several."""
    for candidate in facts.candidates:
        for evidence in candidate.f1:
            stale = " (stale)" if evidence.state == "stale" else ""
            data = f" on {data_words(evidence)}" if len(candidate.f1) > 1 else ""
            yield f"{candidate.label}{data}{stale}", evidence.document


def _blocks(audit: Document) -> Iterator[Block]:
    edges = [(name, audit[name]) for name in _EDGES if audit[name]]
    figures = [figure for name, edge in edges if (figure := _figure(name, edge)) is not None]
    if figures:
        yield Charts(tuple(figures))
    rows = [_row(name, edge) for name, edge in edges]
    heads = ("decision", ">taken", ">error p50", ">error p99", ">largest", ">within own error", ">crossed", ">expected")
    yield Table(heads, rows, "Margins and the engine's error in them")
    f1 = audit["f1"]
    if f1:
        told = [signed_points(f1[name].number) for name in ("difference", "through_the_gate", "elsewhere")]
        yield Paragraph(
            f"Difference of F1: {told[0]} points, of which {told[1]} through the gate and {told[2]} elsewhere."
        )
    items = [(name, item) for name, edge in edges for item in edge["items"]]
    if items:
        yield _crossed(items)


def _figure(name: str, edge: Document) -> Figure | None:
    edges, counts = edge["histogram"]["edges"].numbers, edge["histogram"]["counts"].numbers
    if len(edges) != len(counts) + 1 or not counts:
        return None
    title, what, unit = _EDGES[name]
    marks = [
        MarkedValue(label, value)
        for label, key in (("p99 error", "p99"), ("largest error", "largest"))
        if (value := edge["error"][key].number)
    ]
    crossed = counted(edge["crossed"].count or 0, "decision")
    caption = f"{what[:1].upper()}{what[1:]}: {number(edge['count'].number)} times; {crossed} crossed."
    return Figure(margins_histogram(f"{title}: margins", edges, counts, marks, unit), f"{title}.", caption)


def _row(name: str, edge: Document) -> tuple[str, ...]:
    sizes = edge["error"]
    return (
        _EDGES[name][0],
        number(edge["count"].number),
        *(error(sizes[key].number) for key in ("p50", "p99", "largest")),
        number(edge["near"].number),
        number(edge["crossed"].number),
        short(edge["expected"].number),
    )


def _crossed(items: list[tuple[str, Document]]) -> Table:
    rows = [
        (
            item["utterance"].text,
            _EDGES[name][0] + ("" if item["face"].count is None else f", face {item['face'].count}"),
            error(item["reference_margin"].number),
            error(item["margin"].number),
        )
        for name, item in items[:50]
    ]
    heads = ("utterance", "edge", ">reference's margin", ">engine's margin")
    return Table(heads, rows, folded=f"{counted(len(items), 'decision')} that crossed")


def _swaps(swaps: Document) -> Iterator[Block]:
    words = swaps["words"].text
    if words:
        yield Paragraph(words)
    listed = list(swaps["rows"])
    graphs = [g for g in ("swin", "plm", "fusion", "unimodal") if any(row[g] for row in listed)]
    rows = [
        SwapRow(tuple(row[g].text == "engine" for g in graphs), 100 * difference, row["changed"].count)
        for row in listed
        if (difference := row["difference"].number) is not None
    ]
    shares = _shares(swaps, graphs)
    if rows and graphs:
        svg = swaps_chart("F1 of every mixture", graphs, rows, "points of F1, mixture less reference")
        caption = "Beside the bars: the difference, and decisions that changed."
        yield Charts((Figure(svg, "Each mixture.", caption),), shares)


def _shares(swaps: Document, graphs: list[str]) -> Table | None:
    """Shapley's shares."""
    rows = [
        (
            graph,
            signed_points(swaps["shares"][graph].number),
            interval_words(swaps["intervals"][graph]),
            short(swaps["changed_shares"][graph].number),
            percent(swaps["error_shares"][graph].number) if swaps["error_shares"][graph] else NONE,
        )
        for graph in graphs
        if swaps["shares"][graph]
    ]
    heads = ("graph", ">of ΔF1", ">interval", ">of the changes", ">of the error")
    return Table(heads, rows, "Each graph's share: mean over all orders of swapping in (Shapley's)") if rows else None
