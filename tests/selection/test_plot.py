"""The picture: what is in it, read off the SVG's own text and the points it is made from."""

import re
import sys
from dataclasses import replace
from math import nan
from pathlib import Path

import cv2
import pytest

from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.selection.plot import Point, View, check_plot, front, plot_verdict, points_of
from tests.selection.verdicts import judgement, row, sample_verdict


def words(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_an_svg_says_what_is_what(tmp_path: Path) -> None:
    path = tmp_path / "verdict.svg"
    plot_verdict(sample_verdict(), path)
    text = words(path)
    for part in ("swin", "plm", "fusion", "all at once"):
        assert part in text
    assert text.count("fp8") == 2 * 3  # in both qualities by bytes, of three parts; the fourth has none
    assert text.count("int8-fp32") == 4 * 4  # timed as well
    assert text.count("fp32 (equal)") == 2 * 4
    assert {"worth it", "no gain", "dominated", "harmful"} <= set(text)
    assert text.count("bytes of weights / float32&apos;s") + text.count("bytes of weights / float32's") == 8
    assert "Precisions against float32, emulated: 100 utterances of 12 dialogues" in text


def test_a_png_is_a_picture_and_the_same_again(tmp_path: Path) -> None:
    verdict = sample_verdict()
    small = replace(verdict, rows=tuple(r for r in verdict.rows if r.part == "plm"))
    for name in ("one.png", "two.png", "one.svg", "two.svg"):
        plot_verdict(small, tmp_path / name)
    picture = cv2.imread(str(tmp_path / "one.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 500
    assert picture.std() > 5
    for suffix in ("png", "svg"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_without_labels_and_times_there_is_one_line_of_panels(tmp_path: Path) -> None:
    verdict = sample_verdict()
    rows = tuple(replace(r, timing=None) for r in verdict.rows)
    plot_verdict(replace(verdict, rows=rows, labelled=False), tmp_path / "bare.svg")
    text = words(tmp_path / "bare.svg")
    assert not [t for t in text if "time" in t or "F1" in t]
    assert text.count("SQNR of the logits [dB]") == 1


def test_nothing_judged_is_an_empty_picture(tmp_path: Path) -> None:
    plot_verdict(replace(sample_verdict(), rows=()), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0


def test_what_has_no_value_is_not_drawn() -> None:
    view = View("cost", lambda r: r.bytes_share or None, "quality", lambda r: (r.judgement.sqnr_db,) * 3)  # type: ignore[union-attr]
    broken = replace(row("swin", "fp16"), judgement=judgement(nan, not_finite="NaN"))
    rows = [row("swin", "bf16"), broken, replace(row("swin", "fp8"), bytes_share=0.0)]
    (only,) = points_of(rows, view)
    assert (only.label, only.mark, only.cost, only.quality, only.equal) == ("bf16", "dominated", 0.5, 43.5, False)


def test_the_front() -> None:
    def point(cost: float, quality: float, mark: str = "worth it") -> Point:
        return Point("swin", f"{cost}", mark, cost, quality, quality, quality)  # type: ignore[arg-type]

    points = [point(1, 100), point(0.5, 60), point(0.5, 40), point(0.3, 30), point(0.2, 90, "harmful"), point(0.4, 20)]
    assert [(p.cost, p.quality) for p in front(points)] == [(0.3, 30), (0.5, 60), (1, 100)]
    assert front([]) == []


def test_names_and_folders(tmp_path: Path) -> None:
    for name in ("plot.pdf", "plot"):
        with pytest.raises(UsageError, match=r"\.svg or \.png"):
            check_plot(tmp_path / name)
    with pytest.raises(UsageError, match="no folder"):
        check_plot(tmp_path / "none" / "plot.svg")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EnvironmentProblem, match="matplotlib") as caught:
        check_plot(tmp_path / "plot.svg")
    assert "fmmt-deploy[plots]" in caught.value.fix


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").mkdir()
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        plot_verdict(replace(sample_verdict(), rows=()), tmp_path / "plot.svg")
