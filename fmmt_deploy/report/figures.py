"""Numbers as a reader wants them: few digits, a unit, a real minus sign, and a dash where there is none."""

from __future__ import annotations

import re

from fmmt_deploy.evaluation.words import counted

__all__ = [
    "NONE",
    "bytes_text",
    "counted",
    "error",
    "exponential",
    "first_sentence",
    "ms",
    "number",
    "percent",
    "points",
    "short",
    "signed",
    "signed_points",
    "tick",
]

NONE = "–"


def points(share: float | None, digits: int = 2) -> str:
    """A share of 0 to 1 in points: `66.71`."""
    return NONE if share is None else f"{100 * share:z.{digits}f}".replace("-", "−")


def signed_points(share: float | None, digits: int = 2) -> str:
    """A difference of shares in points: `−0.02`, `+0.06`, and `0.00` without a sign."""
    return NONE if share is None else signed(100 * share, digits)


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, none where it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 0 to 1: `12 %`; `<1 %` rather than `0 %` of something, and `>99 %` rather than all of it."""
    if share is None:
        return NONE
    text = f"{100 * share:z.{digits}f}"
    step = f"{10**-digits:.{digits}f}"
    if share > 0 and float(text) == 0:
        return f"<{step} %"
    if share < 1 and float(text) == 100:
        return f">{100 - 10**-digits:.{digits}f} %"
    return f"{text} %"


def ms(time_ms: float | None) -> str:
    """A time with three digits and a fitting unit: `85.2 µs`, `1.23 ms`, `4.56 s`."""
    if time_ms is None:
        return NONE
    if time_ms < 1:
        return f"{short(time_ms * 1000)} µs"
    return f"{short(time_ms)} ms" if time_ms < 999.5 else f"{short(time_ms / 1000)} s"


def short(value: float | None) -> str:
    """Three digits; very large and very small ones with an exponent: `0.0123`, `4.5×10⁻⁷`."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded value: 999.7 is 1,000
    if not -4 < exponent < 6:
        return exponential(value)
    return f"{value:,.{max(0, 2 - exponent)}f}".replace("-", "−")


def error(value: float | None) -> str:
    """Two digits and a power of ten, so that sizes can be told in a column: `4.5×10⁻⁷`, `1.0×10⁻³`, `0`."""
    if value is None:
        return NONE
    return exponential(value, always=True) if value else "0"


def tick(value: float) -> str:
    """A round value at an axis: `0.01`, `500`, `10⁻⁶`."""
    return f"{value:z,.6g}".replace("-", "−") if value == 0 or 0.01 <= abs(value) < 1e6 else exponential(value)


def exponential(value: float, *, always: bool = False) -> str:
    """Two digits and a power of ten: `4.5×10⁻⁷`, `10⁻³`; with `always`, both digits also of a round one."""
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = "" if mantissa == "1.0" and not always else mantissa.replace("-", "−") + "×"
    factor = factor if always else factor.replace(".0×", "×")
    return f"{factor}10{raised}"


def number(value: float | None) -> str:
    """A count: `2,610`."""
    return NONE if value is None else f"{value:z,.0f}".replace("-", "−")


def bytes_text(count: float | None) -> str:
    """A size in powers of ten: `12.3 MB`."""
    if count is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{short(count)} {unit}"
        count /= 1000
    return f"{short(count)} TB"


def first_sentence(words: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return re.split(r"(?<=[.!?)])\s+(?=[A-Z0-9])", words, maxsplit=1)[0]
