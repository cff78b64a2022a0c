"""Turns of contenders for as long as asked; where time is short, what can't be measured is left out, not all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from fmmt_deploy.benchmark.blocks import FEWEST_BLOCKS, Block, interleaved

__all__ = ["Effort", "Haste", "turns"]

_MOST_ROUNDS = 100_000
_WINDOWS = 2
"""Of most turns; see `Block`."""


@dataclass(frozen=True)
class Haste:
    """Where all must be over in time, and some may fail.

    Contenders named first matter most, the first being what the others are compared with. Those for which there is no
    time in the first round are dropped. Then those for which there is none for the rounds that a ratio needs have no
    further turn, so that the others have them: their figures are of one turn, and INVALID. A later round in which time
    runs out, as turns took longer than before, ends there and does not count.

    Attributes:
        deadline: When all is over, on the effort's clock; a turn may be this much late as it takes longer than others.
        dropped: Told of a contender that fails, or has no time, and why; nothing of it is kept.
    """

    deadline: float
    dropped: Callable[[str, str], object]


@dataclass(frozen=True)
class Effort:
    """How long something is measured, and who is told.

    Attributes:
        rounds: At least so many.
        seconds: And at least so long.
        between: Called before every round.
        asks: Told who is asked next, before every window of a turn: who is to blame if it never ends.
        advance: Called after every window of a turn.
        clock: In seconds.
        haste: What limits that; None where everything is measured to its end, and a failure is an error.
    """

    rounds: int
    seconds: float = 0.0
    between: Callable[[], object] = lambda: None
    asks: Callable[[str], object] = lambda _: None
    advance: Callable[[int], object] = lambda _: None
    clock: Callable[[], float] = perf_counter
    haste: Haste | None = None


def turns(contenders: Mapping[str, Callable[[int], Sequence[float]]], effort: Effort) -> tuple[Block, ...]:
    """Blocks of contenders in turns, for as long as asked.

    Args:
        contenders: See `interleaved`.
        effort: How long. In haste there may be no block of some of them.

    Raises:
        FmmtError: A contender fails, and there is no haste.
    """
    taken = _Turns(contenders, effort)
    blocks = interleaved(
        {name: partial(taken.answered, name) for name in contenders},
        effort.rounds if effort.seconds <= 0 else _MOST_ROUNDS,
        enough=taken.enough,
        between=taken.begin_round,
        sits_out=taken.sits_out,
        failed=None if effort.haste is None else lambda name, error: taken.drop(name, error.what),
        clock=effort.clock,
    )
    return tuple(b for b in blocks if b.contender not in taken.dropped and b.round != taken.broken_off)


class _Turns:
    """Who takes part, by the clock."""

    def __init__(self, contenders: Mapping[str, Callable[[int], Sequence[float]]], effort: Effort) -> None:
        self._contenders, self._effort = contenders, effort
        self._began, self._rounds = effort.clock(), 0
        self._turn_seconds = dict[str, float]()
        self._retired = set[str]()
        self.dropped, self.broken_off = set[str](), -1

    def begin_round(self) -> None:
        self._rounds += 1
        self._effort.between()

    def answered(self, name: str, number: int) -> Sequence[float]:
        self._effort.asks(name)
        start = self._effort.clock()
        times = self._contenders[name](number)
        self._turn_seconds[name] = _WINDOWS * (self._effort.clock() - start)  # the latest: earlier ones may compile
        self._effort.advance(1)
        return times

    def enough(self) -> bool:
        effort = self._effort
        if self._rounds == 1:
            self._retire()
        done = self._rounds >= effort.rounds and effort.clock() - self._began >= effort.seconds
        return done or self._left() < sum(self._turn_seconds[name] for name in self._playing())

    def sits_out(self, name: str) -> bool:
        if self._rounds == 1 and self._left() < max(self._turn_seconds.values(), default=0.0):
            self.drop(name, "There was no time for it.")
        if name in self._retired | self.dropped:
            return True
        if self._rounds > 1 and self._left() < 0:
            self.broken_off = self._rounds - 1
        return self.broken_off >= 0

    def drop(self, name: str, why: str) -> None:
        assert self._effort.haste is not None
        self.dropped.add(name)
        self._turn_seconds.pop(name, None)  # it may have compiled for a minute before it failed
        self._effort.haste.dropped(name, why)

    def _left(self) -> float:
        return float("inf") if self._effort.haste is None else self._effort.haste.deadline - self._effort.clock()

    def _playing(self) -> list[str]:
        return [name for name in self._contenders if name not in self._retired | self.dropped]

    def _retire(self) -> None:
        """After the first round: who has no time for the rounds that a ratio needs, so that others have it.

        Without the baseline, or beside nobody, there is no ratio to be had: then all go on as far as they get.
        """
        left, staying, playing = self._left(), list[str](), self._playing()
        for name in playing:
            needed = (min(self._effort.rounds, FEWEST_BLOCKS) - 1) * self._turn_seconds[name]
            if needed <= left:
                left -= needed
                staying.append(name)
        if len(staying) > 1 and staying[0] == playing[0]:
            self._retired.update(name for name in playing if name not in staying)
