"""Differences with their intervals, one a row, against a band of what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Linear, linear_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text
from fmmt_deploy.report.figures import signed

__all__ = ["IntervalRow", "intervals_chart"]

_LEFT, _RIGHT = 96.0, WIDTH - 122.0
_ROW, _TOP, _BOTTOM = 25.0, 22.0, 36.0


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """A difference.

    Attributes:
        label: Of what.
        value: It.
        low: Of its interval; the value itself where there is none.
        high: Likewise.
        judged: Whether it is what the band is for; others are drawn lighter.
    """

    label: str
    value: float
    low: float
    high: float
    judged: bool = False


def intervals_chart(title: str, rows: Sequence[IntervalRow], margin: float | None, unit: str) -> Markup:
    """The chart.

    Args:
        title: What it shows.
        rows: From the top.
        margin: Half the band's width around zero, or None.
        unit: Of the values, under the axis.
    """
    ends = [end for row in rows for end in (row.low, row.high)] + ([-margin, margin] if margin else [])
    x = linear_over([*ends, 0.0], _LEFT, _RIGHT)
    base = _TOP + _ROW * len(rows)
    told = "; ".join(f"{row.label} {signed(row.value)} ({signed(row.low)} to {signed(row.high)})" for row in rows)
    parts = [*_ground(x, base, margin, unit)]
    for number, row in enumerate(rows):
        parts += _row(x, _TOP + _ROW * (number + 0.5), row, margin)
    return chart(title, told, base + _BOTTOM, parts)


def _ground(x: Linear, base: float, margin: float | None, unit: str) -> Iterator[Markup]:
    if margin:
        yield element("rect", x=x(-margin), y=_TOP, width=x(margin) - x(-margin), height=base - _TOP, class_="band")
        yield text((x(-margin) + x(margin)) / 2, 14, f"allowed ±{margin:g}", "soft small middle")
    for tick in x.ticks(5):
        yield element("line", x1=x(tick), x2=x(tick), y1=_TOP, y2=base, class_="axis" if tick == 0 else "grid")
        yield text(x(tick), base + 14, signed(tick, 0 if x.high - x.low > 5 else 1), "soft small middle")
    yield text((_LEFT + _RIGHT) / 2, base + 30, unit, "soft small middle")


def _row(x: Linear, y: float, row: IntervalRow, margin: float | None) -> Iterator[Markup]:
    colour, weight = _colour(row, margin), "strong" if row.judged else ""
    yield text(0, y + 4, cut(row.label, _LEFT - 6), weight, row.label)
    yield element(
        "line", x1=x(row.low), x2=x(row.high), y1=y, y2=y, class_=f"line l{colour}" + ("" if row.judged else " thin")
    )
    for end in (row.low, row.high):
        yield element("line", x1=x(end), x2=x(end), y1=y - 4, y2=y + 4, class_=f"line thin l{colour}")
    yield element("circle", cx=x(row.value), cy=y, r=4.5 if row.judged else 3.0, class_=f"{_fill(colour)}")
    words = f"{signed(row.value)} ({signed(row.low)}, {signed(row.high)})"
    yield text(WIDTH, y + 4, words, f"small end {weight}".strip())


def _colour(row: IntervalRow, margin: float | None) -> str:
    if not row.judged or not margin:
        return "soft" if margin else "1"
    if -margin < row.low and row.high < margin:
        return "good"
    return "bad" if row.low > margin or row.high < -margin else "warn"


def _fill(colour: str) -> str:
    return f"c{colour}" if colour.isdigit() else f"f{colour}"
