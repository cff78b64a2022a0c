"""The GPU through CUDA: without one every call ends in one line; with one, what is promised holds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.engines.tensorrt import cuda
from fmmt_deploy.engines.tensorrt.cuda import CudaDevice
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, CaptureError, Device, DeviceError, OutOfMemoryError, Pinned
from fmmt_deploy.engines.tensorrt.gpu import current_gpu
from fmmt_deploy.errors import EnvironmentProblem
from tests.engines.tensorrt.simulated_device import GPU, SimulatedDevice

PINNED = Pinned(0, np.empty(0, np.uint8))

CALLS: dict[str, Callable[[Device], object]] = {
    "allocate": lambda device: device.allocate(256),
    "free": lambda device: device.free(256),
    "pin": lambda device: device.pin(256),
    "unpin": lambda device: device.unpin(PINNED),
    "create_stream": lambda device: device.create_stream(),
    "destroy_stream": lambda device: device.destroy_stream(1),
    "synchronize_stream": lambda device: device.synchronize_stream(1),
    "create_event": lambda device: device.create_event(),
    "destroy_event": lambda device: device.destroy_event(1),
    "record": lambda device: device.record(1, 2),
    "wait": lambda device: device.wait(2, 1),
    "synchronize_event": lambda device: device.synchronize_event(1),
    "upload": lambda device: device.upload(0, 256, 8, 1),
    "download": lambda device: device.download(0, 256, 8, 1),
    "copy": lambda device: device.copy(0, 256, 8, 1),
    "fill": lambda device: device.fill(0, 255, 8, 1),
    "launch": lambda device: device.launch(1, 2),
    "destroy_graph": lambda device: device.destroy_graph(1),
}
CAPTURES: dict[str, Callable[[Device], object]] = {
    "begin_capture": lambda device: device.begin_capture(1),
    "end_capture": lambda device: device.end_capture(1),
}


def test_without_a_gpu() -> None:
    if current_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentProblem, match="No NVIDIA GPU was found"):
        CudaDevice()


@pytest.fixture
def driverless(monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    """A device whose GPU is gone: CUDA's real functions get real arguments, and fail before they look at them."""
    pytest.importorskip("cuda.bindings.runtime")
    if current_gpu() is not None:
        pytest.skip("this machine has a GPU, which would get made-up addresses")
    monkeypatch.setattr(cuda, "current_gpu", lambda: GPU)
    return CudaDevice()


@pytest.mark.parametrize("call", CALLS)
def test_each_call_without_a_driver(driverless: CudaDevice, call: str) -> None:
    with pytest.raises(EnvironmentProblem, match="The NVIDIA GPU can't be used") as caught:
        CALLS[call](driverless)
    assert "cudaErrorInsufficientDriver: CUDA driver version is insufficient" in caught.value.why


@pytest.mark.parametrize("call", CAPTURES)
def test_each_call_of_a_capture_without_a_driver(driverless: CudaDevice, call: str) -> None:
    with pytest.raises(CaptureError, match="could not capture"):
        CAPTURES[call](driverless)


def test_every_call_of_a_device_is_tried() -> None:
    names = {name for name in vars(Device) if not name.startswith("_")} - {"gpu", "close"}
    assert {*CALLS, *CAPTURES} == names
    assert all(callable(getattr(kind, name)) for kind in (CudaDevice, SimulatedDevice) for name in names)


def test_errors_become_ours(driverless: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    errors, strings = driverless._cuda.cudaError_t, driverless._cuda.cudaGetErrorString

    class Answers:
        """CUDA's module, but that memory has run out, and a kernel went astray."""

        forgotten = 0

        def cudaGetErrorString(self, error: Any) -> Any:  # noqa: N802 - CUDA's name
            return strings(error)

        def cudaMalloc(self, size: int) -> tuple[Any, int]:  # noqa: N802 - CUDA's name
            del size
            return errors.cudaErrorMemoryAllocation, 0

        def cudaMallocHost(self, size: int) -> tuple[Any, int]:  # noqa: N802 - CUDA's name
            del size
            return errors.cudaErrorMemoryAllocation, 0

        def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:  # noqa: N802 - CUDA's name
            del stream
            return (errors.cudaErrorIllegalAddress,)

        def cudaGetLastError(self) -> None:  # noqa: N802 - CUDA's name
            self.forgotten += 1

    monkeypatch.setattr(driverless, "_cuda", answers := Answers())
    with pytest.raises(OutOfMemoryError, match="GPU has no memory left: 4096 bytes") as caught:
        driverless.allocate(4096)
    assert (caught.value.exit_code, answers.forgotten) == (3, 1)
    assert "smaller --batch-size" in caught.value.fix
    with pytest.raises(OutOfMemoryError, match="host has no pinned memory left"):
        driverless.pin(4096)
    with pytest.raises(DeviceError, match="CUDA failed in cudaStreamSynchronize") as failed:
        driverless.synchronize_stream(1)
    assert "cudaErrorIllegalAddress" in failed.value.why


@pytest.fixture(params=["simulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "simulated":
        return SimulatedDevice()
    if current_gpu() is None:
        pytest.skip("no NVIDIA GPU")
    return CudaDevice()


def test_there_and_back(device: Device) -> None:
    """Also what the simulated one does, so that the two are the same where both are right."""
    stream, other, event = device.create_stream(), device.create_stream(), device.create_event()
    first, second = device.allocate(1024), device.allocate(1024)
    up, down = device.pin(1024), device.pin(1024)
    assert first % ALIGNMENT == second % ALIGNMENT == 0
    up.array[:] = np.arange(1024, dtype=np.uint8)
    device.upload(first, up.address, 1024, stream)
    device.copy(second, first, 1024, stream)
    device.fill(second, 7, 10, stream)
    device.record(event, stream)
    device.wait(other, event)
    device.download(down.address, second, 1024, other)
    device.synchronize_stream(other)
    np.testing.assert_array_equal(down.array[10:], up.array[10:])
    assert set(down.array[:10]) == {7}
    device.begin_capture(stream)
    device.copy(second, first, 1024, stream)
    graph = device.end_capture(stream)
    device.download(down.address, second, 1024, stream)
    device.synchronize_stream(stream)
    assert down.array[0] == 7  # it was captured, not done
    device.launch(graph, stream)
    device.download(down.address, second, 1024, stream)
    device.record(event, stream)
    device.synchronize_event(event)
    np.testing.assert_array_equal(down.array, up.array)
    device.destroy_graph(graph)
    for address in (first, second):
        device.free(address)
    for memory in (up, down):
        device.unpin(memory)
    device.destroy_event(event)
    for each in (stream, other):
        device.destroy_stream(each)
    device.close()
