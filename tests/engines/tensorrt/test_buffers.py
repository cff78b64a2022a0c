"""Blocks and their sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.engines.tensorrt.buffers import BlockPool, Staging, rounded
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, OutOfMemoryError
from fmmt_deploy.engines.tensorrt.layout import layout_of
from tests.engines.tensorrt.simulated_device import SimulatedDevice


@given(st.integers(0, 1 << 34))
def test_sizes_are_few_and_waste_little(size: int) -> None:
    found = rounded(size)
    assert found >= size
    assert found % ALIGNMENT == 0
    assert found <= max(size * 1.25, size + ALIGNMENT)
    assert rounded(found) == found


def test_there_are_four_sizes_in_a_doubling() -> None:
    assert len({rounded(size) for size in range(1 << 16, 1 << 17)}) == 5  # both ends included


def test_blocks_are_used_again() -> None:
    device = SimulatedDevice(memory_bytes=4096)
    pool = BlockPool(device, device.create_stream())
    first = pool.take(1000)
    address = first.address
    other = pool.take(1000)
    assert other.address != address
    del first
    assert pool.take(1024).address == address
    assert pool.take(300).address not in (address, other.address)


def test_what_is_unused_is_freed_before_memory_runs_out() -> None:
    device = SimulatedDevice(memory_bytes=4096)
    pool = BlockPool(device, device.create_stream())
    for size in (512, 1024, 2048, 4096):
        assert pool.take(size).size_bytes == size
    held = pool.take(2048)
    with pytest.raises(OutOfMemoryError):
        pool.take(4096)
    pool.close()
    assert held.size_bytes == 2048
    assert len(device.leaks()) == 1  # the stream


def test_a_slot_that_could_not_grow_grows_the_next_time() -> None:
    """Pinned memory is the host's: what the GPU has no room for, a smaller input must not take to be there."""
    device = SimulatedDevice(memory_bytes=4096)
    upload, compute = device.create_stream(), device.create_stream()
    staging, kind = Staging(device, upload, compute, slots=1), np.dtype(np.uint8)
    held = device.allocate(2048)
    with pytest.raises(OutOfMemoryError):
        staging.put(layout_of([("x", (4096,), kind)]), [np.zeros(4096, np.uint8)])
    device.free(held)
    address = staging.put(layout_of([("x", (8,), kind)]), [np.arange(8, dtype=np.uint8)])
    staging.release()
    device.synchronize_stream(compute)
    assert device.bytes_at(address, 8).tolist() == list(range(8))
    staging.close()
