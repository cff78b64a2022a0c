"""Charts on two axes of orders of magnitude: errors against what is allowed, latencies, and rooflines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Log, log_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text, text_width
from fmmt_deploy.report.figures import exponential, ms, short

__all__ = ["ErrorRow", "LatencyRow", "Roof", "RoofPoint", "errors_chart", "latency_chart", "roofline_chart"]


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
    parts = [*_bottom(x, top, base, unit)]
    for number, row in enumerate(rows):
        parts += _error_row(x, top + height * (number + 0.5), row)
    told = "; ".join(
        f"{row.label}: mean {short(row.mean)}, largest {short(row.largest)}, allowed {short(row.allowed)}, "
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


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Percentiles of one contender's times (percent, milliseconds), ascending; those in doubt are not claimed."""

    label: str
    percentiles: tuple[tuple[str, float], ...]
    colour: int
    valid: bool = True


def latency_chart(title: str, rows: Sequence[LatencyRow], unit: str) -> Markup:
    """From the lowest percentile to the highest, one contender a row, each percentile named."""
    height, top, left = 44.0, 6.0, 8.0
    x = log_over([time for row in rows for _, time in row.percentiles], left + 12, WIDTH - 24, room=1.12)
    base = top + height * len(rows)
    parts = [*_bottom(x, top, base, unit, time=True)]
    for number, row in enumerate(rows):
        parts += _latency_row(x, top + height * number, row)
    told = "; ".join(f"{row.label}: " + ", ".join(f"{n} {ms(t)}" for n, t in row.percentiles) for row in rows)
    return chart(title, told, base + 36, parts)


def _latency_row(x: Log, y: float, row: LatencyRow) -> Iterator[Markup]:
    times = [time for _, time in row.percentiles]
    words = row.label + ("" if row.valid else " — INVALID")
    yield text(x.start - 12, y + 14, cut(words, WIDTH), "small strong halo" + ("" if row.valid else " bad"), words)
    if not times:
        return
    middle = y + 26
    dashes = "" if row.valid else " dashed"
    yield element("line", x1=x(times[0]), x2=x(times[-1]), y1=middle, y2=middle, class_=f"line l{row.colour}{dashes}")
    free = 0.0
    for name, time in row.percentiles:
        yield element("circle", cx=x(time), cy=middle, r=3.5, class_=f"c{row.colour}")
        start = x(time) - text_width(name, 10.5) / 2
        if start >= free:  # names that would lie on others are left to the table
            yield text(x(time), middle + 15, name, "small soft middle halo")
            free = start + text_width(name, 10.5) + 3


@dataclass(frozen=True, slots=True)
class Roof:
    """How fast the machine multiplies in a precision, in GFLOP/s."""

    name: str
    gflops: float


@dataclass(frozen=True, slots=True)
class RoofPoint:
    """A stage: its FLOPs by byte moved, and its rate in GFLOP/s."""

    name: str
    intensity: float
    gflops: float
    colour: int = 1


def roofline_chart(title: str, roofs: Sequence[Roof], gb_per_s: float | None, points: Sequence[RoofPoint]) -> Markup:
    """Rates against what the machine could do at that intensity.

    Args:
        title: What it shows.
        roofs: The machine's rates of products.
        gb_per_s: Of its memory; without it there is no slope.
        points: The stages.
    """
    left, right, top, base = 46.0, WIDTH - 10, 12.0, 236.0
    ridges = [roof.gflops / gb_per_s for roof in roofs] if gb_per_s else []
    x = log_over([*(p.intensity for p in points), *ridges], left, right, room=3.0)
    y = log_over([*(p.gflops for p in points), *(roof.gflops for roof in roofs)], base, top, room=2.2)
    parts = [*_bottom(x, top, base, "FLOP for each byte of weights, inputs and outputs"), *_side(y, left, right)]
    for roof in roofs:
        parts += _roof(x, y, roof, gb_per_s)
    for point in points:
        parts += _roof_point(x, y, point)
    told = "; ".join(
        [f"{roof.name} {short(roof.gflops)} GFLOP/s" for roof in roofs]
        + [f"{p.name}: {short(p.gflops)} GFLOP/s at {short(p.intensity)} FLOP/byte" for p in points]
    )
    return chart(title, told, base + 36, parts)


def _roof(x: Log, y: Log, roof: Roof, gb_per_s: float | None) -> Iterator[Markup]:
    ridge = x.low if not gb_per_s else max(x.low, roof.gflops / gb_per_s)
    path = f"M{x(ridge):.1f} {y(roof.gflops):.1f}H{x.end:.1f}"
    if gb_per_s and ridge > x.low:
        start = max(x.low, y.low / gb_per_s)
        path = f"M{x(start):.1f} {y(start * gb_per_s):.1f}L{x(ridge):.1f} {y(roof.gflops):.1f}H{x.end:.1f}"
    yield element("path", d=path, class_="line thin lsoft")
    yield text(x.end, y(roof.gflops) - 5, f"{roof.name}: {short(roof.gflops)} GFLOP/s", "small end soft halo")


def _roof_point(x: Log, y: Log, point: RoofPoint) -> Iterator[Markup]:
    at = x(point.intensity)
    yield element("circle", cx=at, cy=y(point.gflops), r=5.0, class_=f"c{point.colour}")
    left = at + 8 + text_width(point.name, 10.5) > x.end
    yield text(at + (-9 if left else 9), y(point.gflops) + 4, point.name, "small halo" + (" end" if left else ""))


def _side(y: Log, left: float, right: float) -> Iterator[Markup]:
    for tick in y.ticks(5):
        yield element("line", x1=left, x2=right, y1=y(tick), y2=y(tick), class_="grid")
        yield text(left - 6, y(tick) + 4, short(tick), "soft small end")
    yield text(0, 8, "GFLOP/s", "soft small")


def _bottom(x: Log, top: float, base: float, unit: str, *, time: bool = False) -> Iterator[Markup]:
    for tick in x.ticks(6):
        words = ms(tick) if time else short(tick) if 0.01 <= tick < 1e5 else exponential(tick)
        yield element("line", x1=x(tick), x2=x(tick), y1=top, y2=base, class_="grid")
        yield text(x(tick), base + 14, words, "soft small middle")
    yield element("line", x1=x.start, x2=x.end, y1=base, y2=base, class_="axis")
    yield text((x.start + x.end) / 2, base + 31, unit, "soft small middle")
