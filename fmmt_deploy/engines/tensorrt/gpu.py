"""Which GPU this process would use, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["NO_GPU", "Gpu", "current_gpu", "gpu_is_broken"]

NO_GPU = (
    "cudaErrorInsufficientDriver",
    "cudaErrorNoDevice",
    "cudaErrorInitializationError",
    "cudaErrorDevicesUnavailable",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorCompatNotSupportedOnDevice",
)
"""Errors that say that there is no GPU to use, or no driver that would let us."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: For example `NVIDIA L4`.
        compute_capability: For example `8.9`.
        memory_bytes: All of its memory.
        driver: The newest CUDA that its driver runs, for example `13.0`.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str


def current_gpu() -> Gpu | None:
    """The GPU that CUDA chooses; None without one, without a driver, or without the `cuda-bindings` package."""
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError):  # absent, or its libraries are
        return None
    try:
        return _described(runtime)
    except RuntimeError:  # how the bindings say that a library of CUDA's is not on this machine
        return None


def gpu_is_broken() -> bool:
    """Whether no call will do any more in this process: an error such as an illegal address stays until it ends."""
    try:
        from cuda.bindings import runtime

        (error,) = runtime.cudaDeviceSynchronize()
    except (ImportError, OSError, RuntimeError):  # as in `current_gpu`
        return False
    return error.name not in ("cudaSuccess", *NO_GPU)


def _described(runtime: Any) -> Gpu | None:
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or count == 0:
        return None
    error, device = runtime.cudaGetDevice()
    if error != runtime.cudaError_t.cudaSuccess:
        return None
    error, properties = runtime.cudaGetDeviceProperties(device)
    if error != runtime.cudaError_t.cudaSuccess:
        return None
    _, version = runtime.cudaDriverGetVersion()  # 13000 is 13.0, 12080 is 12.8
    return Gpu(
        bytes(properties.name).split(b"\0")[0].decode(),
        f"{properties.major}.{properties.minor}",
        int(properties.totalGlobalMem),
        f"{version // 1000}.{version % 1000 // 10}",
    )
