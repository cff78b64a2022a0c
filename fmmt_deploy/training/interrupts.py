"""Ctrl-C between steps only: within one, weights and their optimiser's moments may not fit together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Takes SIGINT while it is open; KeyboardInterrupt is raised at once, or where the outermost `held` ends.

    Outside the main thread, where Python lets nobody take signals, nothing is held.

    Attributes:
        came: One is waiting.
    """

    def __init__(self) -> None:
        self.came = False
        self._depth = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Takes the signal for the time of a block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

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
            self.came = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature
        if not self._depth:
            raise KeyboardInterrupt
        self.came = True
