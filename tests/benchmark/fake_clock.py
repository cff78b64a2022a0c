"""Time that passes only when it is told to."""

from collections.abc import Callable


class FakeClock:
    """Seconds since its making; to be called, read and slept by, and pushed on by what pretends to work."""

    def __init__(self, start: float = 0.0) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds

    def work(self, seconds: Callable[[], float] | float) -> Callable[[object], None]:
        """What answers anything in so long."""

        def answer(_: object) -> None:
            self.seconds += seconds() if callable(seconds) else seconds

        return answer
