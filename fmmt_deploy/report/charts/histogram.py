"""How often a size occurs, over orders of magnitude, with lines for sizes that matter.

Counts are on a logarithmic axis too: the few that are near an edge are what such a chart is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Log
from fmmt_deploy.report.charts.svg import WIDTH, chart, element, text, text_width
from fmmt_deploy.report.figures import error, number, short, tick

__all__ = ["MarkedValue", "margins_histogram"]

_LEFT, _RIGHT, _TOP, _BASE, _HEIGHT = 40.0, WIDTH - 8.0, 44.0, 190.0, 226.0


@dataclass(frozen=True, slots=True)
class MarkedValue:
    """A line across the histogram, with its name above."""

    label: str
    value: float


def margins_histogram(
    title: str, edges: Sequence[float], counts: Sequence[float], marks: Sequence[MarkedValue], unit: str
) -> Markup:
    """The chart; bins that lie wholly below the largest mark are in the colour of a warning.

    Args:
        title: What it shows.
        edges: One more than counts, ascending; bins of a first edge 0 begin where the axis does.
        counts: Of each bin.
        marks: Lines.
        unit: Under the axis.
    """
    x, y = _across(edges, marks), Log(0.5, max((1.0, *counts)), _BASE, _TOP)
    told = "; ".join(
        f"{short(low)} to {short(high)}: {number(count)}"
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    )
    parts = [*_axes(x, y, unit), *_bars(x, y, edges, counts, max((m.value for m in marks), default=0.0))]
    return chart(title, told, _HEIGHT, [*parts, *_marks(x, marks)])


def _across(edges: Sequence[float], marks: Sequence[MarkedValue]) -> Log:
    sizes = [size for size in (*edges, *(mark.value for mark in marks)) if size > 0] or [1.0]
    low, high = min(sizes), max(sizes)
    return Log(low / 1.5, max(high, 10 * low), _LEFT, _RIGHT)


def _axes(x: Log, y: Log, unit: str) -> Iterator[Markup]:
    for value in y.ticks(5):
        if value >= 1:
            yield element("line", x1=_LEFT, x2=_RIGHT, y1=y(value), y2=y(value), class_="grid")
            yield text(_LEFT - 6, y(value) + 4, tick(value), "soft small end")
    yield element("line", x1=_LEFT, x2=_RIGHT, y1=_BASE, y2=_BASE, class_="axis")
    for value in x.ticks(6):
        yield element("line", x1=x(value), x2=x(value), y1=_BASE, y2=_BASE + 4, class_="axis")
        yield text(x(value), _BASE + 17, tick(value), "soft small middle")
    yield text((_LEFT + _RIGHT) / 2, _HEIGHT - 4, unit, "soft small middle")


def _bars(x: Log, y: Log, edges: Sequence[float], counts: Sequence[float], limit: float) -> Iterator[Markup]:
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if not count:
            continue
        start, end = x(low), x(high)
        colour = "fwarn" if high <= limit else "c1"
        height = max(1.5, _BASE - y(count))
        yield element(
            "rect", x=start + 0.5, y=_BASE - height, width=max(1.0, end - start - 1), height=height, class_=colour
        )


def _marks(x: Log, marks: Sequence[MarkedValue]) -> Iterator[Markup]:
    """Lines with names in two heights, so that neighbours can be read."""
    for place, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        at, top = x(mark.value), 12.0 + 14 * (place % 2)
        yield element("line", x1=at, x2=at, y1=top + 3, y2=_BASE, class_="limit")
        words = f"{mark.label} {error(mark.value)}"
        fits = at + 4 + text_width(words, 10.5) < WIDTH
        yield text(at + (4 if fits else -4), top, words, "small halo" + ("" if fits else " end"))
