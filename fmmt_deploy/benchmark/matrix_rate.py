"""How fast this machine multiplies float32 matrices: the limit that every stage is measured against.

Which library multiplies fastest differs between machines, so `fastest_rate` tries those that are there and keeps the
best: a stage is held against what this machine can do, not against what NumPy makes of it. NumPy's product runs on as
many threads as its BLAS was started with (`OPENBLAS_NUM_THREADS`). Rates drift on shared machines, so take samples
between the engines' and compare with those.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from fmmt_deploy.errors import EnvironmentProblem, FmmtError
from fmmt_deploy.types import FloatArray

__all__ = ["MatrixRate", "MeasuredRate", "fastest_rate"]

MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """Rate of float32 matrix products, in 10¹² floating-point operations a second."""

    median_tflops: float
    highest_tflops: float
    samples: int
    size: int


class MatrixRate:
    """Products of two square float32 matrices, to be timed one by one.

    Args:
        size: Rows and columns. The default takes some 50 ms at 0.15 TFLOP/s and does not fit into the caches of a core.
        multiply: The product to time; its result is not used. Default NumPy's, into memory that is kept.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        size: int = 1536,
        multiply: Callable[[FloatArray, FloatArray], object] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        if size < 1:
            raise FmmtError(f"A matrix needs at least one row, found {size}.")
        random = np.random.default_rng(0)
        self.size = size
        self._left, self._right = random.standard_normal((2, size, size), np.float32)
        self._product = np.empty((size, size), np.float32)
        self._multiply = multiply or self._numpy_product
        self._clock = clock

    @property
    def flops(self) -> int:
        """Floating-point operations of one product: a multiplication and an addition each."""
        return 2 * self.size**3

    def sample_ms(self) -> float:
        """Time of one product in milliseconds, with what it is set against measured in between."""
        start = self._clock()
        self._multiply(self._left, self._right)
        return (self._clock() - start) * 1000

    def sample(self) -> float:
        """Rate of one product, in TFLOP/s."""
        return self.tflops(self.sample_ms())

    def tflops(self, time_ms: float) -> float:
        """The rate of a product that took so long.

        Raises:
            FmmtError: The time is not positive.
        """
        if time_ms <= 0:
            raise FmmtError(f"A product must take some time, found {time_ms} ms: the size {self.size} is too small.")
        return self.flops / (time_ms / 1000) / 1e12

    def measure(self, seconds: float = 1.0) -> MeasuredRate:
        """Takes samples for that long, after one that is thrown away, and at least 5.

        Raises:
            FmmtError: A product took no time.
        """
        self.sample_ms()
        start, rates = self._clock(), list[float]()
        while len(rates) < MIN_SAMPLES or self._clock() - start < seconds:
            rates.append(self.sample())
        return MeasuredRate(float(np.median(rates)), max(rates), len(rates), self.size)

    def _numpy_product(self, left: FloatArray, right: FloatArray) -> object:
        return np.matmul(left, right, out=self._product)


def fastest_rate(threads: int, size: int = 1536, seconds: float = 0.3) -> MatrixRate:
    """The library whose product is fastest here: NumPy, or ONNX Runtime if it is installed.

    Args:
        threads: For ONNX Runtime.
        size: Rows and columns.
        seconds: How long each is tried.
    """
    rates = [MatrixRate(size)]
    with suppress(EnvironmentProblem):
        rates.append(MatrixRate(size, _onnxruntime_product(size, threads)))
    return max(rates, key=lambda rate: rate.measure(seconds).highest_tflops)


def _onnxruntime_product(size: int, threads: int) -> Callable[[FloatArray, FloatArray], object]:
    """A session of one Gemm whose right side is a constant, as a model's weights are."""
    from onnx import TensorProto, helper, numpy_helper

    from fmmt_deploy.engines.ort.load import import_onnxruntime

    ort = import_onnxruntime()
    weight = np.random.default_rng(0).standard_normal((size, size), np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in ("x", "y"))
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", [x], [y], [numpy_helper.from_array(weight, "w")])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda left, _: session.run(None, {"x": left})
