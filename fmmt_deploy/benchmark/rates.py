"""Which of the machine's rates contenders are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from fmmt_deploy.benchmark.choices import rate_name
from fmmt_deploy.benchmark.device import DeviceMatrixRate, copy_rate
from fmmt_deploy.benchmark.matrix_rate import fastest_rate
from fmmt_deploy.benchmark.run import Contender
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["copy_rate_for", "rates_for"]


def rates_for(contenders: Iterable[Contender], threads: int) -> dict[str, Callable[[], float]]:
    """What samples each rate that a contender is held against, by `rate_name`.

    A rate that can't be measured is left out: a GPU's is PyTorch's, which TensorRT does without.

    Args:
        contenders: Where they compute, and in which precisions.
        threads: For the CPU's.
    """
    unnamed: set[Precision] = {"fp32"}
    wanted = {(c.device, p) for c in contenders for p in set(c.precisions.values()) or unnamed}
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


def copy_rate_for(contenders: Iterable[Contender]) -> float | None:
    """The GPU's copy rate in GB/s if one is among them, and PyTorch can measure it."""
    if all(contender.device == "cpu" for contender in contenders):
        return None
    with suppress(EnvironmentProblem):
        return copy_rate()
    return None
