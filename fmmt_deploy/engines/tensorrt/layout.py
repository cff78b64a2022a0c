"""Where several tensors lie in one block of memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.engines.tensorrt.device import aligned

__all__ = ["Layout", "Place", "layout_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor: its name, its bytes from `offset` on, how to read them."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    size_bytes: int

    def view(self, memory: Array) -> Array:
        """The tensor, as a view of the block's bytes."""
        array: Array = memory[self.offset : self.offset + self.size_bytes].view(self.dtype).reshape(self.shape)
        return array


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Tensors one after the other, each aligned. Two layouts are the same only if they are one object."""

    places: tuple[Place, ...]
    size_bytes: int


def layout_of(tensors: Iterable[tuple[str, tuple[int, ...], np.dtype[Any]]]) -> Layout:
    """Lays out tensors of the given name, shape and type, in this order."""
    places: list[Place] = []
    end = 0
    for name, shape, dtype in tensors:
        size_bytes = prod(shape) * dtype.itemsize
        places.append(Place(name, shape, dtype, end, size_bytes))
        end += aligned(size_bytes)
    return Layout(tuple(places), end)
