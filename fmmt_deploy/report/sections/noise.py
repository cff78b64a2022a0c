"""A model with noise: each way to treat it apart, and what the reference itself does from seed to seed."""

from __future__ import annotations

from collections.abc import Iterator

from fmmt_deploy.report.blocks import Block, Charts, Figure, Paragraph, Table
from fmmt_deploy.report.charts.band import band_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.figures import NONE, percent, points, signed_points
from fmmt_deploy.report.modes import VERDICT_MARKS

__all__ = ["noise_blocks"]

_MODES = {
    "none": "without noise",
    "replayed": "recorded noise on both sides",
    "seeded": "the same drawn noise on both sides",
    "mean": "mean over the draws, then decided",
}


def noise_blocks(document: Document) -> Iterator[Block]:
    """Every mode of an evaluation beside the others, and the reference's band; nothing where there is one mode."""
    modes = list(document["modes"])
    if len(modes) < 2 and not any(mode["band"] for mode in modes):
        return
    rows = [_mode_row(mode) for mode in modes]
    heads = ("noise", ">seeds", ">F1 reference", ">F1 engine", ">difference", "verdict", "reference's band")
    yield Table(heads, rows, "Each way to treat the noise, apart")
    for mode in modes:
        yield from _band(mode["band"])


def _mode_row(mode: Document) -> tuple[str, ...]:
    found, name = mode["equivalence"], mode["mode"].text
    verdict = found["verdict"].text
    mark = VERDICT_MARKS.get(verdict, "")
    band = mode["band"]
    low, high = band["low"].number, band["high"].number
    return (
        _MODES.get(name, name),
        str(len(mode["seeds"])),
        points(found["reference_f1"].number or mode["reference_evaluation"]["weighted_f1"].number),
        points(found["f1"].number or mode["evaluation"]["weighted_f1"].number),
        signed_points(found["difference"].number),
        f"{mark} {verdict}".strip() or NONE,
        NONE if low is None or high is None else f"{points(low)} to {points(high)}",
    )


def _band(band: Document) -> Iterator[Block]:
    if band["words"].text:
        yield Paragraph(band["words"].text)
    low, high = band["low"].number, band["high"].number
    sides = [("reference", band["values"].numbers), ("engine", band["engine_values"].numbers)]
    if low is None or high is None or not all(values for _, values in sides):
        return
    rows = [(name, tuple(100 * value for value in values)) for name, values in sides]
    published = band["published"].number
    mark = None if published is None else 100 * published
    svg = band_chart("F1 by seed", rows, (100 * low, 100 * high), mark, "weighted F1 of each seed")
    caption = f"The band is where another seed would put the reference ({percent(band['confidence'].number)})."
    yield Charts((Figure(svg, "F1 by seed of the noise.", caption),))
