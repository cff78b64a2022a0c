"""Documents are read without trust."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.report.documents import Document

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_what_is_there_is_given_by_its_kind() -> None:
    found = Document(json.loads('{"a": {"b": [1, 2.5]}, "t": "x", "n": null, "f": false, "big": 1e999}'))
    assert found["a"]["b"].numbers == (1.0, 2.5)
    assert [item.number for item in found["a"]["b"]] == [1.0, 2.5]
    assert (found["t"].text, found["t"].number, found["t"].count) == ("x", None, None)
    assert (bool(found["n"]), bool(found["f"]), found["f"].flag) == (False, True, False)
    assert (found["f"].number, found["f"].count) == (None, None)  # JSON's false is an int to Python
    assert found["big"].number is None
    assert dict(found["a"].members()).keys() == {"b"}


def test_what_is_absent_is_nothing_all_the_way_down() -> None:
    found = Document({"a": 1})["a"]["b"]["c"]
    assert (list(found), len(found), bool(found), found.text, found.number) == ([], 0, False, "", None)


def test_a_list_with_something_else_in_it_gives_no_numbers() -> None:
    assert Document([1, None]).numbers == ()
    assert Document([1, float("nan")]).numbers == ()


@given(VALUES, st.text())
def test_no_value_raises(value: object, name: str) -> None:
    found = Document(value)
    assert found.number is None or math.isfinite(found.number)
    assert isinstance(found[name].text, str)
    assert len(list(found)) in (0, len(found))
    assert all(isinstance(text, str) for text in (*found.texts, *(name for name, _ in found.members())))
