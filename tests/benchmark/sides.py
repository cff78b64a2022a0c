"""Sides that take a given time on a clock of our own."""

from collections.abc import Callable, Sequence

from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.benchmark.queries import Query
from fmmt_deploy.benchmark.sides import Side, WayName
from tests.benchmark.fake_clock import FakeClock


class Taking:
    """Takes so many seconds a query."""

    def __init__(self, clock: FakeClock, seconds: Callable[[], float], turns: list[str], name: str) -> None:
        self._clock, self._seconds, self._turns, self._name = clock, seconds, turns, name
        self.readied = 0

    def ready(self, _: Query) -> None:
        self.readied += 1

    def answer(self, queries: Sequence[Query]) -> None:
        self._turns.append(self._name)
        for _ in queries:
            self._clock.seconds += self._seconds()


def side(
    clock: FakeClock,
    name: str,
    seconds: Callable[[], float] | float,
    way: WayName = "alone",
    turns: list[str] | None = None,
) -> Side:
    """One of those, called by `name`."""
    taking = seconds if callable(seconds) else lambda: seconds
    kept = [] if turns is None else turns
    choice = Choice(name, {"fusion": "fp32"})  # type: ignore[arg-type]  # a name of our own
    return Side(choice, way, way in ("cached", "batched"), Taking(clock, taking, kept, name))
