"""One graph in an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.host import arrays_from_values, started_on_host
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.types import GraphName

__all__ = ["TYPES", "OrtEngine", "failed"]

TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}
"""What ONNX Runtime calls the types of our graphs' inputs and outputs."""


class OrtEngine:
    """An engine on ONNX Runtime, on the CPU.

    Args:
        graph: Which graph it is.
        session: The session, an `onnxruntime.InferenceSession`.
    """

    def __init__(self, graph: GraphName, session: Any) -> None:
        self.graph = graph
        self._session = session
        self._inputs: dict[str, np.dtype[Any]] = {value.name: TYPES[value.type] for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return self._inputs

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`."""
        check_inputs(self.graph, self._inputs, inputs)
        try:
            outputs = self._session.run(self._outputs, arrays_from_values(inputs))
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise failed(self.graph, {name: value.shape for name, value in inputs.items()}, error) from error
        return dict(zip(self._outputs, outputs, strict=True))

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Computes all outputs; see `Engine.start`."""
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def failed(graph: GraphName, shapes: Mapping[str, tuple[int, ...]], error: Exception) -> FmmtError:
    """Our words for a run that ONNX Runtime ended with an error of its own."""
    return FmmtError(f"ONNX Runtime failed in {graph} on {dict(shapes)}.", why=str(error))
