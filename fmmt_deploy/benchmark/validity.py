"""Whether a measurement may be believed: what else happened on the machine while it was taken.

A witness looks at the machine before, during and after. What it finds makes figures INVALID, for a stated reason; what
it can't see is said as well, because a figure that nobody watched is no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

__all__ = ["Seen", "Validity", "Watched", "Witness", "rows_by_reason", "together", "watched"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness saw from its `begin` to its `end`.

    Attributes:
        reasons: Why what was measured meanwhile is invalid; empty if it is not.
        unseen: What it could not look at here.
        facts: What it measured, by name with the unit.
    """

    reasons: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Validity:
    """VALID, or INVALID with the reasons; see `Seen` for the rest."""

    reasons: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against the figures."""
        return not self.reasons

    @property
    def word(self) -> str:
        """`VALID` or `INVALID`."""
        return "VALID" if self.valid else "INVALID"

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "valid": self.valid,
            "reasons": list(self.reasons),
            "unseen": list(self.unseen),
            "facts": dict(self.facts),
        }


class Witness(Protocol):
    """Looks at one thing."""

    def begin(self) -> None:
        """Before anything is measured."""
        ...

    def look(self) -> None:
        """Between two measurements, right after work."""
        ...

    def end(self) -> Seen:
        """After the last one; `begin` may follow again."""
        ...


class Watched:
    """What is being watched.

    Args:
        witnesses: Who watches.

    Attributes:
        validity: What was found; complete after the end.
    """

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        self._witnesses = tuple(witnesses)
        self.validity = Validity()

    def look(self, _: object = None) -> None:
        """Tells the witnesses that work was just done; an argument, as progress is told with, means nothing."""
        for witness in self._witnesses:
            witness.look()


@contextmanager
def watched(witnesses: Sequence[Witness]) -> Iterator[Watched]:
    """Watches the machine.

    Args:
        witnesses: Who watches; all of them come to their end, also after an error.

    Yields:
        To be told of work, and to be asked for the validity afterwards.
    """
    for witness in witnesses:
        witness.begin()
    work = Watched(witnesses)
    seen: tuple[Seen, ...] = ()
    try:
        yield work
    finally:
        seen = tuple(witness.end() for witness in witnesses)
    facts = {name: value for one in seen for name, value in one.facts.items()}
    work.validity = replace(together(seen), facts=facts)


def together(parts: Iterable[Seen | Validity]) -> Validity:
    """Valid if all parts are; every reason once, in order. Facts are of each part alone."""
    found = tuple(parts)
    return Validity(
        tuple(dict.fromkeys(reason for part in found for reason in part.reasons)),
        tuple(dict.fromkeys(what for part in found for what in part.unseen)),
    )


def rows_by_reason(rows: Iterable[tuple[str, Iterable[str]]]) -> dict[str, tuple[str, ...]]:
    """Names of rows by what makes them invalid; every reason once, and of each every row once, in order."""
    found: dict[str, dict[str, None]] = {}
    for name, reasons in rows:
        for reason in reasons:
            found.setdefault(reason, {})[name] = None
    return {reason: tuple(names) for reason, names in found.items()}
