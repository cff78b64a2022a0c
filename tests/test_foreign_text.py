"""Other people's words: nothing in them steers a terminal, and JSON still says what they are."""

import json
import unicodedata

import pytest

from fmmt_deploy.foreign_text import harmless, harmless_json, one_line

EVERY = "".join(map(chr, range(0x11000)))
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def steers(letter: str) -> bool:
    """By Unicode's own tables: controls, line ends, directions, and what no encoding has."""
    return (
        (unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter not in "\n\t")
        or unicodedata.bidirectional(letter) in TURNING
        or letter in "\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}\N{ARABIC LETTER MARK}"
    )


def test_nothing_steers() -> None:
    assert not any(map(steers, harmless(EVERY)))
    assert not any(map(steers, one_line(EVERY)))
    assert not {"\n", "\t"} & set(one_line(EVERY))


def test_all_else_stays() -> None:
    rest = "".join(letter for letter in EVERY if not steers(letter))
    assert harmless(rest) == harmless_json(rest) == rest


def test_json_says_the_same() -> None:
    text = "".join(letter for letter in EVERY if unicodedata.category(letter) != "Cs") + "\udce9"
    shown = harmless_json(json.dumps(text, ensure_ascii=False))
    assert not any(map(steers, shown))
    assert json.loads(shown) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x9b", "\\x1b[2J\\x9b"),
        ("a\r\nb", "a\\x0d\nb"),
        ("\u202e\udce9", "\\u202e\\udce9"),
        ("café 😀\tx", "café 😀\tx"),
    ],
)
def test_what_it_is_is_shown(text: str, shown: str) -> None:
    assert harmless(text) == shown
