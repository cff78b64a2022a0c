"""What an engine is built for: one GPU, or with TensorRT-RTX a family of them."""

from __future__ import annotations

from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.tensorrt.flavour import FlavourName, title
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.errors import EnvironmentProblem, PrecisionError

__all__ = ["PORTABLE", "PORTABLE_FP8", "Target", "check_has_fp8", "target_of"]

_AND_LATER = "+"
_FP8_SINCE = (8, 9)


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU, or compute capabilities.

    Attributes:
        gpu: The GPU's name, or "" where any GPU of these compute capabilities will do.
        compute_capabilities: For example `8.9`; `12.0+` is 12.0 and later.
    """

    gpu: str
    compute_capabilities: tuple[str, ...]

    def __str__(self) -> str:
        capabilities = ", ".join(self.compute_capabilities)
        return f"{self.gpu} ({capabilities})" if self.gpu else f"compute capability {capabilities}"

    def runs_on(self, machine: Target) -> bool:
        """Whether an engine for this runs on that GPU, or is for the same where that is none."""
        if self.gpu or not machine.gpu:
            return self == machine
        (capability,) = machine.compute_capabilities
        return any(_covers(own, capability) for own in self.compute_capabilities)


PORTABLE = Target("", ("8.0", "8.6", "8.9", "12.0+"))
"""What TensorRT-RTX builds for unless told otherwise, according to its documentation (1.7, "CPU-only AOT")."""


PORTABLE_FP8 = Target("", ("8.9", "12.0", "12.1"))
"""All that TensorRT-RTX 1.7 can be told to build for that has FP8; told nothing it builds for it does not say whom."""


def target_of(flavour: FlavourName, gpu: Gpu | None, precision: Precision = "fp32") -> Target:
    """What an engine built here is for: this machine's GPU, or without one, with TensorRT-RTX, `PORTABLE`.

    Args:
        flavour: Which TensorRT.
        gpu: This machine's, if it has one.
        precision: The graph's: in FP8 `PORTABLE_FP8` takes the place of `PORTABLE`.

    Raises:
        EnvironmentProblem: There is no GPU, and this TensorRT builds only on the GPU that the engine is for.
        PrecisionError: The GPU has no FP8, which the graph is in.
    """
    if gpu is not None:
        target = Target(gpu.name, (gpu.compute_capability,))
        if precision == "fp8":
            check_has_fp8(target)
        return target
    if flavour == "trt":
        raise EnvironmentProblem(
            f"{title(flavour)} builds an engine on the GPU that it is for, and none is found here.",
            fix="Run this on a machine with an NVIDIA GPU and its driver, and with `pip install cuda-bindings`; or use "
            "trt-rtx, which builds without one.",
        )
    return PORTABLE_FP8 if precision == "fp8" else PORTABLE


def check_has_fp8(target: Target) -> None:
    """Raises PrecisionError where one of a target's GPUs can't multiply numbers of FP8."""
    lacking = [c for c in target.compute_capabilities if _number(c.removesuffix(_AND_LATER)) < _FP8_SINCE]
    if lacking:
        which = str(target) if target.gpu else f"Compute capability {', '.join(lacking)}"
        raise PrecisionError(
            f"{which} has no FP8.",
            why="It came with compute capability 8.9: Ada (RTX 40, L4, L40S), Hopper (H100, H200) and later have it.",
            fix="Ask for int8 or fp16 instead.",
        )


def _covers(own: str, capability: str) -> bool:
    if own.endswith(_AND_LATER):
        return _number(own.removesuffix(_AND_LATER)) <= _number(capability)
    return own == capability


def _number(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
