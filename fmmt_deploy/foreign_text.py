"""Other people's words, such as names of files and what receipts say, made fit to be shown."""

from __future__ import annotations

import re

__all__ = ["harmless", "harmless_json", "one_line"]

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but tab and newline, what ends a line or turns its direction, and halves of a character."""


def harmless(text: str) -> str:
    """A text that can't steer a terminal, nor show its letters in another order than they have."""
    return _STEERING.sub(lambda found: f"\\x{_code(found):02x}" if _code(found) < 256 else _escape(found), text)


def harmless_json(text: str) -> str:
    """JSON that says the same; there such a character can only stand within a string."""
    return _STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """A harmless text of one line: it must not read like another line of ours."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(found: re.Match[str]) -> str:
    return f"\\u{_code(found):04x}"


def _code(found: re.Match[str]) -> int:
    return ord(found[0])
