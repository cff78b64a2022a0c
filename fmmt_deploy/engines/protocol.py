"""What an engine is: one graph, compiled or not, that maps named arrays to named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.types import GraphName

__all__ = ["ENGINE_KINDS", "Array", "Engine", "EngineKind", "Engines"]

Array = NDArray[Any]
EngineKind = Literal["ort", "torch"]
ENGINE_KINDS: tuple[EngineKind, ...] = ("ort", "torch")


class Engine(Protocol):
    """One graph, ready to run. Also a context manager, which frees it."""

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Computes all outputs.

        Args:
            inputs: One array for each of `self.inputs`, of that type.

        Raises:
            UsageError: An input is missing, unknown, or of another type or rank.
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
    """

    def __init__(self, kind: str, engines: Mapping[GraphName, Engine]) -> None:
        self.kind = kind
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
