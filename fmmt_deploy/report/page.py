"""The frame of our HTML pages: one file that needs nothing else, in any light, at any width, on screen and on paper.

A page has no script, and its policy lets the browser load nothing: no style but the one in its head, no picture but
those inside it. So `style="…"` has no effect in a body; what can be styled has a class in `page.css`.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from fmmt_deploy.foreign_text import harmless

__all__ = ["page"]

_FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{{ digest }}'; img-src data:; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{{ body }}
</body>
</html>
"""


def page(title: str, body: str) -> str:
    """A whole page. All of it passes here, so here no character gets through that turns or hides what stands beside it.

    Args:
        title: Of the window; plain text.
        body: What is between `<body>` and its end; HTML, in which everything from outside is escaped already.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    whole = _template().render(title=title, body=Markup(body), style=Markup(style), digest=f"sha256-{digest}")
    return harmless(whole)


@cache
def _style() -> str:
    return files("fmmt_deploy.report").joinpath("page.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(_FRAME)
