"""Rates against what a machine could do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.axes import bottom_axis, side_axis
from fmmt_deploy.report.charts.scales import Log, log_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, element, text, text_width
from fmmt_deploy.report.figures import short

__all__ = ["Roof", "RoofPoint", "roofline_chart"]


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


def roofline_chart(
    title: str,
    roofs: Sequence[Roof],
    gb_per_s: float | None,
    points: Sequence[RoofPoint],
    legend: Sequence[tuple[str, int]] = (),
) -> Markup:
    """Rates against what the machine could do at that intensity.

    Args:
        title: What it shows.
        roofs: The machine's rates of products.
        gb_per_s: Of its memory; without it there is no slope.
        points: The stages.
        legend: Names and numbers of the points' colours, where there are several.
    """
    left, right, top, base = 46.0, WIDTH - 10, 12.0, 236.0
    ridges = [roof.gflops / gb_per_s for roof in roofs] if gb_per_s else []
    x = log_over([*(p.intensity for p in points), *ridges], left, right, room=3.0)
    y = log_over([*(p.gflops for p in points), *(roof.gflops for roof in roofs)], base, top, room=2.2)
    parts = [*bottom_axis(x, top, base, "FLOP a byte that must be moved"), *side_axis(y, left, right, "GFLOP/s")]
    for roof in roofs:
        parts += _roof(x, y, roof, gb_per_s)
    for point in points:
        parts += _roof_point(x, y, point)
    told = "; ".join(
        [f"{roof.name} {short(roof.gflops)} GFLOP/s" for roof in roofs]
        + [f"{p.name}: {short(p.gflops)} GFLOP/s at {short(p.intensity)} FLOP/byte" for p in points]
    )
    for place, (name, colour) in enumerate(legend if len(legend) > 1 else ()):
        parts.append(element("circle", cx=left + 6, cy=base + 48 + 16 * place, r=5.0, class_=f"c{colour}"))
        parts.append(text(left + 18, base + 52 + 16 * place, name, "small"))
    return chart(title, told, base + 36 + (16 * len(legend) + 6 if len(legend) > 1 else 0), parts)


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
