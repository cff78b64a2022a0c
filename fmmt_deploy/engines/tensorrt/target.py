"""What an engine is built for: one GPU, or with TensorRT-RTX a family of them."""

from __future__ import annotations

from dataclasses import dataclass

from fmmt_deploy.engines.tensorrt.flavour import FlavourName, title
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["PORTABLE", "Target", "target_of"]

_AND_LATER = "+"


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


def target_of(flavour: FlavourName, gpu: Gpu | None) -> Target:
    """What an engine built here is for: this machine's GPU, or without one, with TensorRT-RTX, `PORTABLE`.

    Raises:
        EnvironmentProblem: There is no GPU, and this TensorRT builds only on the GPU that the engine is for.
    """
    if gpu is not None:
        return Target(gpu.name, (gpu.compute_capability,))
    if flavour == "trt":
        raise EnvironmentProblem(
            f"{title(flavour)} builds an engine on the GPU that it is for, and none is found here.",
            fix="Run this on a machine with an NVIDIA GPU and its driver, and with `pip install cuda-bindings`; or use "
            "trt-rtx, which builds without one.",
        )
    return PORTABLE


def _covers(own: str, capability: str) -> bool:
    if own.endswith(_AND_LATER):
        return _number(own.removesuffix(_AND_LATER)) <= _number(capability)
    return own == capability


def _number(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
