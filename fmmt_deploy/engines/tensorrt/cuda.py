"""An NVIDIA GPU through `cuda.bindings.runtime`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from fmmt_deploy.engines.tensorrt.device import CaptureError, DeviceError, OutOfMemoryError, Pinned
from fmmt_deploy.engines.tensorrt.gpu import NO_GPU, Gpu, current_gpu
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["CudaDevice"]


class CudaDevice:
    """The GPU that CUDA chooses; see `Device`.

    Device memory comes from `cudaMalloc`: `buffers.BlockPool` keeps and reuses it, so that calls which cost a
    synchronisation are rare, and works where the driver has no memory pools of its own (virtual GPUs).

    Raises:
        EnvironmentProblem: There is no GPU, no driver, or no `cuda-bindings`.
    """

    def __init__(self) -> None:
        gpu = current_gpu()
        if gpu is None:
            raise EnvironmentProblem(
                "No NVIDIA GPU was found: TensorRT runs on nothing else.",
                fix="Install NVIDIA's driver, and cuda-python (`pip install cuda-bindings`); or use --engine ort.",
            )
        from cuda.bindings import runtime

        self._gpu = gpu
        self._cuda: Any = runtime
        self._success = runtime.cudaError_t.cudaSuccess
        kinds = runtime.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._across = kinds.cudaMemcpyDeviceToDevice
        self._copy = runtime.cudaMemcpyAsync  # what a call of an engine uses is looked up once
        self._record, self._wait, self._launch = (
            runtime.cudaEventRecord,
            runtime.cudaStreamWaitEvent,
            runtime.cudaGraphLaunch,
        )

    @property
    def gpu(self) -> Gpu:
        """Which one it is."""
        return self._gpu

    def allocate(self, size_bytes: int) -> int:
        """See `Device`."""
        return int(self._one(self._cuda.cudaMalloc(size_bytes), "cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaFree(address)[0], "cudaFree")

    def pin(self, size_bytes: int) -> Pinned:
        """See `Device`."""
        address = int(self._one(self._cuda.cudaMallocHost(size_bytes), "cudaMallocHost", size_bytes))
        return Pinned(address, np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address)))

    def unpin(self, memory: Pinned) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaFreeHost(memory.address)[0], "cudaFreeHost")

    def create_stream(self) -> int:
        """See `Device`."""
        flags = self._cuda.cudaStreamNonBlocking  # else it would wait for the default stream, which others may use
        return int(self._one(self._cuda.cudaStreamCreateWithFlags(flags), "cudaStreamCreate"))

    def destroy_stream(self, stream: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaStreamDestroy(stream)[0], "cudaStreamDestroy")

    def synchronize_stream(self, stream: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaStreamSynchronize(stream)[0], "cudaStreamSynchronize")

    def create_event(self) -> int:
        """See `Device`."""
        flags = self._cuda.cudaEventDisableTiming  # such events are the quickest
        return int(self._one(self._cuda.cudaEventCreateWithFlags(flags), "cudaEventCreate"))

    def destroy_event(self, event: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaEventDestroy(event)[0], "cudaEventDestroy")

    def record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._record(event, stream)[0], "cudaEventRecord")

    def wait(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._check(self._wait(stream, event, 0)[0], "cudaStreamWaitEvent")

    def synchronize_event(self, event: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaEventSynchronize(event)[0], "cudaEventSynchronize")

    def upload(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._copy(destination, source, size_bytes, self._up, stream)[0], "cudaMemcpyAsync")

    def download(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._copy(destination, source, size_bytes, self._down, stream)[0], "cudaMemcpyAsync")

    def copy(self, destination: int, source: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._copy(destination, source, size_bytes, self._across, stream)[0], "cudaMemcpyAsync")

    def fill(self, destination: int, byte: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaMemsetAsync(destination, byte, size_bytes, stream)[0], "cudaMemsetAsync")

    def begin_capture(self, stream: int) -> None:
        """See `Device`."""
        # threads that read faces don't touch the GPU, but a library that does must not spoil our capture
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check_capture(self._cuda.cudaStreamBeginCapture(stream, mode)[0], "cudaStreamBeginCapture")

    def end_capture(self, stream: int) -> int:
        """See `Device`."""
        error, captured = self._cuda.cudaStreamEndCapture(stream)
        self._check_capture(error, "cudaStreamEndCapture")
        try:
            error, graph = self._cuda.cudaGraphInstantiate(captured, 0)
            self._check_capture(error, "cudaGraphInstantiate")
        finally:
            self._cuda.cudaGraphDestroy(captured)  # the executable graph does not need it
        return int(graph)

    def launch(self, graph: int, stream: int) -> None:
        """See `Device`."""
        self._check(self._launch(graph, stream)[0], "cudaGraphLaunch")

    def destroy_graph(self, graph: int) -> None:
        """See `Device`."""
        self._check(self._cuda.cudaGraphExecDestroy(graph)[0], "cudaGraphExecDestroy")

    def close(self) -> None:
        """Nothing: the process shares CUDA's context with TensorRT, and perhaps with PyTorch."""

    def _one(self, answer: tuple[Any, Any], call: str, size_bytes: int = 0) -> Any:
        """The result of a call that has one."""
        error, value = answer
        self._check(error, call, size_bytes)
        return value

    def _check(self, error: Any, call: str, size_bytes: int = 0) -> None:
        if error is not self._success and error != self._success:
            raise self._problem(error, call, size_bytes)

    def _check_capture(self, error: Any, call: str) -> None:
        if error != self._success:
            self._cuda.cudaGetLastError()  # forget it, or the next call that is in order would report it
            raise CaptureError(f"CUDA could not capture a graph: {call} failed.", why=self._reason(error))

    def _problem(self, error: Any, call: str, size_bytes: int) -> Exception:
        """The one place where CUDA's errors become ours."""
        reason = self._reason(error)
        if error.name == "cudaErrorMemoryAllocation":
            self._cuda.cudaGetLastError()  # this error does no harm to the context: forget it
            where = "host has no pinned memory" if call == "cudaMallocHost" else "GPU has no memory"
            return OutOfMemoryError(
                f"The {where} left: {size_bytes} bytes were asked for.",
                why=reason,
                fix="Use a smaller --batch-size, or end what else uses the GPU.",
            )
        if error.name in NO_GPU:
            return EnvironmentProblem(
                "The NVIDIA GPU can't be used.",
                why=reason,
                fix="Check the driver with nvidia-smi, or use --engine ort.",
            )
        return DeviceError(
            f"CUDA failed in {call}.", why=reason, fix="Run again with CUDA_LAUNCH_BLOCKING=1 to see where."
        )

    def _reason(self, error: Any) -> str:
        _, text = self._cuda.cudaGetErrorString(error)
        return f"{error.name}: {text.decode()}"
