"""A GPU that is stricter than any: it does nothing until somebody waits, and notices what a real one lets pass.

- Work is only queued. It is done when the host waits for it, no sooner than it must (`seed=None`), or at any time and
  in any order that the streams' events allow (`seed`): an answer that depends on luck is wrong here.
- Device memory is apart from the host's. Fresh and freed memory is NaN; whoever touches what is freed, or reaches out
  of bounds, gets an error, and so does who uses memory on two streams without an event between them, whether or not
  it would have gone wrong (vector clocks tell).
- Pinned memory is read when the copy is done, not when it is asked for.
- Graphs do what was captured, at the addresses of then.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, CaptureError, OutOfMemoryError, Pinned
from fmmt_deploy.engines.tensorrt.gpu import Gpu

GPU = Gpu("Simulated GPU", "8.9", 1 << 34, "13.0")

Bytes = NDArray[np.uint8]
Clock = dict[int, int]


class SimulationError(AssertionError):
    """The code under test did something that may go wrong on a GPU."""


@dataclass(frozen=True)
class Access:
    """Bytes that some work reads or writes."""

    address: int
    size: int
    writes: bool


@dataclass
class Memory:
    """An allocation, and who used what of it: by range, kind and stream, the last operation."""

    address: int
    array: Bytes
    size: int
    is_pinned: bool = False
    is_alive: bool = True
    history: dict[tuple[int, int, bool, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """A place on a stream."""

    stream: int
    number: int
    clock: Clock


@dataclass
class Work:
    """Something on a stream: to do, or to wait for."""

    number: int
    name: str
    run: Callable[[], object] | None = None
    accesses: tuple[Access, ...] = ()
    waits_for: Mark | None = None


@dataclass
class Stream:
    queue: deque[Work] = field(default_factory=deque)
    clock: Clock = field(default_factory=dict)
    number: int = 0
    done: int = 0


@dataclass
class Graph:
    steps: list[Work]
    is_alive: bool = True


class SimulatedDevice:
    """See the module; the methods are those of `Device`.

    Args:
        seed: None: as late as possible; a number: at random times.
        memory_bytes: How much fits.
    """

    def __init__(self, seed: int | None = None, memory_bytes: int = 1 << 34) -> None:
        self._random = None if seed is None else random.Random(seed)
        self._memory_bytes = memory_bytes
        self._next = 1 << 40
        self._bases: list[int] = []
        self._memories: dict[int, Memory] = {}
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Mark | None] = {}
        self.graphs: dict[int, Graph] = {}
        self._host: Clock = {}
        self._capture: tuple[int, list[Work]] | None = None
        self._spoiled = False
        self.calls: dict[str, int] = {}
        self.log: list[str] = []
        self.is_closed = False

    @property
    def gpu(self) -> Gpu:
        return GPU

    # memory

    def allocate(self, size_bytes: int) -> int:
        self.outside_capture("allocate")
        used = sum(m.size for m in self._memories.values() if m.is_alive)
        if used + size_bytes > self._memory_bytes:
            raise OutOfMemoryError(f"The GPU has no memory left: {size_bytes} bytes were asked for.")
        return self._new_memory(size_bytes).address

    def free(self, address: int) -> None:
        self.outside_capture("free")
        self._expect("free", (address, False))
        self._kill(address)

    def pin(self, size_bytes: int) -> Pinned:
        self.outside_capture("pin")
        memory = self._new_memory(size_bytes)
        memory.is_pinned = True
        return Pinned(memory.address, memory.array)

    def unpin(self, memory: Pinned) -> None:
        self.outside_capture("unpin")
        self._expect("unpin", (memory.address, True))
        self._kill(memory.address)

    def bytes_at(self, address: int, size: int) -> Bytes:
        """Memory, to read or write now; only work that is being done may."""
        at = bisect_right(self._bases, address) - 1
        memory = self._memories[self._bases[at]] if at >= 0 else None
        if memory is None or address + size > memory.address + memory.size:
            raise SimulationError(f"{size} bytes at {address:#x} are out of bounds")
        if not memory.is_alive:
            raise SimulationError(f"{size} bytes at {address:#x} are freed")
        return memory.array[address - memory.address : address - memory.address + size]

    def _expect(self, name: str, *places: tuple[int, bool]) -> None:
        """Memory is the host's or the device's, as a call of CUDA's says which."""
        for address, pinned in places:
            at = bisect_right(self._bases, address) - 1
            memory = self._memories[self._bases[at]] if at >= 0 else None
            if memory is not None and address < memory.address + memory.size and memory.is_pinned != pinned:
                raise SimulationError(f"{name}: {address:#x} is {'device' if pinned else 'pinned'} memory")

    def _new_memory(self, size: int) -> Memory:
        address, self._next = self._next, self._next + -(-size // ALIGNMENT) * ALIGNMENT + 16 * ALIGNMENT
        memory = self._memories[address] = Memory(address, np.full(size, 0xFF, np.uint8), size)
        self._bases.append(address)
        return memory

    def _kill(self, address: int) -> None:
        memory = self._memories.get(address)
        if memory is None or not memory.is_alive:
            raise SimulationError(f"{address:#x} is freed twice, or was never allocated")
        for stream, number in ((key[3], number) for key, number in memory.history.items()):
            if stream in self.streams and number > self.streams[stream].done:
                raise SimulationError(f"{address:#x} is freed while work uses it")
        memory.is_alive = False
        memory.array[:] = 0xFF  # whoever still has a view
        memory.array = memory.array[:0]

    # streams and events

    def create_stream(self) -> int:
        self.streams[handle := self._handle()] = Stream()
        return handle

    def destroy_stream(self, stream: int) -> None:
        if self.streams.pop(stream).queue:
            raise SimulationError("a stream is destroyed while work is on it")

    def synchronize_stream(self, stream: int) -> None:
        self.outside_capture("synchronize_stream")
        self._run_until(Mark(stream, self.streams[stream].number, {}))
        _merge(self._host, self.streams[stream].clock)

    def create_event(self) -> int:
        self.events[handle := self._handle()] = None
        return handle

    def destroy_event(self, event: int) -> None:
        del self.events[event]

    def record(self, event: int, stream: int) -> None:
        work = self._put(stream, "record", None)
        self.events[event] = Mark(stream, work.number, dict(self.streams[stream].clock))

    def wait(self, stream: int, event: int) -> None:
        mark = self._marked(event)
        _merge(self.streams[stream].clock, mark.clock)
        self._put(stream, "wait", None, waits_for=mark)

    def synchronize_event(self, event: int) -> None:
        self.outside_capture("synchronize_event")
        mark = self._marked(event)
        self._run_until(mark)
        _merge(self._host, mark.clock)

    def _marked(self, event: int) -> Mark:
        mark = self.events[event]
        if mark is None:
            raise SimulationError("somebody waits for an event that was never recorded: CUDA would not wait")
        return mark

    # work

    def upload(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        self._expect("upload", (destination, False), (source, True))
        self._move("upload", destination, source, size_bytes, stream)

    def download(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        self._expect("download", (destination, True), (source, False))
        self._move("download", destination, source, size_bytes, stream)

    def copy(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        if abs(destination - source) < size_bytes:
            raise SimulationError("a copy overlaps itself")
        self._expect("copy", (destination, False), (source, False))
        self._move("copy", destination, source, size_bytes, stream)

    def fill(self, destination: int, byte: int, size_bytes: int, stream: int) -> None:
        def run() -> None:
            self.bytes_at(destination, size_bytes)[:] = byte

        self._put(stream, "fill", run, (Access(destination, size_bytes, True),))

    def work(self, stream: int, name: str, run: Callable[[], object], accesses: Iterable[Access]) -> None:
        """Puts a kernel on a stream."""
        self._put(stream, name, run, tuple(accesses))

    def _move(self, name: str, destination: int, source: int, size: int, stream: int) -> None:
        def run() -> None:
            self.bytes_at(destination, size)[:] = self.bytes_at(source, size)

        self._put(stream, name, run, (Access(source, size, False), Access(destination, size, True)))

    def _put(
        self,
        stream: int,
        name: str,
        run: Callable[[], object] | None,
        accesses: tuple[Access, ...] = (),
        waits_for: Mark | None = None,
    ) -> Work:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self._capture is not None and self._capture[0] == stream:
            if run is None:
                raise SimulationError(f"{name} in a capture")
            self._capture[1].append(work := Work(0, name, run, accesses))
            return work
        state = self.streams[stream]
        _merge(state.clock, self._host)
        state.number += 1
        state.clock[stream] = state.number
        state.queue.append(work := Work(state.number, name, run, accesses, waits_for))
        for access in accesses:
            self._check_race(access, stream, state, name)
        self._maybe_run()
        return work

    def _check_race(self, access: Access, stream: int, state: Stream, name: str) -> None:
        self.bytes_at(access.address, access.size)
        memory = self._memories[self._bases[bisect_right(self._bases, access.address) - 1]]
        start, end = access.address, access.address + access.size
        for (first, last, wrote, other), number in memory.history.items():
            if first < end and start < last and (wrote or access.writes) and number > state.clock.get(other, 0):
                raise SimulationError(f"{name} at {start:#x} does not wait for another stream that uses this memory")
        memory.history[(start, end, access.writes, stream)] = state.number

    def _maybe_run(self) -> None:
        while self._random is not None and self._random.random() < 0.6:
            for _ in range(self._random.randrange(4)):
                self._step(self._random.choice(list(self.streams)))

    def _step(self, stream: int) -> Mark | None:
        """Does what is next on a stream; or says what it waits for."""
        state = self.streams[stream]
        if not state.queue:
            return None
        mark = state.queue[0].waits_for
        if mark is not None and self.streams[mark.stream].done < mark.number:
            return mark
        work = state.queue.popleft()
        if work.run is not None:
            work.run()
            self.log.append(work.name)
        state.done = work.number
        return None

    def _run_until(self, mark: Mark, waiting: tuple[Mark, ...] = ()) -> None:
        if mark in waiting:
            raise SimulationError("deadlock: streams wait for each other")
        while self.streams[mark.stream].done < mark.number:
            assert self.streams[mark.stream].queue
            if (before := self._step(mark.stream)) is not None:
                self._run_until(before, (*waiting, mark))

    # graphs

    def begin_capture(self, stream: int) -> None:
        if self._capture is not None:
            raise SimulationError("a capture within a capture")
        self._capture, self._spoiled = (stream, []), False

    def spoil_capture(self) -> None:
        """What a library does that calls something which can't be captured."""
        self._spoiled = True

    def end_capture(self, stream: int) -> int:
        if self._capture is None or self._capture[0] != stream:
            raise SimulationError("no capture to end")
        steps, self._capture = self._capture[1], None
        if self._spoiled:
            raise CaptureError("CUDA could not capture a graph: cudaStreamEndCapture failed.", why="invalidated")
        self.graphs[handle := self._handle()] = Graph(steps)
        return handle

    @property
    def is_capturing(self) -> bool:
        return self._capture is not None

    def launch(self, graph: int, stream: int) -> None:
        found = self.graphs[graph]
        for step in found.steps:
            self._put(stream, "launched", lambda step=step: _of_graph(found, step), step.accesses)

    def destroy_graph(self, graph: int) -> None:
        self.graphs.pop(graph).is_alive = False

    def close(self) -> None:
        self.is_closed = True

    def leaks(self) -> list[str]:
        """What was not freed."""
        memory = [f"memory of {m.size} bytes" for m in self._memories.values() if m.is_alive]
        handles = {"stream": self.streams, "event": self.events, "graph": self.graphs}
        return memory + [f"{name} {handle}" for name, kind in handles.items() for handle in kind]

    def outside_capture(self, what: str) -> None:
        """For what must not happen while this thread captures, because it may allocate or wait."""
        if self._capture is not None:
            raise SimulationError(f"{what} during a capture")

    def _handle(self) -> int:
        self._next += 1 << 12
        return self._next


def _of_graph(graph: Graph, step: Work) -> None:
    if not graph.is_alive:
        raise SimulationError("a graph was destroyed before it ran")
    assert step.run is not None
    step.run()


def _merge(clock: Clock, other: Clock) -> None:
    for stream, number in other.items():
        clock[stream] = max(clock.get(stream, 0), number)
