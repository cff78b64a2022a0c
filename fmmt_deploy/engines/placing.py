"""Inputs put where an engine computes, for those who want to know what a run takes without copying them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from fmmt_deploy.engines.protocol import Engine, Value

__all__ = ["Placing", "placed"]


@runtime_checkable
class Placing(Protocol):
    """What an engine on a device has besides being an `Engine`."""

    def place(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Copies inputs to the device and waits for that; an input that the engine reads on the host stays there."""
        ...


def placed(engine: Engine, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """The inputs where the engine computes; for one that computes on the host they are there already."""
    return engine.place(inputs) if isinstance(engine, Placing) else dict(inputs)
