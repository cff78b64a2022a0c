"""Reading the JSON of receipts without trusting it: what is absent, or not what it should be, is nothing.

A report is made of documents of several versions and commands; a figure that one lacks is left out of the page and
does not keep the rest from being shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

__all__ = ["Document"]


class Document:
    """A value of a JSON document, of any kind or absent.

    Args:
        value: What JSON gave; None where there is nothing.
    """

    __slots__ = ("value",)

    def __init__(self, value: object = None) -> None:
        self.value = value

    def __getitem__(self, name: str) -> Document:
        """The member of that name; nothing if there is none, or this is no object."""
        return Document(self.value.get(name)) if isinstance(self.value, dict) else Document()

    def __iter__(self) -> Iterator[Document]:
        """The items, if this is a list."""
        return map(Document, self.value) if isinstance(self.value, list) else iter(())

    def __len__(self) -> int:
        """How many items or members it has."""
        return len(self.value) if isinstance(self.value, (list, dict)) else 0

    def __bool__(self) -> bool:
        """Whether there is something: a false or zero is."""
        return self.value is not None

    def members(self) -> Iterator[tuple[str, Document]]:
        """Names and values, if this is an object."""
        if isinstance(self.value, dict):
            yield from ((str(name), Document(item)) for name, item in self.value.items())

    @property
    def number(self) -> float | None:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            return None
        try:
            number = float(self.value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    @property
    def count(self) -> int | None:
        """A whole number."""
        return self.value if isinstance(self.value, int) and not isinstance(self.value, bool) else None

    @property
    def text(self) -> str:
        """A text; empty if this is none."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of a list."""
        return tuple(item.text for item in self if item.text)

    @property
    def flag(self) -> bool | None:
        """True or false."""
        return self.value if isinstance(self.value, bool) else None

    @property
    def numbers(self) -> tuple[float, ...]:
        """A list's numbers; none if one item is none."""
        found = tuple(number for item in self if (number := item.number) is not None)
        return found if len(found) == len(self) else ()
