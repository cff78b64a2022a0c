"""Values of several seeds, a row a side, against a band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Linear, linear_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text

__all__ = ["band_chart"]

_LEFT, _RIGHT, _TOP, _ROW = 84.0, WIDTH - 12.0, 22.0, 34.0


def band_chart(
    title: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    band: tuple[float, float],
    published: float | None,
    unit: str,
) -> Markup:
    """A point for each seed, a stroke for their mean.

    Args:
        title: What it shows.
        rows: Name and values.
        band: From where to where.
        published: A figure from elsewhere, or None.
        unit: Under the axis.
    """
    known = [*band, *(value for _, values in rows for value in values), *([] if published is None else [published])]
    x, base = linear_over(known, _LEFT, _RIGHT), _TOP + _ROW * len(rows)
    parts = [*_ground(x, base, band, published, unit)]
    for number, (name, values) in enumerate(rows):
        parts += _row(x, _TOP + _ROW * (number + 0.5), name, values, number + 1)
    told = "; ".join(f"{name}: {', '.join(f'{value:.2f}' for value in values)}" for name, values in rows)
    return chart(title, f"Band {band[0]:.2f} to {band[1]:.2f}; {told}", base + 36, parts)


def _ground(x: Linear, base: float, band: tuple[float, float], published: float | None, unit: str) -> Iterator[Markup]:
    yield element(
        "rect", x=x(band[0]), y=_TOP, width=max(1.0, x(band[1]) - x(band[0])), height=base - _TOP, class_="band"
    )
    for value in x.ticks(5):
        yield element("line", x1=x(value), x2=x(value), y1=_TOP, y2=base, class_="grid")
        yield text(x(value), base + 14, f"{value:.4g}", "soft small middle")
    yield text((_LEFT + _RIGHT) / 2, base + 31, unit, "soft small middle")
    if published is not None:
        yield element("line", x1=x(published), x2=x(published), y1=_TOP - 6, y2=base, class_="limit")
        side = " end" if x(published) > WIDTH - 100 else ""
        yield text(x(published) + (-4 if side else 4), 13, f"published {published:.2f}", f"small{side}")


def _row(x: Linear, y: float, name: str, values: Sequence[float], colour: int) -> Iterator[Markup]:
    yield text(0, y + 4, cut(name, _LEFT - 6), full=name)
    for value in values:
        yield element("circle", cx=x(value), cy=y, r=4.0, class_=f"c{colour} faint")
    if values:
        middle = x(sum(values) / len(values))
        yield element("line", x1=middle, x2=middle, y1=y - 10, y2=y + 10, class_=f"line l{colour}")
