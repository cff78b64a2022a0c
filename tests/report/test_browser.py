"""The report in a real browser: it loads, is seen, can be selected, fits, has contrast, and prints."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from fmmt_deploy.receipts.record import Hashed
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.facts import facts_from_bundle
from fmmt_deploy.report.report import html_from_facts
from tests.report.bench_sample import bench
from tests.report.browser import browser, looked
from tests.report.samples import evaluated, judged_bundle, receipt, settings

HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked=2">"\'&`' + "W" * 300
WIDTHS = (360, 1280)

BOXES = """() => [...document.querySelectorAll('svg.chart')].map(svg => {
  const box = svg.getBoundingClientRect();
  return {title: svg.querySelector('title').textContent, left: box.left, right: box.right, width: box.width,
          height: box.height, texts: svg.querySelectorAll('text').length};
})"""

# Relative luminance and contrast as WCAG 2.2 defines them, of every text against the nearest background behind it.
CONTRAST = """() => {
  const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour).length < 4 || rgb(colour)[3] === 1) return colour;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const unseen = ['title', 'desc'].includes(element.tagName.toLowerCase()) || !element.getClientRects().length;
    if (!own || unseen) continue;
    const style = getComputedStyle(element), drawn = element.namespaceURI.endsWith('svg');
    const [a, b] = [drawn ? style.fill : style.color, behind(element)].map(c => light(rgb(c)));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""

# Of heat maps' cells: the colour under a number is the cell's, which the browser mixes; a canvas says which it is.
CELLS = """() => {
  const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  return [...document.querySelectorAll('svg.chart rect.cell')].map(cell => {
    const [a, b] = [getComputedStyle(cell).fill, getComputedStyle(cell.nextElementSibling).fill].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }).sort((x, y) => x - y)[0];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    judged_bundle(folder / "bundle")
    file = folder / "report.html"
    file.write_text(html_from_facts(facts_from_bundle(folder / "bundle")), encoding="utf-8")
    return file


def test_it_loads_without_errors_or_requests(chromium: Browser, report: Path) -> None:
    with looked(chromium, report, java_script_enabled=True) as found:
        assert found.said == []
        assert found.asked == [report.as_uri()]
        assert found.page.title().startswith("May the engine replace the model?")
        assert found.page.locator("h2").count() >= 9


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_seen_and_nothing_is_wider_than_the_window(chromium: Browser, report: Path, width: int) -> None:
    with looked(chromium, report, width) as found:
        charts = found.run(BOXES)
        assert len(charts) >= 12
        for chart in charts:
            assert min(chart["width"] / 250, chart["height"] / 30, chart["texts"]) >= 1, chart
            assert 0 <= chart["left"] < chart["right"] <= width, chart
        assert found.run("document.documentElement.scrollWidth") <= width


# The last state of a chain is the widest in words; whatever a step is of, the states stand within the window.
STATES = """() => {
  const rows = [...document.querySelector('#receipts table').tBodies[0].rows];
  const place = [...document.querySelectorAll('#receipts table thead th')].findIndex(th => th.textContent === 'state');
  return rows.map(row => [row.cells[place].textContent, row.cells[place].getBoundingClientRect().right]);
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_the_states_of_the_chain_are_seen_without_scrolling(chromium: Browser, tmp_path: Path, width: int) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    long = {name: Hashed("ab" * 32, "checkpoint") for name in ("multimodal_T+A+V_RoBERTa.pt", "W" * 60)}
    of = settings(engine="ort", precision="fp32", data="/srv/" + "data" * 20, split="test", limit=24)
    append_receipt(bundle, receipt("export", {}, inputs=long))
    append_receipt(bundle, receipt("eval", evaluated(), verdict="INCONCLUSIVE", settings=of))
    file = tmp_path / "report.html"
    file.write_text(html_from_facts(facts_from_bundle(bundle.path)), encoding="utf-8")
    with looked(chromium, file, width) as found:
        states = found.run(STATES)
        assert {"✓ ok", "◌ unknown", "◌ missing"} <= {state for state, _ in states}
        assert max(right for _, right in states) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_in_charts_can_be_read(chromium: Browser, report: Path, width: int) -> None:
    with looked(chromium, report, width) as found:
        heights = found.run(
            "[...document.querySelectorAll('svg.chart text')].map(t => t.getBoundingClientRect().height)"
        )
        assert min(heights) >= 8.5


def test_text_in_a_chart_can_be_selected(chromium: Browser, report: Path) -> None:
    with looked(chromium, report) as found:
        label = found.page.locator("svg.chart text", has_text="surprise").first
        label.scroll_into_view_if_needed()
        label.dblclick()
        assert found.run("getSelection().toString().trim()") == "surprise"


def test_dark_and_light_differ_and_both_have_contrast(chromium: Browser, report: Path) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        with looked(chromium, report, color_scheme=scheme) as found:
            found.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            backgrounds.add(found.run("getComputedStyle(document.documentElement).backgroundColor"))
            worst = found.run(CONTRAST)
            assert worst[0][0] >= 4.5, (scheme, worst)  # WCAG 2.2, AA
            assert found.run(CELLS) >= 4.5, scheme
    assert len(backgrounds) == 2


def test_it_prints_on_white_sheets_with_everything_unfolded(chromium: Browser, report: Path) -> None:
    with looked(chromium, report, color_scheme="dark") as found:
        content = found.page.pdf(prefer_css_page_size=True)
        assert content.startswith(b"%PDF-")
        assert 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 30
        found.page.emulate_media(media="print", color_scheme="dark")
        assert found.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        folded = found.run("[...document.querySelectorAll('details table')].map(table => table.checkVisibility())")
        assert folded
        assert all(folded)
        found.page.set_viewport_size({"width": 680, "height": 900})  # A4 less its margins
        assert found.run("document.documentElement.scrollWidth") <= 680


def test_a_folded_table_is_closed_on_screen_and_opens_without_a_script(chromium: Browser, report: Path) -> None:
    with looked(chromium, report) as found:
        folded = found.page.locator("details").first
        table = folded.locator("table")
        assert not table.is_visible()
        folded.locator("summary").click()
        assert table.is_visible()


def hostile_documents() -> tuple[dict[str, object], dict[str, object]]:
    """Documents in which every text is hostile, and some numbers are none."""

    def spoilt(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {key: spoilt(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [spoilt(item, name) for item in value]
        if isinstance(value, float) and name in ("high", "ms", "f1", "largest"):
            return None
        return HOSTILE if isinstance(value, str) and name not in ("verdict", "mode", "schema") else value

    documents = (spoilt(evaluated()), spoilt(bench(HOSTILE)))
    assert all(isinstance(document, dict) for document in documents)
    return documents  # type: ignore[return-value]  # just asserted


def test_hostile_texts_do_nothing_and_fit(chromium: Browser, tmp_path: Path) -> None:
    evaluation, speed = hostile_documents()
    assert "window.hacked" in json.dumps(evaluation)
    judged_bundle(tmp_path / "bundle", evaluation_document=evaluation, bench_document=speed)
    file = tmp_path / "report.html"
    file.write_text(html_from_facts(facts_from_bundle(tmp_path / "bundle")), encoding="utf-8")
    for width in WIDTHS:
        with looked(chromium, file, width) as found:
            assert (found.said, found.asked) == ([], [file.as_uri()])
            assert found.run("window.hacked") is None
            assert found.run("document.querySelectorAll('script, img').length") == 0
            assert found.run("document.documentElement.scrollWidth") <= width
            assert "<script>" in found.page.inner_text("body")


def test_the_policy_stops_what_would_be_loaded_or_run(chromium: Browser, report: Path, tmp_path: Path) -> None:
    """Even if something got through the escaping, the page's own policy would stop it."""
    file = tmp_path / "injected.html"
    bad = "<script>window.hacked = 1</script><img src='http://[::1]/x.png'><p style='color: red' id='p'>p</p>"
    file.write_text(report.read_text(encoding="utf-8").replace("<main>", f"<main>{bad}"), encoding="utf-8")
    with looked(chromium, file) as found:
        assert found.run("window.hacked") is None
        assert found.run("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
        assert len(found.said) >= 3
        assert all("Content Security Policy" in said for said in found.said)
