"""SVG elements and the frame of a chart. All that comes from outside is escaped here, once.

Widths of letters are not known before a browser draws them, so text is placed with room to spare: `WIDE` is about the
widest mean letter of the fonts that `page.css` names.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

__all__ = ["WIDTH", "chart", "cut", "element", "group", "text", "text_width"]

WIDTH = 420.0
"""Of every chart, in its own units: on a narrow telephone about 0.8 of a pixel each, on a large screen 1.25."""

_WIDE = 0.56


def element(name: str, content: Markup | str = "", **attributes: object) -> Markup:
    """An element; attributes with `_` for `-`, `class_` for `class`, numbers with two decimals, None left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{escape(content)}</{name}>") if content else Markup(f"<{name}{given}/>")


def group(parts: Iterable[Markup], **attributes: object) -> Markup:
    """Several elements as one."""
    return element("g", joined(parts), **attributes)


def joined(parts: Iterable[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def text(x: float, y: float, words: str, classes: str = "", full: str = "") -> Markup:
    """Text with its baseline at y.

    Args:
        x: Where it begins, ends (class `end`) or has its middle (class `middle`).
        y: Of the baseline.
        words: What is shown.
        classes: See `page.css`.
        full: What a pointer is told, where `words` was cut.
    """
    told = element("title", full) if full and full != words else Markup("")
    return element("text", escape(words) + told, x=x, y=y, class_=classes or None)


def chart(title: str, description: str, height: float, parts: Iterable[Markup]) -> Markup:
    """A chart of the common width.

    Args:
        title: What it shows.
        description: What is to be seen in it, for those who can't.
        height: In its own units.
        parts: What is drawn.
    """
    head = element("title", title) + element("desc", description)
    return element("svg", head + joined(parts), class_="chart", viewBox=f"0 0 {WIDTH:g} {height:g}", role="img")


def text_width(words: str, size: float = 12.0) -> float:
    """About how wide a text is."""
    return _WIDE * size * len(words)


def cut(words: str, width: float, size: float = 12.0) -> str:
    """A text shortened to about a width."""
    most = max(1, int(width / (_WIDE * size)))
    return words if len(words) <= most else words[: most - 1] + "…"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
