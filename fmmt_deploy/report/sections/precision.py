"""What the products of each graph are computed in, and what each precision costs and gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fmmt_deploy.report.blocks import Block, Charts, Figure, Paragraph, Section, Table
from fmmt_deploy.report.charts.bars import shares_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Evidence, Facts, Share
from fmmt_deploy.report.figures import NONE, percent, short, signed_points

__all__ = ["precision_section"]

_COLOURS = {"fp32": 6, "bf16": 5, "fp16": 1, "int8-fp32": 4, "int8": 3, "fp8": 2}
_MARKS = {"worth it": "✓", "harmful": "✗"}


def precision_section(facts: Facts) -> Section:
    """Shares of FLOPs by precision, and the verdict's matrix."""
    words = "Shares of the FLOPs of matrix products. A graph asked for in one precision keeps some products in another."
    blocks: list[Block] = [Paragraph(words, "lead")]
    graphs = [share for share in facts.shares if share.realised is None]
    engines = [share for share in facts.shares if share.realised is not None]
    figures = []
    if graphs:
        rows = [(f"{s.graph}, {s.precision}", s.planned) for s in graphs]
        figures.append(Figure(shares_chart("FLOPs by precision", _known(rows), _COLOURS), "The bundle's typed graphs."))
    if engines:
        rows = [(f"{s.graph}, {s.precision}", s.realised or {}) for s in engines]
        caption = f"As {', '.join(sorted({s.by for s in engines}))} realised them."
        figures.append(Figure(shares_chart("FLOPs as built", _known(rows), _COLOURS), "Engines.", caption))
    if figures:
        blocks.append(Charts(tuple(figures), _table(facts.shares)))
    else:
        blocks.append(Paragraph("All of it is float32, or nothing says otherwise.", "note"))
    if facts.verdict is not None:
        blocks += _matrix(facts.verdict)
    return Section("precision", "Precision", tuple(blocks))


def _known(rows: list[tuple[str, Mapping[str, float]]]) -> list[tuple[str, Mapping[str, float]]]:
    return [(label, {name: share for name, share in shares.items() if name in _COLOURS}) for label, shares in rows]


def _table(shares: tuple[Share, ...]) -> Table:
    rows = [(s.graph, s.precision, _listed(s.planned), _listed(s.realised or {}), s.by or NONE) for s in shares]
    heads = ("graph", "asked for", "in the graph", "as built", "by")
    return Table(heads, rows, "The same in figures")


def _listed(shares: Mapping[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {percent(share, 2)}" for name, share in ordered) or NONE


def _matrix(evidence: Evidence) -> Iterator[Block]:
    document = evidence.document
    rows = [_matrix_row(row) for row in document["rows"]]
    if not rows:
        return
    stale = f" Stale: {evidence.why}." if evidence.state == "stale" else ""
    yield Paragraph(
        f"What each precision costs and gains, judged with `{document['engine'].text}` on `{document['data'].text}`; "
        f"receipt `{evidence.path}`.{stale}"
    )
    heads = ("part", "precision", ">decisions kept", ">F1 difference", ">SQNR, dB", ">bytes", "mark", "~why")
    yield Table(heads, rows, folded="The matrix of precisions")


def _matrix_row(row: Document) -> tuple[str, ...]:
    judged, mark = row["judgement"], row["mark"].text
    return (
        row["part"].text,
        row["precision"].text,
        percent(judged["agreement"].number, 1),
        signed_points(judged["f1"]["difference"].number),
        short(judged["sqnr_db"].number),
        percent(row["bytes_share"].number),
        f"{_MARKS.get(mark, '')} {mark}".strip(),
        row["reason"].text or row["note"].text,
    )
