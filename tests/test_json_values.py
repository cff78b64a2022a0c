"""JSON's values become a dataclass's only where they are of its types."""

from dataclasses import dataclass

import pytest

from fmmt_deploy.json_values import JsonValueError, dataclass_from_json


@dataclass(frozen=True, slots=True)
class Values:
    flag: bool = False
    count: int = 0
    share: float = 0.0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flag", 1, "true or false"),
        ("flag", 0, "true or false"),
        ("flag", "true", "true or false"),
        ("flag", None, "true or false"),
        ("count", True, "a number"),
        ("share", False, "a number"),
        ("count", 1.0, "a whole number"),
    ],
)
def test_truth_and_numbers_are_not_the_same(name: str, value: object, expected: str) -> None:
    """To Python, True is 1."""
    with pytest.raises(JsonValueError, match=f"^{name} should be {expected}, found"):
        dataclass_from_json(Values, {name: value})


def test_each_is_taken_as_it_is() -> None:
    found = dataclass_from_json(Values, {"flag": True, "count": 1, "share": 2})
    assert (found.flag is True, found.count, found.share) == (True, 1, 2.0)
    assert isinstance(found.share, float)
