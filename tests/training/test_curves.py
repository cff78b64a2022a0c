"""The picture of a training: what is in it, by the text and paths of its SVG, and what it refuses."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmmt_deploy.errors import DataError, EnvironmentProblem
from fmmt_deploy.training.curves import draw_curves, running
from fmmt_deploy.training.jsonl_log import JsonlLog
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.watching import EpochRecord, StepRecord
from tests.training.records import step, whole_run


def written(path: Path, told: list[StepRecord | EpochRecord]) -> Path:
    log = JsonlLog(path / "log.jsonl", Settings())
    for record in told:
        if isinstance(record, StepRecord):
            log.step(record)
        else:
            log.epoch(record)
    log.close()
    return path / "log.jsonl"


def phase_of(record: StepRecord | EpochRecord) -> str:
    return record.phase if isinstance(record, StepRecord) else ""


class Drawn(NamedTuple):
    """A figure's panels by title, and its legend's handles by name."""

    panels: dict[str, Axes]
    legend: dict[str, Any]


def texts(svg: Path) -> list[str]:
    """matplotlib notes each text that it draws as a comment."""
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg.read_text(encoding="utf-8"))]


def test_everything_is_in_the_picture(tmp_path: Path) -> None:
    told = whole_run(epochs=4, steps=40, worse=[3, 4])
    draw_curves(written(tmp_path, told), tmp_path / "curves.svg")
    shown = texts(tmp_path / "curves.svg")
    second = [record for record in told if isinstance(record, EpochRecord)][1].validation
    assert f"best: {100 * second.weighted_f1:.2f} in epoch 2" in shown
    assert "decisions of epoch 2, validation split" in shown
    for expected in ("faces", "utterances", "gradient norm before clipping", "learning rate × 10⁶", "disgust"):
        assert expected in shown
    counts = Counter(str(count) for row in second.confusion for count in row if count)
    assert not counts - Counter(shown)


def test_a_short_run_without_faces_can_be_drawn(tmp_path: Path) -> None:
    """And before its first epoch is over; numbers that are not finite are gaps."""
    told = [step("target", 1), replace(step("target", 2), gradient_norm=float("inf"))]
    draw_curves(written(tmp_path, told), tmp_path / "curves.svg")
    shown = texts(tmp_path / "curves.svg")
    assert "no epoch is over yet" in shown
    assert "faces" not in shown


def test_it_is_a_picture_of_a_size_to_print(tmp_path: Path) -> None:
    draw_curves(written(tmp_path, whole_run()), tmp_path / "curves.png")
    height, width, _ = cv2.imread(str(tmp_path / "curves.png")).shape
    assert (width, height) == (1575, 960)
    assert not list(tmp_path.glob(".*"))


def test_what_cant_be_drawn(tmp_path: Path) -> None:
    log = written(tmp_path, [])
    with pytest.raises(DataError, match="no step in it"):
        draw_curves(log, tmp_path / "curves.png")
    log = written(tmp_path, whole_run())
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        draw_curves(log, tmp_path / "no" / "curves.png")


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[StepRecord | EpochRecord]], Drawn]:
    """Draws, and gives the figure by the titles of its panels instead of saving it."""

    def drawn(told: list[StepRecord | EpochRecord]) -> Drawn:
        seen: list[Figure] = []
        with monkeypatch.context() as patched:
            patched.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
            draw_curves(written(tmp_path, told), tmp_path / "curves.png")
        panels = {axes.get_title(loc="left"): axes for axes in seen[0].axes}
        legend = {text.get_text(): handle for text, handle in _entries(seen[0])}
        return Drawn(panels, legend)

    return drawn


def _entries(figure: Figure) -> list[tuple[Any, Any]]:
    (legend,) = figure.legends
    return list(zip(legend.get_texts(), legend.legend_handles, strict=True))


def test_every_number_is_at_its_place(figure: Callable[[list[StepRecord | EpochRecord]], Drawn]) -> None:
    told = [replace(r, loss=3 / r.total) if phase_of(r) == "faces" else r for r in whole_run(epochs=2, worse=[2])]
    shown = figure(told)
    values: dict[str, Callable[[StepRecord], float]] = {
        "loss (cross-entropy)": lambda r: r.loss,
        "gradient norm before clipping": lambda r: r.gradient_norm,
        "learning rate × 10⁶": lambda r: r.learning_rate / 1e-6,
    }
    for title, value in values.items():
        for line, phase in zip(shown.panels[title].lines, ("faces", "target"), strict=True):
            steps = [record for record in told if isinstance(record, StepRecord) and record.phase == phase]
            np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2])
            np.testing.assert_allclose(line.get_ydata(), [value(record) for record in steps])
            named = shown.legend["faces" if phase == "faces" else "utterances"]
            assert (line.get_color(), line.get_linestyle()) == (named.get_color(), named.get_linestyle())
    epochs = [record for record in told if isinstance(record, EpochRecord)]
    scores, star = shown.panels["weighted F1 on the validation split, × 100"].lines
    assert list(scores.get_xdata()) == [1, 2]
    np.testing.assert_allclose(scores.get_ydata(), [100 * record.validation.weighted_f1 for record in epochs])
    np.testing.assert_allclose(star.get_xydata(), [[1, 100 * epochs[0].validation.weighted_f1]])
    confusion = np.array(epochs[0].validation.confusion)
    panel = shown.panels["decisions of epoch 1, validation split"]
    counts = {text.get_position()[::-1]: int(text.get_text()) for text in panel.texts}
    assert counts == {place: count for place, count in np.ndenumerate(confusion) if count}
    shares = confusion / confusion.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(panel.images[0].get_array(), shares)


def test_a_band_holds_most_of_the_steps_around(figure: Callable[[list[StepRecord | EpochRecord]], Drawn]) -> None:
    """By NumPy's percentiles of the four steps around each, of a hundred."""
    losses = np.random.default_rng(0).random(100)
    told = [replace(step("target", n + 1, 100), loss=float(loss)) for n, loss in enumerate(losses)]
    panel = figure(list(told)).panels["loss (cross-entropy)"]
    around = np.lib.stride_tricks.sliding_window_view(losses, 4)
    np.testing.assert_allclose(panel.lines[0].get_ydata()[1:-2], np.median(around, axis=1))
    corners = {(round(float(x), 6), round(float(y), 6)) for x, y in panel.collections[0].get_paths()[0].vertices}
    low, high = np.percentile(around, (10, 90), axis=1)
    for row in range(len(around)):
        for edge in (low[row], high[row]):
            assert (round((row + 2) / 100, 6), round(float(edge), 6)) in corners


@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=40),
    window=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_running_percentiles_are_numpys(values: list[float], window: int) -> None:
    found = running(values, window, (10, 50, 90))
    assert found.shape == (3, len(values))
    for place in range(len(values)):
        around = np.array(values[max(0, place - (window - 1) // 2) : place + window // 2 + 1])
        around = around[np.isfinite(around)]
        expected = np.percentile(around, (10, 50, 90)) if len(around) else np.full(3, np.nan)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-9, atol=1e-6)
