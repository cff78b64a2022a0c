"""Numbers for readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.report.figures import (
    bytes_text,
    counted,
    error,
    exponential,
    first_sentence,
    ms,
    number,
    percent,
    points,
    short,
    signed,
    signed_points,
    tick,
)

SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (points(0.66734), "66.73"),
        (points(None), "–"),
        (signed_points(-0.0002), "−0.02"),
        (signed_points(0.00001), "0.00"),
        (signed_points(-0.00001), "0.00"),
        (signed(3.14159, 1), "+3.1"),
        (points(-0.00001), "0.00"),
        (percent(-0.001), "0 %"),
        (number(-0.2), "0"),
        (tick(-0.0), "0"),
        (percent(0.5), "50 %"),
        (percent(0.0), "0 %"),
        (percent(0.001), "<1 %"),
        (percent(0.9999), ">99 %"),
        (percent(0.99999, 2), ">99.99 %"),
        (percent(1.0), "100 %"),
        (ms(0.0852), "85.2 µs"),
        (ms(1.234), "1.23 ms"),
        (ms(999.7), "1.00 s"),
        (ms(4560), "4.56 s"),
        (short(0), "0"),
        (short(1234.5), "1,234"),
        (short(-0.0123), "−0.0123"),
        (short(4.51e-7), "4.5×10⁻⁷"),
        (error(0.001), "1.0×10⁻³"),
        (error(0.0), "0"),
        (exponential(0.001), "10⁻³"),
        (exponential(0.005), "5×10⁻³"),
        (tick(0.01), "0.01"),
        (tick(50_000), "50,000"),
        (tick(1e-6), "10⁻⁶"),
        (number(2610), "2,610"),
        (counted(1, "utterance"), "1 utterance"),
        (counted(2610, "utterance"), "2,610 utterances"),
        (counted(0, "process", "processes"), "0 processes"),
        (bytes_text(999), "999 B"),
        (bytes_text(12_345_678), "12.3 MB"),
        (bytes_text(3e13), "30.0 TB"),
    ],
)
def test_a_number_reads_as_meant(found: str, expected: str) -> None:
    assert found == expected


def read_back(text: str) -> float:
    factor, _, power = text.replace("−", "-").replace(",", "").partition("10")
    if any(c in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹" for c in text):
        return float(factor.rstrip("×") or "1") * 10.0 ** int(power.translate(SUPERSCRIPTS))
    return float(text.replace("−", "-").replace(",", ""))


@given(st.floats(1e-12, 1e12))
def test_what_is_shown_is_the_number_to_its_digits(value: float) -> None:
    assert read_back(error(value)) == pytest.approx(value, rel=0.051)
    assert read_back(short(value)) == pytest.approx(value, rel=0.051)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("It is 66.71, by 0.5 points (90 % interval). None changed.", "It is 66.71, by 0.5 points (90 % interval)."),
        ("Once. 9 of them. Twice.", "Once."),
        ("only one", "only one"),
        ("", ""),
    ],
)
def test_the_first_sentence_ends_where_another_begins(words: str, expected: str) -> None:
    assert first_sentence(words) == expected
