"""Ctrl-C between steps only: within one, weights and their optimiser's moments may not fit together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Takes SIGINT while it is open; KeyboardInterrupt is raised at once, or where `held` ends.

    Outside the main thread, where Python lets nobody take signals, nothing is held.
    """

    def __init__(self) -> None:
        self._held = self._came = False

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
        """Keeps an interrupt waiting until the block is over.

        Raises:
            KeyboardInterrupt: One came.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature
        if not self._held:
            raise KeyboardInterrupt
        self._came = True
