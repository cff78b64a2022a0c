"""Engines that accept some shapes only, and say which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from fmmt_deploy.engines.protocol import Engine

__all__ = ["Ranged", "Shape", "ShapeRanges", "shape_ranges"]

Shape: TypeAlias = tuple[int, ...]

ShapeRanges: TypeAlias = Mapping[str, tuple[Shape, Shape, Shape]]
"""One optimisation profile: for each input its smallest, usual and largest shape."""


@runtime_checkable
class Ranged(Protocol):
    """What an engine with optimisation profiles has besides being an `Engine`."""

    @property
    def shape_ranges(self) -> Sequence[ShapeRanges]:
        """Its optimisation profiles."""
        ...


def shape_ranges(engine: Engine) -> Sequence[ShapeRanges] | None:
    """An engine's optimisation profiles; None if it takes whatever fits its graph."""
    return engine.shape_ranges if isinstance(engine, Ranged) else None
