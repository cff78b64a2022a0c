"""What is compared: engines in precisions, as `--engine KIND[:PRECISION]` names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.precisions import Precisions, float32, precisions_from_option, text_from_precisions
from fmmt_deploy.engines.protocol import ENGINE_KINDS, EngineKind
from fmmt_deploy.errors import UsageError

__all__ = ["HOST_KINDS", "Choice", "Device", "choice_from_option", "published_choice", "rate_name"]

Device: TypeAlias = Literal["cpu", "cuda"]

HOST_KINDS: tuple[EngineKind, ...] = ("ort", "torch", "emulated")
"""Engines that compute on the CPU; their outputs are there when `start` returns."""


@dataclass(frozen=True)
class Choice:
    """An engine in a precision.

    Attributes:
        kind: The engine.
        precisions: Of each graph.
    """

    kind: EngineKind
    precisions: Precisions

    @property
    def name(self) -> str:
        """As the option names it, and only the kind for float32: `trt:swin=fp16,plm=fp16,fusion=fp32`."""
        text = text_from_precisions(self.precisions)
        return self.kind if text == "fp32" else f"{self.kind}:{text}"

    @property
    def device(self) -> Device:
        """Where it computes."""
        return "cpu" if self.kind in HOST_KINDS else "cuda"


def choice_from_option(text: str, architecture: Architecture) -> Choice:
    """Reads `KIND`, `KIND:TYPE` or `KIND:GRAPH=TYPE,…`.

    Args:
        text: The option's value.
        architecture: Whose graphs they are.

    Raises:
        UsageError: The engine, a graph or a precision is unknown.
    """
    name, colon, precision = (part.strip() for part in text.partition(":"))
    kind = next((kind for kind in ENGINE_KINDS if kind == name), None)
    if kind is None:
        raise UsageError(f"--engine {text}: there is no engine {name!r}.", fix=f"Known are {', '.join(ENGINE_KINDS)}.")
    try:
        return Choice(kind, precisions_from_option(precision if colon else "fp32", architecture))
    except UsageError as error:
        what = error.what.removeprefix(f"--precision {precision}: ")
        raise UsageError(f"--engine {text}: {what}", fix=error.fix) from error


def published_choice(choices: Iterable[Choice], architecture: Architecture) -> Choice:
    """What the published loop runs on: PyTorch in float32 on the CPU, or in FP16 on the GPU beside others there."""
    graphs = graphs_of(architecture)
    if any(choice.device == "cuda" for choice in choices):
        return Choice("torch-cuda", dict.fromkeys(graphs, "fp16"))
    return Choice("torch", float32(graphs))


def rate_name(device: Device, precision: Precision) -> str:
    """Which matrix-product rate a graph is held against; whatever is computed on a CPU is computed in float32."""
    return f"{device} {'fp32' if device == 'cpu' else precision}"
