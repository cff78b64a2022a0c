"""What a GPU can do: how fast it multiplies and copies, through PyTorch; and waiting for all that it has to do.

A rate is the median of samples that each take some milliseconds, so that starting the work weighs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.tensorrt.gpu import current_gpu
from fmmt_deploy.errors import EnvironmentProblem, FmmtError

__all__ = ["DeviceMatrixRate", "copy_rate", "device_wait", "seconds_of_call"]

_SAMPLE_SECONDS = 0.01
_MOST_REPEATS = 1000
_TYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def device_wait() -> Callable[[], None]:
    """What waits until the GPU has done everything this process gave it; without a GPU there is nothing to wait for."""
    try:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.synchronize
    except ImportError:  # TensorRT needs no PyTorch
        pass
    return _wait_in_cuda if current_gpu() is not None else lambda: None


def seconds_of_call(
    call: Callable[[], object], wait: Callable[[], object], samples: int = 5, most: int = _MOST_REPEATS
) -> float:
    """Seconds of a call when calls follow each other: the median of samples of several, each waited for at its end.

    Args:
        call: Begins the work; the first calls are thrown away.
        wait: Waits for it.
        samples: How many.
        most: Calls in a sample.
    """
    repeats = min(most, _enough(call, wait))
    return median(_seconds(call, repeats, wait) for _ in range(samples))


class DeviceMatrixRate:
    """Products of two square matrices on a GPU; float32 without TF32.

    Args:
        precision: Of the matrices.
        size: Rows and columns; the default fills any card.
        device: As PyTorch names it.

    Raises:
        EnvironmentProblem: There is no GPU, no PyTorch, or no such product there.
    """

    def __init__(self, precision: Precision, size: int = 8192, device: str = "cuda") -> None:
        if device == "cuda":
            from fmmt_deploy.engines.torch.load import check_cuda

            check_cuda("The matrix rate")
        import torch

        if precision not in _TYPES:
            raise EnvironmentProblem(f"PyTorch has no matrix product in {precision} to compare with.")
        kind = getattr(torch, _TYPES[precision])
        torch.manual_seed(0)
        # small numbers as in a model: what is multiplied decides the card's power, and so its clock
        self._left, self._right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        self._product = torch.empty_like(self._left)
        self._wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.size, self._repeats = size, 0

    def sample(self) -> float:
        """Rate of some products one after the other, in TFLOP/s."""
        import torch

        def multiply() -> None:
            torch.mm(self._left, self._right, out=self._product)

        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            if not self._repeats:
                self._repeats = _enough(multiply, self._wait)
            seconds = _seconds(multiply, self._repeats, self._wait)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        return 2 * self.size**3 / seconds / 1e12


def copy_rate(size_bytes: int = 2**30, samples: int = 5, device: str = "cuda") -> float:
    """How fast the GPU's memory is read and written, in GB/s: twice the bytes of a copy within it.

    Raises:
        EnvironmentProblem: There is no GPU, or no PyTorch.
    """
    if device == "cuda":
        from fmmt_deploy.engines.torch.load import check_cuda

        check_cuda("The copy rate")
    import torch

    source = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return 2 * size_bytes / seconds_of_call(lambda: target.copy_(source), wait, samples) / 1e9


def _enough(work: Callable[[], object], wait: Callable[[], object]) -> int:
    """How often the work must be done for a sample to take long enough.

    The first two times are thrown away: engines compile in the one, and may capture a CUDA graph in the other.
    """
    for _ in range(2):
        _seconds(work, 1, wait)
    return min(_MOST_REPEATS, 1 + int(_SAMPLE_SECONDS / _seconds(work, 1, wait)))


def _seconds(work: Callable[[], object], repeats: int, wait: Callable[[], object]) -> float:
    """Seconds of one of several repetitions."""
    wait()
    start = perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return max(perf_counter() - start, 1e-9) / repeats


def _wait_in_cuda() -> None:
    from cuda.bindings import runtime

    (error,) = runtime.cudaDeviceSynchronize()
    if error != runtime.cudaError_t.cudaSuccess:
        raise FmmtError(f"The GPU failed: {error.name}.", fix="Run the engine alone with --debug.")
