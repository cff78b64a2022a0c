"""The picture of a training: what is in it, by the text and paths of its SVG, and what it refuses."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
