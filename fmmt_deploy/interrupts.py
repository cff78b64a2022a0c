"""Ctrl-C, and being asked to end: at once, or only between steps, within which what is kept may not fit together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["SIGNALS", "Interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; what schedulers and containers send before they kill; what a terminal sends that is closed."""


class Interrupts:
    """Takes signals while it is open; KeyboardInterrupt is raised at once, or where the outermost `held` ends.

    It is raised once: an impatient second Ctrl-C must not cost what the first one saves.

    Outside the main thread, where Python lets nobody take signals, nothing is held. A signal that the process was
    started to ignore (nohup) stays ignored.

    Args:
        alone: Whether to take all `SIGNALS`. With other processes it is SIGINT only: where one has ended torchrun asks
            the others to end, and they may be waiting for that one, in a step.

    Attributes:
        came: One is waiting.
    """

    def __init__(self, alone: bool = False) -> None:
        self.came = False
        self._raised = False
        self._signals = [s for s in SIGNALS[: None if alone else 1] if signal.getsignal(s) != signal.SIG_IGN]
        self._depth = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Takes the signals for the time of a block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._raised = False
        before = {number: signal.signal(number, self._handle) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps an interrupt waiting until the block is over; blocks may be in one another.

        Raises:
            KeyboardInterrupt: One came.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self.came and not self._depth:
            self.came, self._raised = False, True
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature
        if self._raised:
            return
        if not self._depth:
            self._raised = True
            raise KeyboardInterrupt
        self.came = True
