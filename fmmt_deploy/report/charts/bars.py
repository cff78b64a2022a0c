"""Bars: shares of a whole, stages one after the other, and differences to both sides of zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fmmt_deploy.report.charts.scales import Linear, linear_over
from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text, text_width
from fmmt_deploy.report.figures import ms, percent, signed

__all__ = [
    "Amount",
    "Stage",
    "SwapRow",
    "amounts_chart",
    "shares_chart",
    "starts_chart",
    "swaps_chart",
    "waterfall_chart",
]

_LABEL = 88.0
_WIDE_LABEL = 108.0


def shares_chart(title: str, rows: Sequence[tuple[str, Mapping[str, float]]], colours: Mapping[str, int]) -> Markup:
    """Shares of a whole, a bar a row, with names in or beside the parts.

    Args:
        title: What it shows.
        rows: Label and shares (0 to 1) by name.
        colours: Number of each name's colour.
    """
    height, top = 34.0, 26.0
    names = [name for name in colours if any(name in shares for _, shares in rows)]
    parts = [*_legend(names, colours)]
    for number, (label, shares) in enumerate(rows):
        y = top + height * number
        parts.append(text(0, y + 16, cut(label, _WIDE_LABEL), full=label))
        parts += _shares(y, shares, colours)
    told = "; ".join(
        f"{label}: " + ", ".join(f"{n} {percent(s, 1)}" for n, s in shares.items()) for label, shares in rows
    )
    return chart(title, told, top + height * len(rows), parts)


def _legend(names: Sequence[str], colours: Mapping[str, int]) -> Iterator[Markup]:
    x = _WIDE_LABEL
    for name in names:
        yield element("rect", x=x, y=4.0, width=10.0, height=10.0, rx=2, class_=f"c{colours[name]}")
        yield text(x + 14, 13, name, "small")
        x += 26 + text_width(name, 10.5)


def _shares(y: float, shares: Mapping[str, float], colours: Mapping[str, int]) -> Iterator[Markup]:
    x, whole = _WIDE_LABEL, WIDTH - _WIDE_LABEL - 44
    for name, share in sorted(shares.items(), key=lambda item: list(colours).index(item[0])):
        width = whole * min(1.0, max(0.0, share))
        yield element("rect", x=x, y=y + 3, width=max(width - 1, 0.75), height=18.0, class_=f"c{colours[name]}")
        x += width
    name, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    yield text(WIDTH, y + 16, percent(share, 0), "end small")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's time."""

    name: str
    ms: float


def waterfall_chart(title: str, stages: Sequence[Stage], colour: int = 1, longest_ms: float = 0.0) -> Markup:
    """Stages one after the other, each beginning where the one before ended, with time and share.

    Args:
        title: What it shows.
        stages: In their order.
        colour: Number of the bars' colour.
        longest_ms: What the width stands for, so that several charts can be compared; default their sum.
    """
    height, top, whole = 27.0, 6.0, sum(stage.ms for stage in stages)
    x = Linear(0.0, max(whole, longest_ms) or 1.0, _LABEL, WIDTH - 104)
    parts, begun = [], 0.0
    for number, stage in enumerate(stages):
        y = top + height * number
        start, end = x(begun), x(begun + stage.ms)
        parts.append(text(0, y + 15, cut(stage.name, _LABEL), full=stage.name))
        parts.append(element("rect", x=start, y=y + 2, width=max(end - start, 1.0), height=18.0, class_=f"c{colour}"))
        if number + 1 < len(stages):
            parts.append(element("line", x1=end, x2=end, y1=y + 20, y2=y + height + 2, class_="axis"))
        share = percent(stage.ms / whole) if whole else ""
        parts.append(text(WIDTH, y + 15, f"{ms(stage.ms)} · {share}", "end small"))
        begun += stage.ms
    y = top + height * len(stages)
    parts.append(element("line", x1=_LABEL, x2=x(whole), y1=y + 2, y2=y + 2, class_="axis"))
    parts += [text(0, y + 17, "together", "strong"), text(WIDTH, y + 17, ms(whole), "end small strong")]
    told = "; ".join(f"{stage.name} {ms(stage.ms)}" for stage in stages)
    return chart(title, told, y + 24, parts)


@dataclass(frozen=True, slots=True)
class SwapRow:
    """A mixture: which graphs are the engine's, and what that does (in points)."""

    engine: tuple[bool, ...]
    difference: float
    changed: int | None


def swaps_chart(title: str, graphs: Sequence[str], rows: Sequence[SwapRow], unit: str) -> Markup:
    """Which graphs are the engine's (full dots), and the difference that comes of it, as bars around zero.

    Args:
        title: What it shows.
        graphs: Names of the dots' columns.
        rows: From the top.
        unit: Of the differences.
    """
    height, top, column = 25.0, 34.0, 46.0
    left = column * len(graphs) + 22
    x = linear_over([0.0, *(row.difference for row in rows)], left, WIDTH - 96, room=0.08)
    base = top + height * len(rows)
    parts = [
        text(column * (i + 0.5), 24, cut(name, column, 10.5), "small soft middle") for i, name in enumerate(graphs)
    ]
    parts += [text(WIDTH, 24, "ΔF1 · changed", "small soft end")]
    parts.append(element("line", x1=x(0.0), x2=x(0.0), y1=top, y2=base, class_="axis"))
    for number, row in enumerate(rows):
        parts += _swap_row(x, top + height * (number + 0.5), column, row)
    parts.append(text((left + WIDTH - 96) / 2, base + 14, unit, "small soft middle"))
    told = "; ".join(
        f"engine's {', '.join(g for g, own in zip(graphs, row.engine, strict=False) if own) or 'none'}: "
        f"{signed(row.difference)}"
        for row in rows
    )
    return chart(title, told, base + 18, parts)


def _swap_row(x: Linear, y: float, column: float, row: SwapRow) -> Iterator[Markup]:
    for i, own in enumerate(row.engine):
        yield element("circle", cx=column * (i + 0.5), cy=y, r=5.5, class_="fink" if own else "line thin lsoft")
    start, end = sorted((x(0.0), x(row.difference)))
    colour = "c2" if row.difference < 0 else "c1"
    yield element("rect", x=start, y=y - 7, width=max(end - start, 0.75), height=14.0, class_=colour)
    changed = "" if row.changed is None else f" · {row.changed}"
    yield text(WIDTH, y + 4, f"{signed(row.difference)}{changed}", "end small")


def starts_chart(title: str, rows: Sequence[tuple[str, Sequence[Stage]]]) -> Markup:
    """Times one after the other in a bar a row, all on one scale, with a legend and their sum."""
    height, top = 34.0, 26.0
    names = list(dict.fromkeys(stage.name for _, stages in rows for stage in stages))
    colours = {name: place + 1 for place, name in enumerate(names)}
    totals = [sum(stage.ms for stage in stages) for _, stages in rows]
    x = Linear(0.0, max(totals, default=0.0) or 1.0, _WIDE_LABEL, WIDTH - 72)
    parts = [*_legend(names, colours)]
    for number, ((label, stages), total) in enumerate(zip(rows, totals, strict=True)):
        y, begun = top + height * number, 0.0
        parts.append(text(0, y + 16, cut(label, _WIDE_LABEL), full=label))
        for stage in stages:
            start, end = x(begun), x(begun + stage.ms)
            wide, place = max(0.75, end - start - 1), f"c{colours[stage.name]}"
            parts.append(element("rect", x=start, y=y + 3, width=wide, height=18.0, class_=place))
            begun += stage.ms
        parts.append(text(WIDTH, y + 16, ms(total), "end small"))
    told = "; ".join(f"{label}: " + ", ".join(f"{s.name} {ms(s.ms)}" for s in stages) for label, stages in rows)
    return chart(title, told, top + height * len(rows), parts)


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity with its range, and its words."""

    label: str
    value: float
    low: float
    high: float
    words: str
    colour: int = 1
    valid: bool = True


def amounts_chart(title: str, rows: Sequence[Amount], unit: str) -> Markup:
    """Bars from zero, each with its range as a thin line, names above and words beside."""
    height, top, right = 40.0, 4.0, WIDTH - 130
    x = Linear(0.0, max((row.high for row in rows), default=0.0) or 1.0, 0.0, right)
    parts = []
    for number, row in enumerate(rows):
        y = top + height * number
        label = row.label + ("" if row.valid else " — INVALID")
        parts.append(text(0, y + 12, cut(label, WIDTH, 11), "small strong" + ("" if row.valid else " bad"), label))
        parts.append(
            element("rect", x=0.0, y=y + 17, width=max(1.0, x(row.value)), height=14.0, class_=f"c{row.colour}")
        )
        parts.append(element("line", x1=x(row.low), x2=x(row.high), y1=y + 24, y2=y + 24, class_="axis"))
        parts.append(text(WIDTH, y + 28, row.words, "small end"))
    base = top + height * len(rows)
    parts.append(text(0, base + 12, unit, "soft small"))
    return chart(title, "; ".join(f"{row.label}: {row.words}" for row in rows), base + 16, parts)
