"""Memory that is used again: device blocks in the order of one stream, pinned blocks, and the staging ring.

Allocating costs a synchronisation of the whole GPU, so what was allocated is kept, by size, and given out again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, Device, OutOfMemoryError, Pinned
from fmmt_deploy.engines.tensorrt.layout import Layout

__all__ = ["Block", "BlockPool", "PinnedPool", "Staging", "rounded"]

_MOST_VIEWS = 64


class Block:
    """Device memory that goes back to its pool when nobody refers to it any more.

    Attributes:
        address: Where it begins.
        size_bytes: How long it is: `rounded`.
        event: Belongs to it, to mark when what it holds has been computed.
    """

    __slots__ = ("_home", "address", "event", "size_bytes")

    def __init__(self, home: deque[tuple[int, int, int]], size_bytes: int, address: int, event: int) -> None:
        self._home, self.size_bytes, self.address, self.event = home, size_bytes, address, event

    def __del__(self) -> None:
        # only noted: the garbage collector may come in any thread, or while a graph is being captured
        self._home.append((self.size_bytes, self.address, self.event))


class BlockPool:
    """Device memory for work on one stream.

    A block that was given back may still be used by work that is on that stream, and is given out at once: for work
    that comes later on the same stream. Other streams must not write to it unless they wait.

    Args:
        device: Whose memory.
        stream: On which all work is that uses it.
    """

    def __init__(self, device: Device, stream: int) -> None:
        self._device, self._stream = device, stream
        self._all: dict[int, int] = {}
        self._returned: deque[tuple[int, int, int]] = deque()
        self._free: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)

    def take(self, size_bytes: int) -> Block:
        """A block of at least that size.

        Raises:
            OutOfMemoryError: There is no room, even after giving back all that is unused.
        """
        size_bytes = rounded(size_bytes)
        self._sort()
        if free := self._free[size_bytes]:
            return Block(self._returned, size_bytes, *free.pop())
        try:
            address = self._device.allocate(size_bytes)
        except OutOfMemoryError:
            self.trim()
            address = self._device.allocate(size_bytes)
        self._all[address] = event = self._device.create_event()
        return Block(self._returned, size_bytes, address, event)

    def trim(self) -> None:
        """Frees all that is unused, once all work that used it is done."""
        self._sort()
        self._device.synchronize_stream(self._stream)
        for blocks in self._free.values():
            for address, _ in blocks:
                self._release(address)
        self._free.clear()

    def close(self) -> None:
        """Frees all, also what somebody still refers to; all work must be done."""
        for address in list(self._all):
            self._release(address)
        self._free.clear()

    def _release(self, address: int) -> None:
        self._device.destroy_event(self._all.pop(address))
        self._device.free(address)

    def _sort(self) -> None:
        while self._returned:
            size_bytes, address, event = self._returned.popleft()
            self._free[size_bytes].append((address, event))


class PinnedPool:
    """Pinned memory for downloads, each of which is over before its block is given back.

    Args:
        device: Whose copies it is for.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._all: list[Pinned] = []
        self._free: defaultdict[int, list[Pinned]] = defaultdict(list)

    def take(self, size_bytes: int) -> Pinned:
        """A block of at least that size.

        Raises:
            OutOfMemoryError: There is no room.
        """
        size_bytes = rounded(size_bytes)
        if free := self._free[size_bytes]:
            return free.pop()
        self._all.append(memory := self._device.pin(size_bytes))
        return memory

    def give(self, memory: Pinned) -> None:
        """Takes a block back."""
        self._free[len(memory.array)].append(memory)

    def close(self) -> None:
        """Frees all, also what was not given back."""
        for memory in self._all:
            self._device.unpin(memory)
        self._all.clear()
        self._free.clear()


class _Slot:
    """Pinned memory, device memory of the same size, and the two events after which either may be overwritten."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.pinned: Pinned | None = None
        self.address = 0
        self.uploaded, self.consumed = device.create_event(), device.create_event()
        self.is_used = False
        self.views: dict[Layout, list[Array]] = {}

    def grow(self, size_bytes: int) -> None:
        """Makes room; waits for what is under way."""
        self.free()
        self.address = self.device.allocate(size_bytes)  # first: a slot with pinned memory is taken to be whole
        self.pinned = self.device.pin(size_bytes)

    def free(self) -> None:
        if self.is_used:
            self.device.synchronize_event(self.uploaded)
            self.device.synchronize_event(self.consumed)
            self.is_used = False
        self.views.clear()
        pinned, address = self.pinned, self.address
        self.pinned, self.address = None, 0
        if pinned is not None:
            self.device.unpin(pinned)
        if address:
            self.device.free(address)

    def close(self) -> None:
        self.free()
        self.device.destroy_event(self.uploaded)
        self.device.destroy_event(self.consumed)


class Staging:
    """Takes arrays to the device: packed into one pinned block, in one copy.

    There are two slots, so that one batch is uploaded while the one before is computed. The host waits only until a
    slot's last upload is over; that its last use is over, too, the upload stream waits for.

    Args:
        device: Where to.
        upload: The stream for the copies.
        compute: The stream on which they are used.
        slots: How many; 2 overlaps, 1 would not.
    """

    def __init__(self, device: Device, upload: int, compute: int, slots: int = 2) -> None:
        self._device, self._upload, self._compute = device, upload, compute
        self._slots = [_Slot(device) for _ in range(slots)]
        self._turn = 0
        self._current: _Slot | None = None

    def put(self, layout: Layout, arrays: Sequence[Array]) -> int:
        """Begins to copy arrays to the device; work that is put on the compute stream from now on finds them there.

        Args:
            layout: Their places.
            arrays: One a place; they may be changed when this returns.

        Returns:
            Where they will be, until `release`.
        """
        device, slot = self._device, self._slots[self._turn]
        self._turn = (self._turn + 1) % len(self._slots)
        if slot.pinned is None or len(slot.pinned.array) < layout.size_bytes:
            slot.grow(rounded(layout.size_bytes))
        assert slot.pinned is not None
        if slot.is_used:
            device.synchronize_event(slot.uploaded)
        if (views := slot.views.get(layout)) is None:
            views = _views(slot, layout)
        for view, array in zip(views, arrays, strict=True):
            view[...] = array
        if slot.is_used:
            device.wait(self._upload, slot.consumed)
        self._current = slot
        device.upload(slot.address, slot.pinned.address, layout.size_bytes, self._upload)
        device.record(slot.uploaded, self._upload)
        device.wait(self._compute, slot.uploaded)
        return slot.address

    def release(self) -> None:
        """Says that all work which uses what was `put` last is on the compute stream."""
        if self._current is not None:
            self._device.record(self._current.consumed, self._compute)
            self._current.is_used = True
            self._current = None

    def close(self) -> None:
        """Frees all; waits for what is under way."""
        self.release()
        for slot in self._slots:
            slot.close()
        self._slots.clear()


def rounded(size_bytes: int) -> int:
    """The next of the sizes that blocks have: four in every doubling, so at most a quarter is wasted."""
    step = max(ALIGNMENT, 1 << (size_bytes.bit_length() - 3 if size_bytes > 4 else 0))
    return max(ALIGNMENT, -(-size_bytes // step) * step)


def _views(slot: _Slot, layout: Layout) -> list[Array]:
    assert slot.pinned is not None
    if len(slot.views) >= _MOST_VIEWS:
        slot.views.clear()
    views = slot.views[layout] = [place.view(slot.pinned.array) for place in layout.places]
    return views
