"""The simulated GPU notices what it is there to notice."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.engines.tensorrt.simulated_device import Access, SimulatedDevice, SimulationError

D = SimulatedDevice


def out_of_bounds(device: D, stream: int) -> None:
    device.fill(device.allocate(256) + 1, 0, 256, stream)


def freed(device: D, stream: int) -> None:
    device.free(address := device.allocate(256))
    device.fill(address, 0, 256, stream)


def freed_in_use(device: D, stream: int) -> None:
    device.fill(address := device.allocate(256), 0, 256, stream)
    device.free(address)


def freed_twice(device: D, stream: int) -> None:
    del stream
    device.free(address := device.allocate(256))
    device.free(address)


def host_memory(device: D, stream: int) -> None:
    device.upload(device.allocate(256), np.zeros(256, np.uint8).ctypes.data, 256, stream)


def overlap(device: D, stream: int) -> None:
    address = device.allocate(512)
    device.copy(address, address + 100, 256, stream)


def unrecorded(device: D, stream: int) -> None:
    device.wait(stream, device.create_event())


def race(device: D, stream: int) -> None:
    address, other = device.allocate(256), device.create_stream()
    device.fill(address, 0, 256, stream)
    device.work(other, "read", lambda: None, [Access(address, 8, False)])


def stale_event(device: D, stream: int) -> None:
    """The event was recorded before the work it should cover."""
    address, other, event = device.allocate(256), device.create_stream(), device.create_event()
    device.record(event, stream)
    device.fill(address, 0, 256, stream)
    device.wait(other, event)
    device.fill(address, 1, 256, other)


def allocation_in_capture(device: D, stream: int) -> None:
    device.begin_capture(stream)
    device.allocate(256)


def the_wrong_way(device: D, stream: int) -> None:
    device.upload(device.pin(256).address, device.allocate(256), 256, stream)


def pinned_as_if_on_the_device(device: D, stream: int) -> None:
    del stream
    device.free(device.pin(256).address)


WRONG: dict[str, tuple[Callable[[D, int], None], str]] = {
    "out of bounds": (out_of_bounds, "out of bounds"),
    "freed": (freed, "freed"),
    "freed in use": (freed_in_use, "freed while work uses it"),
    "freed twice": (freed_twice, "freed twice"),
    "host memory": (host_memory, "out of bounds"),
    "the wrong way": (the_wrong_way, "is pinned memory"),
    "pinned as if on the device": (pinned_as_if_on_the_device, "is pinned memory"),
    "overlap": (overlap, "overlaps"),
    "unrecorded": (unrecorded, "never recorded"),
    "race": (race, "does not wait for another stream"),
    "stale event": (stale_event, "does not wait for another stream"),
    "allocation in a capture": (allocation_in_capture, "during a capture"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_an_error(wrong: str) -> None:
    do, message = WRONG[wrong]
    device = SimulatedDevice()
    with pytest.raises(SimulationError, match=message):
        do(device, device.create_stream())


def test_nothing_is_done_before_somebody_waits() -> None:
    """And so a copy takes what is in host memory then."""
    device = SimulatedDevice()
    stream, address = device.create_stream(), device.allocate(4)
    up, down = device.pin(4), device.pin(4)
    up.array[:] = 1
    device.upload(address, up.address, 4, stream)
    device.download(down.address, address, 4, stream)
    assert device.log == []
    up.array[:] = 2
    device.synchronize_stream(stream)
    assert down.array.tolist() == [2] * 4


def test_fresh_memory_is_nan() -> None:
    device = SimulatedDevice()
    stream, address, down = device.create_stream(), device.allocate(8), device.pin(8)
    device.download(down.address, address, 8, stream)
    device.synchronize_stream(stream)
    assert np.isnan(down.array.view(np.float32)).all()


def test_events_order_streams() -> None:
    for seed in (None, *range(10)):
        device = SimulatedDevice(seed)
        one, other, event = device.create_stream(), device.create_stream(), device.create_event()
        address, down = device.allocate(8), device.pin(8)
        for value in range(5):
            device.fill(address, value, 8, one)
        device.record(event, one)
        device.wait(other, event)
        device.download(down.address, address, 8, other)
        device.synchronize_stream(other)
        assert down.array.tolist() == [4] * 8
