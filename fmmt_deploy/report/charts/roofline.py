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


_CORNERS = (
    ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
    ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
    ((0, -6), (6, 0), (0, 6), (-6, 0)),
)


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
        legend: Names and numbers of the points' colours.
    """
    left, right, top, base = 46.0, WIDTH - 10, 12.0, 236.0
    ridges = [roof.gflops / gb_per_s for roof in roofs] if gb_per_s else []
    x = log_over([*(p.intensity for p in points), *ridges], left, right, room=3.0)
    y = log_over([*(p.gflops for p in points), *(roof.gflops for roof in roofs)], base, top, room=2.2)
    parts = [*bottom_axis(x, top, base, "FLOP a byte that must be moved"), *side_axis(y, left, right, "GFLOP/s")]
    for roof in roofs:
        parts += _roof(x, y, roof, gb_per_s)
    shapes = list(dict.fromkeys(point.name for point in points))
    for p in points:
        parts.append(_mark(p.name, shapes.index(p.name), x(p.intensity), y(p.gflops), f"c{p.colour}"))
    parts += _legend(left, base + 52, shapes, legend)
    told = "; ".join(
        [f"{roof.name} {short(roof.gflops)} GFLOP/s" for roof in roofs]
        + [f"{p.name}: {short(p.gflops)} GFLOP/s at {short(p.intensity)} FLOP/byte" for p in points]
    )
    return chart(title, told, base + 60 + 16 * len(legend), parts)


def _roof(x: Log, y: Log, roof: Roof, gb_per_s: float | None) -> Iterator[Markup]:
    ridge = x.low if not gb_per_s else max(x.low, roof.gflops / gb_per_s)
    path = f"M{x(ridge):.1f} {y(roof.gflops):.1f}H{x.end:.1f}"
    if gb_per_s and ridge > x.low:
        start = max(x.low, y.low / gb_per_s)
        path = f"M{x(start):.1f} {y(start * gb_per_s):.1f}L{x(ridge):.1f} {y(roof.gflops):.1f}H{x.end:.1f}"
    yield element("path", d=path, class_="line thin lsoft")
    yield text(x.end, y(roof.gflops) - 5, f"{roof.name}: {short(roof.gflops)} GFLOP/s", "small end soft halo")


def _mark(name: str, shape: int, x: float, y: float, colour: str) -> Markup:
    """A point: a circle, a square, a triangle or a diamond."""
    told = element("title", name)
    if shape == 0:
        return element("circle", told, cx=x, cy=y, r=5.0, class_=colour)
    corners = _CORNERS[(shape - 1) % len(_CORNERS)]
    path = "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "Z"
    return element("path", told, d=path, class_=colour)


def _legend(left: float, y: float, parts: Sequence[str], names: Sequence[tuple[str, int]]) -> Iterator[Markup]:
    """Shapes in a line, then colours under each other."""
    x = left
    for shape, part in enumerate(parts):
        yield _mark(part, shape, x + 6, y - 4, "fsoft")
        yield text(x + 16, y, part, "small")
        x += 34 + text_width(part, 10.5)
    for place, (name, colour) in enumerate(names):
        yield element("rect", x=left + 1, y=y + 8 + 16 * place, width=10.0, height=10.0, rx=2, class_=f"c{colour}")
        yield text(left + 16, y + 17 + 16 * place, name, "small")
