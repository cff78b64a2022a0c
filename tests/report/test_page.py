"""The frame of HTML pages."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.facts import facts_from_bundle
from fmmt_deploy.report.page import page
from fmmt_deploy.report.report import html_from_facts
from tests.report.bench_sample import bench
from tests.report.samples import evaluated, judged_bundle, receipt, settings


class Found(HTMLParser):
    """Tags with their attributes, and the text of the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "title":
            self.title += data


def test_a_page_is_one_file_without_scripts_or_addresses() -> None:
    text = page("A title", "<main><p>words</p></main>")
    assert text.startswith("<!doctype html>")
    assert "<main><p>words</p></main>" in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", text)


def test_a_title_is_text() -> None:
    found = Found(page("</title><script>alert(1)</script>", ""))
    assert "script" not in [tag for tag, _ in found.tags]
    assert found.title.strip().startswith("</title><script>")


STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HOSTILE = "\x1b[2Jturned \u202e\x9b\u2067 \u2028\nrm -rf ~"


def test_no_character_steers_what_stands_beside_it() -> None:
    text = page(f"title {HOSTILE}", f"<p>{HOSTILE}</p>\n\t<p>é – ✓\N{NO-BREAK SPACE}%</p>")
    assert not STEERING.search(text)
    assert text.count("\\x1b[2Jturned \\u202e\\x9b\\u2067 \\u2028\nrm") == 2
    assert "</p>\n\t<p>é – ✓\N{NO-BREAK SPACE}%</p>" in text


def test_what_a_receipt_says_steers_no_page_and_adds_no_command(tmp_path: Path) -> None:
    """Also in charts, and in what is to be pasted into a shell."""
    document, speed = evaluated("INCONCLUSIVE"), bench(HOSTILE)
    document["data"]["source"] = document["modes"][0]["equivalence"]["words"] = HOSTILE
    speed["workloads"][0]["files"]["single-stream"]["rows"][1]["engine"] = HOSTILE
    bundle = judged_bundle(tmp_path / "bundle", evaluation_document=document, bench_document=speed)
    append_receipt(bundle, receipt("eval", document, settings=settings(engine=HOSTILE, precision="fp32")))
    text = html_from_facts(facts_from_bundle(bundle.path))
    assert not STEERING.search(text)
    lines = [
        line for found in re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL) for line in found.split("\n")
    ]
    assert lines
    assert all(line.startswith("fmmt ") for line in lines)
    assert any("--engine &#39;\\x1b[2Jturned" in line for line in lines)


def test_the_policy_allows_the_style_in_the_head_and_nothing_else() -> None:
    text = page("t", "")
    policy = next(a["content"] for _, a in Found(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
