"""What running an engine needs of a GPU: memory, streams, events, copies and graphs.

Addresses and handles are plain integers, sizes are bytes. Whoever allocates or creates something frees it; nothing here
is freed by the garbage collector. Work is put on streams and done later, in the order of its stream; an event is a mark
on a stream that another stream, or the host, can wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.errors import EnvironmentProblem, FmmtError

__all__ = ["ALIGNMENT", "CaptureError", "Device", "DeviceError", "OutOfMemoryError", "Pinned", "aligned"]

ALIGNMENT = 256
"""Bytes to which the address of every tensor is aligned: TensorRT asks for that, and `cudaMalloc` gives it."""


class DeviceError(FmmtError):
    """The GPU, or its driver, refused something it should not have."""


class CaptureError(DeviceError):
    """Work could not be captured into a graph; it can still be done without."""


class OutOfMemoryError(EnvironmentProblem):
    """The GPU, or the host's pinned memory, has no room; whoever asked may free something and ask again."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Host memory that the GPU reads and writes by itself.

    A copy reads it when it is done, not when it is put on its stream: until then it must stay as it is.

    Attributes:
        address: Where it begins.
        array: The memory itself, bytes.
    """

    address: int
    array: NDArray[np.uint8]


def aligned(size_bytes: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


class Device(Protocol):
    """A GPU. Every method raises DeviceError if the GPU refuses; so does a later one, if what it did failed later."""

    @property
    def gpu(self) -> Gpu:
        """Which one it is."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, aligned to `ALIGNMENT`; what is in it is undefined.

        Raises:
            OutOfMemoryError: There is no room.
        """
        ...

    def free(self, address: int) -> None:
        """Frees device memory. No work that uses it may be left; nor may a capture be under way."""
        ...

    def pin(self, size_bytes: int) -> Pinned:
        """New pinned host memory.

        Raises:
            OutOfMemoryError: There is no room.
        """
        ...

    def unpin(self, memory: Pinned) -> None:
        """Frees pinned memory. No work that uses it may be left, and its array must not be used any more."""
        ...

    def create_stream(self) -> int:
        """A stream that runs beside all others."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Frees a stream on which nothing is left to do."""
        ...

    def synchronize_stream(self, stream: int) -> None:
        """Waits, on the host, until all that is on a stream is done."""
        ...

    def create_event(self) -> int:
        """A mark that is not yet on any stream."""
        ...

    def destroy_event(self, event: int) -> None:
        """Frees an event that nobody waits for."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Puts the mark at the end of a stream; waits from now on are for this place, earlier ones stay as they are."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """What is put on the stream from now on begins when the event's mark has been reached."""
        ...

    def synchronize_event(self, event: int) -> None:
        """Waits, on the host, until the event's mark has been reached."""
        ...

    def upload(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """Copies pinned memory to the device."""
        ...

    def download(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """Copies device memory to pinned memory."""
        ...

    def copy(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """Copies device memory to device memory; the two may not overlap."""
        ...

    def fill(self, destination: int, byte: int, size_bytes: int, stream: int) -> None:
        """Sets every byte of device memory."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From now on, what this thread puts on the stream is not done but becomes a graph.

        Raises:
            CaptureError: The stream can't be captured.
        """
        ...

    def end_capture(self, stream: int) -> int:
        """Ends the capture, whatever became of it, and makes its graph ready to launch.

        Raises:
            CaptureError: Something that was put on the stream can't be part of a graph.
        """
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Does again what was captured, at the same addresses."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Frees a graph that is not running."""
        ...

    def close(self) -> None:
        """Gives back what the device itself holds; streams, events, graphs and memory must be freed before."""
        ...
