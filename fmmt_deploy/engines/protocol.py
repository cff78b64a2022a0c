"""What an engine is: one graph, compiled or not, that maps named arrays to named arrays.

Engines compute on the host or on a device. `run` hides the difference: arrays in, arrays out. `start` is for those who
hand one engine's outputs to the next: it returns at once where the engine can, and what it returns stays where it was
computed until somebody asks for its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.bundle.precisions import Precisions, float32
from fmmt_deploy.types import GraphName

__all__ = ["ENGINE_KINDS", "HOST_FACE_BATCH", "Array", "Engine", "EngineKind", "Engines", "Tensor", "Value"]

Array = NDArray[Any]
EngineKind = Literal[
    "ort",
    "torch",
    "emulated",
    "ort-cuda",
    "ort-trt",
    "ort-trt-rtx",
    "torch-cuda",
    "torch-compiled",
    "trt",
    "trt-rtx",
]
ENGINE_KINDS: tuple[EngineKind, ...] = get_args(EngineKind)

HOST_FACE_BATCH = 8
"""Faces that go through `swin` together on a CPU: more don't make it faster, and cost memory."""


class Tensor(Protocol):
    """An engine's output, wherever it lies, and perhaps still on its way."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        ...

    def numpy(self) -> Array:
        """Its numbers, on the host; waits for them."""
        ...


Value: TypeAlias = Array | Tensor
"""What an engine takes: an array, or another engine's output."""


class Engine(Protocol):
    """One graph, ready to run. Also a context manager, which frees it."""

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        ...

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs.

        Args:
            inputs: One for each of `self.inputs`, of that type.

        Raises:
            UsageError: An input is missing, unknown, or of another type or rank.
        """
        ...

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Begins to compute all outputs; they stay where they are computed.

        Args:
            inputs: As for `run`. Arrays may be changed as soon as this returns.
            rows: So many rows of the first axis at a time, which then must be equally long in all inputs; default as
                many as there are, or as the engine takes.

        Raises:
            UsageError: See `run`.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds; running it afterwards is an error."""
        ...


class Engines:
    """The engines of a bundle, one a graph, opened together and closed together.

    Args:
        kind: What they are, for messages: an `EngineKind`, or `recorded`.
        engines: One a graph.
        precisions: The precision of each graph; default float32.
        face_batch: Faces that go through `swin` together; None leaves it to the engine.
        token_multiple: Texts are padded to a multiple of so many tokens: more than 1 where every new shape costs.
    """

    def __init__(
        self,
        kind: str,
        engines: Mapping[GraphName, Engine],
        precisions: Precisions | None = None,
        face_batch: int | None = HOST_FACE_BATCH,
        token_multiple: int = 1,
    ) -> None:
        self.kind, self.face_batch, self.token_multiple = kind, face_batch, token_multiple
        self.precisions = precisions or float32(engines)
        self._engines = dict(engines)

    def __getitem__(self, graph: GraphName) -> Engine:
        return self._engines[graph]

    def __contains__(self, graph: object) -> bool:
        return graph in self._engines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for engine in self._engines.values():
            engine.close()
