"""Errors against what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.axes import bottom_axis
from fmmt_deploy.report.charts.scales import Log, log_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text
from fmmt_deploy.report.figures import error

__all__ = ["ErrorRow", "errors_chart"]


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A tensor's error.

    Attributes:
        label: Which tensor.
        mean: Mean absolute error.
        largest: Largest absolute error.
        allowed: What was allowed where it came nearest to that.
        passed: The verdict.
    """

    label: str
    mean: float
    largest: float
    allowed: float
    passed: bool


def errors_chart(title: str, rows: Sequence[ErrorRow], unit: str) -> Markup:
    """Mean to largest error, one tensor a row, with a stroke where the tolerance ends."""
    left, right, height, top = 128.0, WIDTH - 62, 30.0, 8.0
    x = log_over([v for row in rows for v in (row.mean, row.largest, row.allowed)], left, right, room=1.6)
    base = top + height * len(rows)
    parts = [*bottom_axis(x, top, base, unit)]
    for number, row in enumerate(rows):
        parts += _error_row(x, top + height * (number + 0.5), row)
    told = "; ".join(
        f"{row.label}: mean {error(row.mean)}, largest {error(row.largest)}, allowed {error(row.allowed)}, "
        f"{'passed' if row.passed else 'failed'}"
        for row in rows
    )
    return chart(title, told, base + 36, parts)


def _error_row(x: Log, y: float, row: ErrorRow) -> Iterator[Markup]:
    colour = "good" if row.passed else "bad"
    yield text(0, y + 4, cut(row.label, x.start - 4, 11), "small", row.label)
    yield element("line", x1=x(row.mean), x2=x(row.largest), y1=y, y2=y, class_=f"line l{colour}")
    yield element("circle", cx=x(row.largest), cy=y, r=4.0, class_=f"f{colour}")
    if row.allowed > 0:
        yield element("line", x1=x(row.allowed), x2=x(row.allowed), y1=y - 10, y2=y + 10, class_="limit")
    yield text(WIDTH, y + 4, "✓ passed" if row.passed else "✗ FAILED", f"small end {colour}")
