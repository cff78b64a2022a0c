"""Which of the machine's rates engines are held against, and what samples of them say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import numpy as np

from fmmt_deploy.benchmark.choices import Choice, rate_name
from fmmt_deploy.benchmark.device import DeviceMatrixRate, copy_rate
from fmmt_deploy.benchmark.matrix_rate import fastest_rate
from fmmt_deploy.benchmark.statistics import median_interval
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["RateRow", "copy_rate_for", "rate_rows", "rates_for"]


@dataclass(frozen=True, slots=True)
class RateRow:
    """How fast the machine multiplies matrices: where and in which precision, median, range, interval of the median."""

    name: str
    gflops: float
    gflops_range: tuple[float, float]
    gflops_interval: tuple[float, float]


def rate_rows(rates: Mapping[str, Sequence[float]]) -> tuple[RateRow, ...]:
    """What samples of rates say, in TFLOP/s by name."""
    rows = []
    for name, samples in rates.items():
        if samples:
            low, high, _ = median_interval(1000 * np.asarray(samples), 0.95)
            rows.append(RateRow(name, 1000 * median(samples), (1000 * min(samples), 1000 * max(samples)), (low, high)))
    return tuple(rows)


def rates_for(choices: Iterable[Choice], threads: int) -> dict[str, Callable[[], float]]:
    """What samples each rate that an engine is held against, by `rate_name`.

    A rate that can't be measured is left out: a GPU's is PyTorch's, which TensorRT does without.

    Args:
        choices: The engines.
        threads: For the CPU's.
    """
    wanted = {(choice.device, precision) for choice in choices for precision in choice.precisions.values()}
    rates: dict[str, Callable[[], float]] = {}
    for device, precision in sorted(wanted):
        name = rate_name(device, precision)
        if device == "cpu":
            if name not in rates:
                rates[name] = fastest_rate(threads).sample
        else:
            with suppress(EnvironmentProblem):
                rates[name] = DeviceMatrixRate(precision).sample
    return rates


def copy_rate_for(choices: Iterable[Choice]) -> float | None:
    """The GPU's copy rate in GB/s if an engine computes there, and PyTorch can measure it."""
    if all(choice.device == "cpu" for choice in choices):
        return None
    with suppress(EnvironmentProblem):
        return copy_rate()
    return None
