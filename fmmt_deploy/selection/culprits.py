"""Which of many are to blame, found with few questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["culprits_of"]

T = TypeVar("T")


def culprits_of(suspects: Sequence[T], holds: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A smallest set of suspects that must be kept back: without any one of them it does not hold.

    Junker's QuickXplain (2004): halves are kept back, and the search goes on in both as long as both are needed, so it
    finds several culprits wherever they are, with some 2·k·log2(n / k) + 2·k questions for k of n. What is found always
    holds; that nothing can be left out of it is sure only if keeping back more never makes things worse.

    Args:
        suspects: All of them; those that come first are rather kept back than others.
        holds: Whether it holds with these kept back. It does with all, and does not with none.
    """
    return _needed((), False, tuple(suspects), holds)


def _needed(
    kept: tuple[T, ...], is_new: bool, suspects: tuple[T, ...], holds: Callable[[Sequence[T]], bool]
) -> tuple[T, ...]:
    """Which suspects are needed besides those that are kept back already; `is_new` if these were not asked about."""
    if is_new and holds(kept):
        return ()
    if len(suspects) == 1:
        return suspects
    half = len(suspects) // 2
    first, second = suspects[:half], suspects[half:]
    of_second = _needed((*kept, *first), bool(first), second, holds)
    of_first = _needed((*kept, *of_second), bool(of_second), first, holds)
    return (*of_first, *of_second)
