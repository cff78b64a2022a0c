"""Speed inside the engines: their calls at two boundaries, against the machine's limits, and how they start."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.report.blocks import Block, Charts, Figure, Heading, Listing, Table
from fmmt_deploy.report.charts.bars import Stage, starts_chart
from fmmt_deploy.report.charts.roofline import Roof, RoofPoint, roofline_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.figures import bytes_text, counted, ms, percent, short
from fmmt_deploy.report.sections.contenders import colour, contender, validity_mark

__all__ = ["call_blocks", "cold_blocks", "roofline_blocks"]


def call_blocks(report: Document) -> Iterator[Block]:
    """Engines' calls, at the two boundaries inside them."""
    for boundary, title in (("device", "Compute alone"), ("engine", "Engine calls with copies")):
        table = report[boundary]
        rows = [_call_row(row) for row in table["rows"]]
        absent = [f"{engine}: {why.text}" for engine, why in table["absent"].members()]
        if rows or absent:
            yield Heading(title)
        if rows:
            heads = ("", "part", ">an utterance", ">range", ">GFLOP", ">GFLOP/s", ">of the rate", "")
            yield Table(heads, rows, "Milliseconds an utterance: median over turns, lowest to highest turn")
        if absent:
            yield Listing(tuple(absent))


def _call_row(row: Document) -> tuple[str, ...]:
    rate = _rate(row)
    return (
        contender(row),
        row["part"].text + (f", {row['precision'].text}" if row["precision"].text else ""),
        ms(row["ms"].number),
        f"{ms(row['low_ms'].number)} to {ms(row['high_ms'].number)}",
        short(row["gflop"].number),
        short(rate),
        percent(row["share_of_rate"].number),
        validity_mark(row),
    )


def _rate(row: Document) -> float | None:
    """GFLOP/s."""
    gflop, time = row["gflop"].number, row["ms"].number
    return None if gflop is None or not time else 1000 * gflop / time


def roofline_blocks(report: Document) -> Iterator[Block]:
    """The rate of each graph against what the machine could do with it."""
    rows = [row for row in report["device"]["rows"] if _rate(row)] or [r for r in report["engine"]["rows"] if _rate(r)]
    names = list(dict.fromkeys(contender(row) for row in rows))
    points = [
        RoofPoint(row["part"].text, 1e9 * gflop / moved, rate, colour(names.index(contender(row))))
        for row in rows
        if (gflop := row["gflop"].number) and (moved := row["moved_bytes"].number) and (rate := _rate(row))
    ]
    roofs = _roofs(rows)
    if not points or not roofs:
        return
    yield Heading("Roofline")
    legend = [(name, colour(place)) for place, name in enumerate(names)]
    svg = roofline_chart("Roofline", roofs, report["copy_gb_per_s"].number, points, legend)
    caption = (
        "Each graph's rate against the bytes that it must move at least: weights once a call, and inputs. The lines "
        "are what this machine was measured to do in the same turns: its rate, and its memory's where there is a slope."
    )
    yield Charts((Figure(svg, "Rate against intensity.", caption),), _roofline_table(rows))


def _roofs(rows: list[Document]) -> list[Roof]:
    """The machine's rates that the rows are held against, taken in the same turns as they; by precision."""
    found: dict[float, list[str]] = {}
    for row in rows:
        if (rate := row["rate_gflops"].number) and row["precision"].text not in found.setdefault(rate, []):
            found[rate].append(row["precision"].text)
    return [Roof(", ".join(precisions), rate) for rate, precisions in found.items()]


def _roofline_table(rows: list[Document]) -> Table:
    cells = []
    for row in rows:
        gflop, moved = row["gflop"].number, row["moved_bytes"].number
        intensity = 1e9 * gflop / moved if gflop and moved else None
        share = percent(row["share_of_rate"].number)
        cells.append((contender(row), row["part"].text, short(intensity), short(_rate(row)), share))
    return Table(("", "part", ">FLOP/byte", ">GFLOP/s", ">of the rate"), cells, "The same in figures")


def cold_blocks(found: Document) -> Iterator[Block]:
    """From starting a process to its first answer."""
    rows = list(found["rows"])
    if not rows:
        return
    yield Heading("Cold start")
    cells = [
        (
            row["engine"].text,
            *(ms(row[name].number) for name in ("open_ms", "first_ms", "steady_ms")),
            bytes_text(row["peak_bytes"].number),
            bytes_text(row["gpu_bytes"].number),
            validity_mark(row),
        )
        for row in rows
    ]
    heads = ("engine", ">open", ">first answer", ">later ones", ">memory", ">GPU memory", "")
    processes = counted(max(len(row["starts"]) for row in rows), "process", "processes")
    caption = f"Each in a process of its own; medians of {processes}"
    listed = [(row["engine"].text, _starts(row)) for row in rows]
    svg = starts_chart("Cold start", [one for one in listed if one[1]])
    yield Charts((Figure(svg, "From starting a process to its first answer."),), Table(heads, cells, caption))


def _starts(row: Document) -> list[Stage]:
    times = (("open", row["open_ms"].number), ("first answer", row["first_ms"].number))
    return [Stage(label, time) for label, time in times if time is not None]
