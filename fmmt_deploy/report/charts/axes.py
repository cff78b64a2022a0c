"""Axes of orders of magnitude, as several charts have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Log
from fmmt_deploy.report.charts.svg import element, text
from fmmt_deploy.report.figures import tick

__all__ = ["bottom_axis", "side_axis"]


def bottom_axis(x: Log, top: float, base: float, unit: str, words: Callable[[float], str] = tick) -> Iterator[Markup]:
    """Lines from top to base at round values, their names below, and under those what they are of."""
    for value in x.ticks(6):
        yield element("line", x1=x(value), x2=x(value), y1=top, y2=base, class_="grid")
        yield text(x(value), base + 14, words(value), "soft small middle")
    yield element("line", x1=x.start, x2=x.end, y1=base, y2=base, class_="axis")
    yield text((x.start + x.end) / 2, base + 31, unit, "soft small middle")


def side_axis(y: Log, left: float, right: float, unit: str) -> Iterator[Markup]:
    """Lines across at round values, with their names at the left."""
    for value in y.ticks(5):
        yield element("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="grid")
        yield text(left - 6, y(value) + 4, tick(value), "soft small end")
    yield text(0, 8, unit, "soft small")
