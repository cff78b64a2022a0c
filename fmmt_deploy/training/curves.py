"""The picture of a training, drawn from its log: losses, rates, gradients, validation, and the best epoch's confusion.

Colours are those of Okabe and Ito, which people see alike who don't see all colours; lines differ in kind too, so that
they can be told apart in print without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fmmt_deploy.errors import DataError, EnvironmentProblem
from fmmt_deploy.evaluation.scores import DoubleArray
from fmmt_deploy.training.jsonl_log import EpochLine, TrainingLog, read_log
from fmmt_deploy.training.watching import Phase, StepRecord
from fmmt_deploy.types import EMOTIONS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "running"]

_LINES: dict[Phase, tuple[str, str, Literal["-", "--"]]] = {
    "faces": ("faces", "#E69F00", "--"),
    "target": ("utterances", "#0072B2", "-"),
}
_F1, _BEST = "#009E73", "#D55E00"
_FONT = 8.5
_WINDOW = 25
"""What is taken together is a twenty-fifth of a curve's steps."""


def draw_curves(log: Path, out: Path) -> None:
    """Draws a training's log.

    Args:
        log: Its `log.jsonl`.
        out: A PNG (or SVG, by its suffix); replaced if it is there.

    Raises:
        DataError: The log can't be read, or has no step in it.
        EnvironmentProblem: matplotlib is not installed, or the picture can't be written.
    """
    found = read_log(log)
    if not found.steps:
        raise DataError(f"{log} has no step in it.", fix="Train for at least one.", path=log)
    figure_of, style = _matplotlib()
    with style({"font.size": _FONT, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "fmmt"}):
        figure = figure_of(figsize=(10.5, 6.4), layout="constrained")
        panels = figure.subplot_mosaic([["loss", "f1", "f1"], ["rate", "norm", "confusion"]], width_ratios=[1, 1, 1.15])
        _draw_steps(panels["loss"], found, lambda step: step.loss, "loss (cross-entropy)")
        _draw_steps(panels["norm"], found, lambda step: step.gradient_norm, "gradient norm before clipping")
        _draw_steps(panels["rate"], found, lambda step: 1e6 * step.learning_rate, "learning rate × 10⁶", smooth=False)
        _by_decades(panels["norm"])
        for name in ("loss", "rate"):
            panels[name].set_ylim(bottom=0)
        best = max((line for line in found.epochs if line.best), key=lambda line: line.epoch, default=None)
        _draw_f1(panels["f1"], found.epochs, best)
        _draw_confusion(panels["confusion"], best)
        _legend(figure, found)
        try:
            figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else {"Software": None})
        except OSError as error:
            raise EnvironmentProblem(
                f"{out} can't be written.", why=str(error), fix="Free some space; the log has all of it.", path=out
            ) from error


def running(values: Sequence[float], window: int, percents: Sequence[float]) -> DoubleArray:
    """Percentiles of each value and those around it.

    Args:
        values: (S,); NaN counts for nothing.
        window: Values that are taken together; fewer at the ends.
        percents: (P,), 0 to 100.

    Returns:
        (P, S); NaN where a window holds nothing else.
    """
    before, after = (window - 1) // 2, window // 2
    padded = np.pad(np.asarray(values, np.float64), (before, after), constant_values=np.nan)
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)  # NaN goes to the end
    places = np.maximum(np.isfinite(windows).sum(axis=1) - 1, 0) * np.asarray(percents)[:, None] / 100
    rows, low = np.arange(len(windows)), np.floor(places).astype(np.int64)
    high = np.ceil(places).astype(np.int64)
    found: DoubleArray = windows[rows, low] + (places - low) * (windows[rows, high] - windows[rows, low])
    return found


def _draw_steps(
    axes: Axes, log: TrainingLog, value: Callable[[StepRecord], float], name: str, smooth: bool = True
) -> None:
    """A curve a phase against epochs, which both phases share, however many steps each has."""
    for order, (phase, (_, colour, style)) in enumerate(_LINES.items()):
        steps = [step for step in log.steps if step.phase == phase]
        if not steps:
            continue
        epochs = [step.epoch - 1 + step.step / step.steps for step in steps]
        values = [value(step) for step in steps]
        if smooth:
            low, middle, high = running(values, max(1, len(values) // _WINDOW), (10, 50, 90))
            axes.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0, zorder=2 + order)
            values = middle.tolist()
        axes.plot(epochs, values, color=colour, linestyle=style, linewidth=1.6, zorder=9 - order)
    axes.set_title(name, fontsize=_FONT + 0.5, loc="left")
    _epochs_below(axes, log)


def _epochs_below(axes: Axes, log: TrainingLog) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epochs")
    axes.set_xlim(0, max(step.epoch for step in log.steps))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _by_decades(axes: Axes) -> None:
    """A logarithmic axis whose ends are 1, 2 or 5 of a decade, with each of those written out."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = np.outer(10.0 ** np.arange(-12, 13), (1, 2, 5)).ravel()
    below, above = steps[steps <= low], steps[steps >= high]
    axes.set_ylim(below[-1] if len(below) else low, above[0] if len(above) else high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_f1(axes: Axes, epochs: Sequence[EpochLine], best: EpochLine | None) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("weighted F1 on the validation split, × 100", fontsize=_FONT + 0.5, loc="left")
    axes.set_xlabel("epochs")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9", linewidth=0.6)
    if best is None:
        axes.text(0.5, 0.5, "no epoch is over yet", ha="center", va="center", transform=axes.transAxes)
        return
    numbers, scores = [line.epoch for line in epochs], [100 * line.weighted_f1 for line in epochs]
    axes.plot(numbers, scores, color=_F1, marker="o", markersize=3.5, linewidth=1.5)
    name = f"best: {100 * best.weighted_f1:.2f} in epoch {best.epoch}"
    axes.plot([best.epoch], [100 * best.weighted_f1], color=_BEST, marker="*", markersize=13, linestyle="", label=name)
    axes.legend(frameon=False)
    axes.margins(y=0.14)
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)


def _draw_confusion(axes: Axes, best: EpochLine | None) -> None:
    if best is None:
        axes.set_axis_off()
        return
    counts = np.array(best.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=_FONT - 1.5)
    axes.set_title(f"decisions of epoch {best.epoch}, validation split", fontsize=_FONT + 0.5, loc="left")
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_xlabel("decision")
    axes.set_ylabel("truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend(figure: Figure, log: TrainingLog) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = [_LINES[phase] for phase in _LINES if any(step.phase == phase for step in log.steps)]
    handles: list[Artist] = [Line2D([], [], color=colour, linestyle=style, label=name) for name, colour, style in shown]
    if any(step.steps * len(log.epochs) >= 2 * _WINDOW for step in log.steps[-1:]):
        handles.append(Patch(color="0.8", label="80 % of the steps around; the line is their median"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)


def _matplotlib() -> tuple[Any, Any]:
    """A figure's class and a context of settings; no window and no global state is touched."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem(
            "The curves need matplotlib, which is not installed.",
            why=str(error),
            fix="pip install 'fmmt-deploy[train]'.",
        ) from error
    return Figure, rc_context
