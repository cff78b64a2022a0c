"""Charts: well-formed, escaped, to scale."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from fmmt_deploy.report.charts.band import band_chart
from fmmt_deploy.report.charts.bars import (
    Amount,
    Stage,
    SwapRow,
    amounts_chart,
    shares_chart,
    starts_chart,
    swaps_chart,
    waterfall_chart,
)
from fmmt_deploy.report.charts.errors import ErrorRow, errors_chart
from fmmt_deploy.report.charts.heatmap import counts_heatmap
from fmmt_deploy.report.charts.histogram import MarkedValue, margins_histogram
from fmmt_deploy.report.charts.intervals import IntervalRow, intervals_chart
from fmmt_deploy.report.charts.latency import LatencyRow, latency_chart
from fmmt_deploy.report.charts.roofline import Roof, RoofPoint, roofline_chart
from fmmt_deploy.report.charts.scales import Linear, Log, linear_over, log_over
from fmmt_deploy.report.charts.svg import WIDTH, element, text

EVIL = '<script>alert("x")</script>&\'' + "long" * 200


def every_chart(name: str) -> dict[str, Markup]:
    """Each kind of chart with that name wherever one goes."""
    return {
        "intervals": intervals_chart(name, [IntervalRow(name, 0.1, -0.2, 0.3, judged=True)], 0.5, name),
        "band": band_chart(name, [(name, [66.1, 66.4])], (66.0, 66.5), 66.2, name),
        "heatmap": counts_heatmap(name, [name, "b"], [(3, 1), (0, 2)], (name, name)),
        "flips": counts_heatmap(name, [name, "b"], [(3, 1), (0, 2)], (name, name), skip_diagonal=True),
        "histogram": margins_histogram(name, [0, 1e-3, 1e-2], [1, 5], [MarkedValue(name, 2e-3)], name),
        "shares": shares_chart(name, [(name, {"fp16": 0.9, "fp32": 0.1})], {"fp32": 6, "fp16": 1}),
        "waterfall": waterfall_chart(name, [Stage(name, 2.0), Stage("b", 0.0)]),
        "starts": starts_chart(name, [(name, [Stage(name, 2.0)])]),
        "swaps": swaps_chart(name, [name, "plm"], [SwapRow((True, False), -0.3, 4)], name),
        "amounts": amounts_chart(name, [Amount(name, 3.0, 2.0, 4.0, name, valid=False)], name),
        "errors": errors_chart(name, [ErrorRow(name, 1e-5, 1e-3, 1e-2, False)], name),
        "latency": latency_chart(name, [LatencyRow(name, (("p50", 3.0),), (1.0, 2.0, 4.0), (2, 5), 1, False)], name),
        "roofline": roofline_chart(name, [Roof(name, 400.0)], 20.0, [RoofPoint(name, 30.0, 200.0)], [(name, 1)]),
    }


@pytest.mark.parametrize("kind", every_chart("x"))
def test_a_chart_is_well_formed_whatever_it_is_told(kind: str) -> None:
    root = ElementTree.fromstring(every_chart(EVIL)[kind])
    tags = [part.tag for part in root.iter()]
    assert tags[:3] == ["svg", "title", "desc"]
    assert "script" not in tags
    assert root[0].text == EVIL
    assert root.attrib["role"] == "img"
    assert "style" not in {name for part in root.iter() for name in part.attrib}  # the page's policy forbids it


@pytest.mark.parametrize("kind", every_chart("x"))
def test_what_a_chart_draws_is_inside_it(kind: str) -> None:
    root = ElementTree.fromstring(every_chart("name")[kind])
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for part in root.iter():
        for name, most in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height)):
            if name in part.attrib:
                assert 0 <= float(part.attrib[name]) <= most, (part.tag, part.attrib)
        if part.tag == "rect":
            assert float(part.attrib["x"]) + float(part.attrib["width"]) <= width
            assert float(part.attrib["y"]) + float(part.attrib["height"]) <= height


def test_a_chart_of_nothing_is_empty_and_no_error() -> None:
    for chart in (
        intervals_chart("t", [], 0.5, "u"),
        band_chart("t", [], (0.0, 0.0), None, "u"),
        counts_heatmap("t", [], [], ("a", "b")),
        margins_histogram("t", [], [], [], "u"),
        shares_chart("t", [], {}),
        waterfall_chart("t", []),
        starts_chart("t", []),
        swaps_chart("t", [], [], "u"),
        amounts_chart("t", [], "u"),
        errors_chart("t", [], "u"),
        latency_chart("t", [], "u"),
        roofline_chart("t", [], None, []),
    ):
        assert ElementTree.fromstring(chart).tag == "svg"


def test_an_interval_is_green_inside_the_band_red_outside_and_else_in_doubt() -> None:
    def colour(low: float, high: float) -> str:
        middle = (low + high) / 2
        root = ElementTree.fromstring(intervals_chart("t", [IntervalRow("a", middle, low, high, True)], 0.5, "u"))
        return next(part.attrib["class"] for part in root.iter("circle"))

    assert [colour(-0.1, 0.2), colour(-1.2, -0.6), colour(-0.6, 0.1)] == ["fgood", "fbad", "fwarn"]


def test_bars_of_a_waterfall_follow_each_other_and_are_to_scale() -> None:
    root = ElementTree.fromstring(waterfall_chart("t", [Stage("a", 1.0), Stage("b", 3.0)]))
    first, second = [(float(r.attrib["x"]), float(r.attrib["width"])) for r in root.iter("rect")]
    assert first[0] + first[1] == pytest.approx(second[0], abs=0.02)
    assert second[1] == pytest.approx(3 * first[1], abs=0.05)


def test_a_cell_of_the_heatmap_is_coloured_by_its_share_of_the_row() -> None:
    root = ElementTree.fromstring(counts_heatmap("t", ["a", "b"], [(9, 1), (0, 5)], ("r", "c")))
    assert [r.attrib["class"].split()[1] for r in root.iter("rect")] == ["h9", "h1", "h0", "h10"]


def test_bins_below_the_largest_error_stand_out() -> None:
    edges = [1e-4, 1e-3, 1e-2, 1e-1]
    root = ElementTree.fromstring(margins_histogram("t", edges, [1, 2, 3], [MarkedValue("error", 1e-2)], "u"))
    assert [r.attrib["class"] for r in root.iter("rect")] == ["fwarn", "fwarn", "c1"]


NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_a_linear_scale_keeps_order_and_stays_inside(values: list[float]) -> None:
    scale = linear_over(values, 10, 90)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 90 for place in places)
    assert all(scale.low - 1e-6 <= tick <= scale.high + 1e-6 for tick in scale.ticks())
    assert len(scale.ticks()) <= 8


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5))
def test_a_logarithmic_scale_keeps_order_and_stays_inside(values: list[float]) -> None:
    scale = log_over(values, 90, 10)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places, reverse=True)
    assert all(10 <= place <= 90 for place in places)
    assert 1 <= len(scale.ticks()) <= 8 or max(values) / min(values) < 2


def test_equal_factors_are_equal_distances() -> None:
    scale = Log(1, 1000, 0, 30)
    assert [scale(v) for v in (1, 10, 100, 1000, 0.0, -5)] == pytest.approx([0, 10, 20, 30, 0, 0])
    assert Linear(0, 4, 0, 8)(1) == 2
    assert math.isclose(Linear(-1, 1, 0, 10).ticks(4)[0], -1)


def test_text_is_escaped_and_numbers_are_short() -> None:
    assert text(1.23456, 2, "<b>", 'a"b') == '<text x="1.23" y="2" class="a&#34;b">&lt;b&gt;</text>'
    assert element("line", x1=1.0, stroke_width=None) == '<line x1="1"/>'
    assert WIDTH == 420
