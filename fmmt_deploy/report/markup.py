"""HTML from blocks, by the templates of this folder."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fmmt_deploy.foreign_text import one_line

__all__ = ["code_words", "rendered"]

_MARKS = {"✓": "good", "✗": "bad", "◌": "warn"}
"""What a cell may begin with, and its class."""


def rendered(template: str, **values: object) -> str:
    """A template, filled in; whatever is no `Markup` is escaped."""
    return _environment().get_template(template).render(**values)


def code_words(words: str) -> Markup:
    """A text in which what stands between backticks is code, and a number stays beside its percent sign."""
    words = words.replace(" %", "\N{NO-BREAK SPACE}%")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(re.split(r"`([^`]+)`", words))
    )


def _marked(cell: str) -> Markup:
    """A cell; one that begins with a mark is coloured."""
    colour = _MARKS.get(cell[:1])
    return Markup('<span class="mark {}">{}</span>').format(colour, cell) if colour else code_words(cell)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fmmt_deploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(code=code_words, marked=_marked, one_line=one_line)
    return environment
