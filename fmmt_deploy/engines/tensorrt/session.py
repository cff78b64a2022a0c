"""What the engines of a bundle share: the device, its streams and its memory."""

from __future__ import annotations

from fmmt_deploy.engines.tensorrt.buffers import BlockPool, PinnedPool
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, Device

__all__ = ["Session"]


class Session:
    """A device with three streams: one computes, one brings inputs, one takes answers away.

    All engines compute on one stream, one after the other: so they share their scratch memory and their blocks without
    waiting for each other. Answers have a stream of their own, so that they needn't wait for inputs of later batches.
    One thread at a time may use it.

    Args:
        device: The device; the session closes it.
        poison: Fill outputs with NaN before they are computed, to find what an engine does not write.
    """

    def __init__(self, device: Device, *, poison: bool = False) -> None:
        self.device, self.poison = device, poison
        self.compute, self.upload, self.download = (device.create_stream() for _ in range(3))
        self.blocks, self.pinned = BlockPool(device, self.compute), PinnedPool(device)
        self.is_closed = False
        self._users = 0
        self._scratch: list[tuple[int, int]] = []

    def share(self) -> None:
        """Keeps the session open until one more `release`."""
        self._users += 1

    def release(self) -> None:
        """Closes the session if nobody else shares it."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def scratch(self, size_bytes: int) -> tuple[int, int]:
        """The scratch memory that all contexts share, made larger if need be, and its size.

        Ask for the largest first: what was given out stays in use.
        """
        if not self._scratch or self._scratch[-1][1] < size_bytes:
            size_bytes = max(size_bytes, ALIGNMENT)
            self._scratch.append((self.device.allocate(size_bytes), size_bytes))
        return self._scratch[-1]

    def synchronize(self) -> None:
        """Waits for all that is under way."""
        for stream in (self.upload, self.compute, self.download):
            self.device.synchronize_stream(stream)

    def close(self) -> None:
        """Waits for all that is under way, and frees everything."""
        if self.is_closed:
            return
        self.is_closed = True
        self.synchronize()
        self.blocks.close()
        self.pinned.close()
        for address, _ in self._scratch:
            self.device.free(address)
        self._scratch.clear()
        for stream in (self.upload, self.compute, self.download):
            self.device.destroy_stream(stream)
        self.device.close()
