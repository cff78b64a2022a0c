"""Distributions of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.axes import bottom_axis
from fmmt_deploy.report.charts.scales import Log, log_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text, text_width
from fmmt_deploy.report.figures import ms

__all__ = ["LatencyRow", "latency_chart"]


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One contender's times.

    Attributes:
        label: Who.
        percentiles: Name and milliseconds, ascending.
        edges_ms: Of a histogram, one more than counts; or none.
        counts: Of its bins.
        colour: Number of the colour.
        valid: Whether to believe it.
    """

    label: str
    percentiles: tuple[tuple[str, float], ...]
    edges_ms: tuple[float, ...]
    counts: tuple[float, ...]
    colour: int
    valid: bool = True


def latency_chart(title: str, rows: Sequence[LatencyRow], unit: str) -> Markup:
    """Each contender's distribution, with its percentiles named below it."""
    height, top = 70.0, 6.0
    times = [time for row in rows for time in (*(t for _, t in row.percentiles), *row.edges_ms)]
    x = log_over(times, 10.0, WIDTH - 10, room=1.08)
    base = top + height * len(rows)
    parts = [*bottom_axis(x, top, base, unit, _time)]
    for number, row in enumerate(rows):
        parts += _latency_row(x, top + height * number, row)
    told = "; ".join(f"{row.label}: " + ", ".join(f"{n} {ms(t)}" for n, t in row.percentiles) for row in rows)
    return chart(title, told, base + 36, parts)


def _latency_row(x: Log, y: float, row: LatencyRow) -> Iterator[Markup]:
    words = row.label + ("" if row.valid else " — INVALID")
    yield text(0, y + 13, cut(words, WIDTH, 11), "small strong halo" + ("" if row.valid else " bad"), words)
    base, largest = y + 50.0, max(row.counts, default=0.0)
    for low, high, count in zip(row.edges_ms, row.edges_ms[1:], row.counts, strict=False):
        if count and largest:
            tall = 30 * count / largest
            wide = max(0.75, x(high) - x(low) - 0.5)
            yield element("rect", x=x(low), y=base - tall, width=wide, height=tall, class_=f"c{row.colour} faint")
    times = [time for _, time in row.percentiles]
    if not times:
        return
    dashes = "" if row.valid else " dashed"
    yield element("line", x1=x(times[0]), x2=x(times[-1]), y1=base, y2=base, class_=f"line l{row.colour}{dashes}")
    free = 0.0
    for name, time in row.percentiles:
        yield element("circle", cx=x(time), cy=base, r=3.5, class_=f"c{row.colour}")
        start = x(time) - text_width(name, 10.5) / 2
        if start >= free:  # names that would lie on others are left to the table
            yield text(x(time), base + 15, name, "small soft middle halo")
            free = start + text_width(name, 10.5) + 3


def _time(time_ms: float) -> str:
    """A round time at an axis."""
    if time_ms < 1:
        return f"{1000 * time_ms:g} µs"
    return f"{time_ms:g} ms" if time_ms < 1000 else f"{time_ms / 1000:g} s"
