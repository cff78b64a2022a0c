"""From values to places in a chart, and the round values that an axis names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Protocol

__all__ = ["Linear", "Log", "Scale", "linear_over", "log_over"]


class Scale(Protocol):
    """What places values."""

    def __call__(self, value: float) -> float:
        """Where a value is, at an end if it is beyond."""
        ...

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """Round values in it, at most about so many."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """Equal steps: `low` is at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """See `Scale`."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """See `Scale`."""
        step = _round_step((self.high - self.low) / most)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return tuple(round(number * step, 12) for number in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Log:
    """Equal factors, of values above 0: `low` is at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """See `Scale`; what is not above 0 is at the start."""
        if value <= 0:
            return self.start
        share = log10(value / self.low) / log10(self.high / self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """See `Scale`: powers of ten, with 2 and 5 between them where there are few."""
        first, last = ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9)
        if last - first < 2:
            fine = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
            return tuple(value for value in fine if self.low * 0.999 <= value <= self.high * 1.001)
        every = ceil((last - first + 1) / most)
        return tuple(10.0**exponent for exponent in range(first, last + 1, every))


def linear_over(values: Iterable[float], start: float, end: float, *, room: float = 0.05) -> Linear:
    """A linear scale that holds all values, with a share of room at both ends; one value alone is in the middle."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    extra = max(room * (high - low), 1e-6 * abs(low))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):  # as good as one value
        extra = abs(low) if abs(low) > 1e-9 else 1.0
    return Linear(low - extra, high + extra, start, end)


def log_over(values: Iterable[float], start: float, end: float, *, room: float = 1.15) -> Log:
    """A logarithmic scale that holds all values above 0, with a factor of room at both ends."""
    found = [value for value in values if value > 0] or [1.0]
    return Log(min(found) / room, max(found) * room, start, end)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is no smaller."""
    power = 10.0 ** floor(log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
