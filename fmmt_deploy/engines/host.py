"""What the engines that compute on the host share: outputs are there when `start` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmmt_deploy.engines.protocol import Array, Tensor, Value

__all__ = ["HostTensor", "arrays_from_values", "started_on_host"]


@dataclass(frozen=True, slots=True)
class HostTensor:
    """An array that is there."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        return self.array.dtype

    def numpy(self) -> Array:
        """The array itself."""
        return self.array


def arrays_from_values(values: Mapping[str, Value]) -> dict[str, Array]:
    """Every value as an array; waits for those that are on their way."""
    return {name: value if isinstance(value, np.ndarray) else value.numpy() for name, value in values.items()}


def started_on_host(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], inputs: Mapping[str, Value], rows: int | None
) -> dict[str, Tensor]:
    """`Engine.start` for an engine that only has `run`."""
    arrays = arrays_from_values(inputs)
    total = max(map(len, arrays.values()), default=0)
    if rows is None or total <= rows:
        outputs = run(arrays)
    else:
        parts = [run({n: a[i : i + rows] for n, a in arrays.items()}) for i in range(0, total, rows)]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: HostTensor(array) for name, array in outputs.items()}
