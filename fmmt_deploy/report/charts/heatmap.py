"""A table of counts with a colour for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from markupsafe import Markup

from fmmt_deploy.report.charts.svg import WIDTH, chart, cut, element, text
from fmmt_deploy.report.figures import number

__all__ = ["counts_heatmap"]

_LEFT, _TOP = 66.0, 40.0


def counts_heatmap(
    title: str,
    names: Sequence[str],
    counts: Sequence[Sequence[float]],
    axes: tuple[str, str],
    *,
    ramp: Literal["h", "b", "g"] = "h",
    skip_diagonal: bool = False,
) -> Markup:
    """Counts by row and column; the colour is a count's share of its row, or of all where the diagonal is skipped.

    Args:
        title: What it shows.
        names: Of the rows, which are those of the columns.
        counts: A row for each name.
        axes: What rows and columns are.
        ramp: Which of the colours of `page.css`.
        skip_diagonal: Whether what stays the same is no finding.
    """
    cell = (WIDTH - _LEFT) / max(1, len(names))
    level = _levels(counts, skip_diagonal)
    told = f"Rows: {axes[0]}; columns: {axes[1]}. " + "; ".join(
        f"{names[i]} as {names[j]}: {number(count)}"
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if count and not (skip_diagonal and i == j)
    )
    parts = [*_heads(names, cell, axes)]
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            hidden = skip_diagonal and i == j
            parts += _cell(
                _LEFT + cell * j, _TOP + cell * i, cell, count, "h0" if hidden else f"{ramp}{level(i, j)}", hidden
            )
    return chart(title, told, _TOP + cell * len(counts), parts)


def _heads(names: Sequence[str], cell: float, axes: tuple[str, str]) -> Iterator[Markup]:
    yield text(0, 14, f"{axes[0]} ↓", "soft small")
    yield text(_LEFT, 14, f"{axes[1]} →", "soft small")
    for j, name in enumerate(names):
        yield text(_LEFT + cell * (j + 0.5), _TOP - 8, cut(name, cell + 6, 10.5), "small middle", name)
        yield text(_LEFT - 7, _TOP + cell * (j + 0.5) + 4, cut(name, _LEFT, 10.5), "small end", name)


def _cell(x: float, y: float, size: float, count: float, colour: str, hidden: bool) -> Iterator[Markup]:
    yield element("rect", x=x, y=y, width=size, height=size, class_=f"cell {colour}")
    shown = number(count)
    yield text(x + size / 2, y + size / 2 + 4, shown, "middle soft small" if hidden or not count else "middle")


def _levels(counts: Sequence[Sequence[float]], skip_diagonal: bool) -> Callable[[int, int], int]:
    """0 to 10; what is there at all is at least 1."""
    off = max((n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=0.0)

    def level(i: int, j: int) -> int:
        whole = off if skip_diagonal else sum(counts[i])
        if not counts[i][j] or whole <= 0:
            return 0
        return min(10, max(1, round(10 * counts[i][j] / whole)))

    return level
