"""A real browser to look at pages with: Debian's Chromium, without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NEEDED = "FMMT_NEED_BROWSER"
WHERE = "chromium"
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium; without it the tests are skipped, or fail where `FMMT_NEED_BROWSER=1` says that it must be there."""
    path = shutil.which(WHERE)
    if path is None:
        fix = "install it (Debian: apt-get install chromium)"
        if os.environ.get(NEEDED) == "1":
            pytest.fail(f"{NEEDED}=1, and there is no {WHERE}: {fix}")
        pytest.skip(f"there is no {WHERE}: {fix}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, headless=True, args=list(_ARGUMENTS))
        try:
            yield opened
        finally:
            opened.close()


class Looked:
    """A page that was opened, with what it said and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def run(self, script: str) -> Any:
        """What a script says."""
        return self.page.evaluate(script)


@contextmanager
def looked(opened: Browser, file: Path, width: int = 1280, **options: Any) -> Iterator[Looked]:
    """Opens a file in a window of that width."""
    page = opened.new_page(viewport={"width": width, "height": 900}, **options)
    found = Looked(page)
    page.goto(file.as_uri())
    try:
        yield found
    finally:
        page.close()
