"""Strict JSON: text to frozen dataclasses by their annotations, where nothing is guessed, coerced or ignored."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, NoReturn, TypeVar

__all__ = ["JsonValueError", "dataclass_from_json", "json_object_from_text"]

T = TypeVar("T")
_SHOWN = 60


class JsonValueError(ValueError):
    """A JSON text, or a value in it, is not what was expected.

    Args:
        where: Dotted path of the value, such as `architecture.plm.heads`; empty for the whole text.
        expected: What should be there, as a noun phrase.
        found: What is there.
    """

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where or 'the whole text'} should be {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


def json_object_from_text(text: str) -> dict[str, object]:
    """Parses a JSON object.

    Args:
        text: The JSON text. Repeated keys, NaN and infinities are refused, as RFC 8259 advises.

    Raises:
        JsonValueError: It is not JSON, or not an object.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except JsonValueError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonValueError("", "JSON", f"text that does not parse ({error})") from error
    if not isinstance(value, dict):
        raise JsonValueError("", "a JSON object", _shown(value))
    return value


def dataclass_from_json(kind: type[T], value: object, where: str = "") -> T:
    """Builds a dataclass from parsed JSON, recursively, by its annotations.

    Understood: bool, int, float, str, `Literal` of strings, `X | None`, `tuple[X, ...]`, `Mapping[str or Literal, X]`,
    dataclasses, and `object` for whatever JSON may hold.

    Args:
        kind: The dataclass.
        value: What JSON gave.
        where: Dotted path of `value`, for messages.

    Raises:
        JsonValueError: A field is missing, unknown, or of another type, or a number isn't finite.
    """
    if not isinstance(value, dict):
        raise JsonValueError(where, "an object", _shown(value))
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # mypy has no "dataclass type"
    for name in value:
        if name not in known:
            raise JsonValueError(_join(where, name), "absent", "a field that is not known")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise JsonValueError(_join(where, name), "present", "nothing")
    return kind(**{name: _value(hints[name], item, _join(where, name)) for name, item in value.items()})


def _value(expected: Any, value: object, where: str) -> object:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is object:
        return value
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(inner, value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise JsonValueError(where, "one of " + ", ".join(map(repr, arguments)), _shown(value))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise JsonValueError(where, "a list", _shown(value))
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        return _mapping(arguments, value, where)
    if is_dataclass(expected) and isinstance(expected, type):
        return dataclass_from_json(expected, value, where)
    return _scalar(expected, value, where)


def _mapping(arguments: tuple[Any, ...], value: object, where: str) -> dict[object, object]:
    if not isinstance(value, dict):
        raise JsonValueError(where, "an object", _shown(value))
    return {
        _value(arguments[0], name, f"a name in {where}"): _value(arguments[1], item, _join(where, name))
        for name, item in value.items()
    }


def _scalar(expected: Any, value: object, where: str) -> object:
    if expected is str:
        return _text(value, where)
    if expected is bool:
        return _truth(value, where)
    if isinstance(value, bool):  # JSON's true is an int to Python
        raise JsonValueError(where, "a number", _shown(value))
    if expected is int and isinstance(value, int):
        return value
    if expected is float and isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise JsonValueError(where, "a whole number" if expected is int else "a finite number", _shown(value))


def _truth(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise JsonValueError(where, "true or false", _shown(value))
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise JsonValueError(where, "text", _shown(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate: no path and no terminal can take it
        raise JsonValueError(where, "valid Unicode", ascii(value)[:_SHOWN]) from error
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JsonValueError("", "without repeated names", "a name twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise JsonValueError("", "JSON", name)


def _join(where: str, name: object) -> str:
    return f"{where}.{_shown(name, quoted=False)}" if where else _shown(name, quoted=False)


def _shown(value: object, quoted: bool = True) -> str:
    """At most `_SHOWN` printable characters; a number of a million digits would itself be an error to print."""
    if isinstance(value, int) and abs(value) > 10**_SHOWN:
        return "a number of more than 60 digits"
    text = ascii(value) if quoted else ascii(str(value))[1:-1]
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
