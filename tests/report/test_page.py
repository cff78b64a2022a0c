"""The frame of HTML pages."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from fmmt_deploy.report.page import page


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


def test_the_policy_allows_the_style_in_the_head_and_nothing_else() -> None:
    text = page("t", "")
    policy = next(a["content"] for _, a in Found(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
