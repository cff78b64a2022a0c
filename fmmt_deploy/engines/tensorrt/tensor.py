"""An engine's output, in device memory, and perhaps still being computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.engines.tensorrt.buffers import Block
from fmmt_deploy.engines.tensorrt.layout import Place
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.errors import FmmtError

__all__ = ["DeviceTensor"]


class DeviceTensor:
    """A tensor in device memory; see `Tensor`. Its memory is used again when the last tensor of its block is dropped.

    Args:
        session: Whose memory it is in.
        block: That memory, whose event marks when it has been computed.
        place: Where in it.

    Attributes:
        shape: Its axes.
        dtype: Its type.
        address: Where it begins, on the device.
        size_bytes: How long it is.
    """

    __slots__ = ("_block", "_place", "address", "dtype", "session", "shape", "size_bytes")

    def __init__(self, session: Session, block: Block, place: Place) -> None:
        self.session, self._block, self._place = session, block, place
        self.shape: tuple[int, ...] = place.shape
        self.dtype: np.dtype[Any] = place.dtype
        self.address, self.size_bytes = block.address + place.offset, place.size_bytes

    def numpy(self) -> Array:
        """Its numbers, on the host; waits for them.

        Raises:
            FmmtError: Its engine was closed.
        """
        session, device = self.session, self.session.device
        if session.is_closed:
            raise FmmtError("This answer is gone: its engines were closed.", fix="Read it before closing them.")
        memory = session.pinned.take(self.size_bytes)
        device.wait(session.download, self._block.event)
        try:
            device.download(memory.address, self.address, self.size_bytes, session.download)
        finally:  # whatever happens here, the block must not be used again while it is read
            device.synchronize_stream(session.download)
        array = memory.array[: self.size_bytes].view(self.dtype).reshape(self.shape).copy()
        session.pinned.give(memory)
        return array
