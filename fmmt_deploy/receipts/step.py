"""One step of a chain of evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fmmt_deploy.receipts.kept import FOLDER, name_of
from fmmt_deploy.receipts.record import Receipt

__all__ = ["Kind", "State", "Step", "listed", "path_of", "step_from"]

Kind: TypeAlias = Literal["checkpoint", "graph", "typed graph", "engine", "parity", "F1", "bench"]
State: TypeAlias = Literal["ok", "failed", "stale", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of one thing that was made or judged.

    Attributes:
        kind: Where in the chain it stands.
        name: Which one: graphs of a precision, an engine in precisions, data.
        state: Whether it is there, and still about what the bundle holds.
        why: That, in words.
        receipt: The receipt's path in the bundle; None where there is none.
        created: When that was, ISO 8601.
        next: The command that would close the gap, or "".
    """

    kind: Kind
    name: str
    state: State
    why: str
    receipt: str | None = None
    created: str | None = None
    next: str = ""


def step_from(receipt: Receipt, kind: Kind, name: str, state: State, why: str, next_: str = "") -> Step:
    """A step that a receipt tells of."""
    return Step(kind, name, state, why, path_of(receipt), receipt.created, "" if state == "ok" else next_)


def path_of(receipt: Receipt) -> str:
    """Where a receipt is in its bundle."""
    return f"{FOLDER}/{name_of(receipt)}"


def listed(names: tuple[str, ...]) -> str:
    """The first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
