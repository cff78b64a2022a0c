"""The verdict as a picture: what each precision costs beside float32, against how well it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.selection.labels import Box, placed_labels
from fmmt_deploy.selection.marks import MARKS, MarkName
from fmmt_deploy.selection.matrix import Part, Row
from fmmt_deploy.selection.report import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "Point", "View", "check_plot", "front", "plot_verdict", "points_of"]

SUFFIXES = (".svg", ".png")
_COLOURS = {"swin": "tab:blue", "plm": "tab:orange", "fusion": "tab:green", "unimodal": "tab:purple", "all": "0.25"}
_LEAST_POINTS = 0.5
_FONT = 7.5
_MARKERS: dict[MarkName, str] = {"worth it": "o", "no gain": "s", "dominated": "v", "harmful": "X"}


@dataclass(frozen=True, slots=True)
class Point:
    """A row in one panel.

    Attributes:
        part: Which part of the model.
        label: Its precision.
        mark: What became of it.
        cost: Relative to float32.
        quality: More is better.
        low: Of the quality's interval; the quality itself where there is none.
        high: Likewise.
        equal: Whether the answers are float32's, so that the quality is only where that is drawn.
    """

    part: Part
    label: str
    mark: MarkName
    cost: float
    quality: float
    low: float
    high: float
    equal: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What a line of panels shows: the axes' names, and what gives a row's values (None where it has none)."""

    cost_name: str
    cost: Callable[[Row], float | None]
    quality_name: str
    quality: Callable[[Row], tuple[float, float, float] | None]


def check_plot(path: Path) -> None:
    """Says before any work is done whether a plot can be made.

    Raises:
        UsageError: Its name does not end in one of `SUFFIXES`, or its folder does not exist.
        EnvironmentProblem: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"A plot's name ends in {' or '.join(SUFFIXES)}, found {path}.", fix="Rename it.", path=path)
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", fix="Make it, or give another path.", path=path)
    _matplotlib()


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both cost and quality, by cost; harmful ones are not among them."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.quality)):
        if point.mark != "harmful" and (not best or point.quality > best[-1].quality):
            best.append(point)
    return best


def points_of(rows: Sequence[Row], view: View) -> list[Point]:
    """The rows that have both a cost and a finite quality."""
    points = []
    for row in rows:
        x, y = view.cost(row), view.quality(row)
        if row.mark is not None and row.judgement is not None and x is not None and y is not None and not isnan(y[0]):
            equal = row.judgement.sqnr_db == inf and view.quality is not _f1
            points.append(Point(row.part, row.precision, row.mark.name, x, *y, equal))
    return points


def plot_verdict(verdict: Verdict, path: Path) -> None:
    """Draws SQNR, and ΔF1 where labels are known, against bytes, and against time where it was measured.

    A column a part of the model, so that its precisions stand beside each other and the front can be seen.

    Args:
        verdict: What was found.
        path: An SVG or a PNG, by its suffix; replaced if it is there.

    Raises:
        EnvironmentProblem: matplotlib is not installed, or the file can't be written.
        UsageError: See `check_plot`.
    """
    check_plot(path)
    figure_of, style = _matplotlib()
    judged = [row for row in verdict.rows if row.mark is not None]
    parts = list(dict.fromkeys(row.part for row in judged))
    views = _views(judged, verdict.labelled)
    with style({"svg.hashsalt": "fmmt", "svg.fonttype": "none", "font.size": 8.5}):
        size = (1.0 + 3.0 * max(1, len(parts)), 1.2 + 2.7 * len(views))
        figure = figure_of(figsize=size, layout="constrained")
        panels = figure.subplots(len(views), max(1, len(parts)), squeeze=False, sharey="row")
        drawn = []
        for line, view in zip(panels, views, strict=True):
            line[0].set_ylabel(view.quality_name)
            for axes, part in zip(line, parts, strict=False):
                points = points_of([row for row in judged if row.part == part], view)
                _draw(axes, points, view)
                drawn.append((axes, points))
                axes.set_xlabel(view.cost_name)
        for axes, part in zip(panels[0], parts, strict=False):
            axes.set_title("all at once" if part == "all" else part, color=_COLOURS[part], fontweight="bold")
        figure.suptitle(
            f"Precisions against float32, {verdict.engine}: {verdict.utterances} utterances of {verdict.dialogues} "
            "dialogues"
        )
        _legend(figure, judged)
        figure.draw_without_rendering()  # the layout is known from here on, and so how far labels are apart
        for axes, points in drawn:
            _label(axes, points)
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise EnvironmentProblem(
                f"{path} can't be written.", why=str(error), fix="Free some space, or give another path.", path=path
            ) from error


def _views(rows: Sequence[Row], labelled: bool) -> list[View]:
    costs: list[tuple[str, Callable[[Row], float | None]]] = [("bytes of weights / float32's", _bytes)]
    if any(row.timing is not None for row in rows):
        costs.append(("measured time / float32's", _time))
    top = max((r.judgement.sqnr_db for r in rows if r.judgement and isfinite(r.judgement.sqnr_db)), default=100.0)
    views = [View(name, cost, "SQNR of the logits [dB]", partial(_sqnr, top=top + 10)) for name, cost in costs]
    if labelled:
        views += [View(name, cost, "change of F1 [points], 95 %", _f1) for name, cost in costs]
    return views


def _draw(axes: Axes, points: Sequence[Point], view: View) -> None:
    edge = front(points)
    if edge:
        xs, ys = [p.cost for p in edge], [p.quality for p in edge]
        axes.plot(xs, ys, color=_COLOURS[edge[0].part], linewidth=1, alpha=0.5, zorder=1)
    for point in points:
        spread = [[point.quality - point.low], [point.high - point.quality]]
        axes.errorbar(
            point.cost, point.quality, yerr=spread if point.low < point.high else None,
            color=_COLOURS[point.part], marker=_MARKERS[point.mark], markersize=6, capsize=2, linewidth=0.8, zorder=2,
        )  # fmt: skip
    axes.grid(alpha=0.25)
    axes.margins(y=0.1)
    axes.set_xlim(0, 1.1 * max(1.0, *(point.cost for point in points), 0.0))
    if view.quality is _f1:
        axes.axhline(0, color="0.5", linewidth=0.7, zorder=0)
        axes.axhspan(-_LEAST_POINTS, _LEAST_POINTS, alpha=0)  # a change of nothing at all has no scale of its own


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Writes each precision beside its point; a line leads to those that had to go further off."""
    scale = 72 / axes.figure.dpi  # from pixels to points, in which texts are measured
    places = [(scale * x, scale * y) for x, y in (axes.transData.transform((p.cost, p.quality)) for p in points)]
    texts = [f"{point.label} (equal)" if point.equal else point.label for point in points]
    sizes = [(0.6 * _FONT * len(text), 1.2 * _FONT) for text in texts]
    frame = Box(*(scale * edge for edge in axes.bbox.extents))
    for point, text, size, (dx, dy) in zip(points, texts, sizes, placed_labels(places, sizes, frame), strict=True):
        far = abs(dx) > 14 + size[0] / 2 or abs(dy) > 14 + size[1] / 2
        axes.annotate(
            text, (point.cost, point.quality), xytext=(dx, dy), textcoords="offset points", ha="center", va="center",
            color=_COLOURS[point.part], fontsize=_FONT, zorder=3,
            arrowprops={"arrowstyle": "-", "color": _COLOURS[point.part], "linewidth": 0.5} if far else None,
            bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.3, "edgecolor": "none"},
        )  # fmt: skip


def _sqnr(row: Row, top: float) -> tuple[float, float, float] | None:
    """What is infinite because the answers are equal stands above all others."""
    if row.judgement is None:
        return None
    return (min(row.judgement.sqnr_db, top),) * 3


def _f1(row: Row) -> tuple[float, float, float] | None:
    if row.judgement is None or row.judgement.f1 is None:
        return None
    f1 = row.judgement.f1
    low, high = (f1.difference,) * 2 if f1.interval is None else (f1.interval.low, f1.interval.high)
    return 100 * f1.difference, 100 * min(low, f1.difference), 100 * max(high, f1.difference)


def _bytes(row: Row) -> float | None:
    return row.bytes_share


def _time(row: Row) -> float | None:
    if row.timing is None:
        return 1.0 if row.precision == "fp32" else None
    return 1 / row.timing.ratio.median


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    marks = [mark for mark in MARKS if any(row.mark is not None and row.mark.name == mark for row in rows)]
    handles = [Line2D([], [], color="0.4", marker=_MARKERS[m], linestyle="", markersize=6, label=m) for m in marks]
    handles.append(Line2D([], [], color="0.4", linewidth=1, label="front: none is better in both"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _matplotlib() -> tuple[Any, Any]:
    """A figure's class and a context of settings; no window and no global state is touched."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem(
            "A plot needs matplotlib, which is not installed.",
            why=str(error),
            fix="pip install 'fmmt-deploy[plots]', or leave out --plot.",
        ) from error
    return Figure, rc_context
