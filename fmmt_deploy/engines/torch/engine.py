"""One part of the PyTorch reference model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.host import arrays_from_values, started_on_host
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["INPUTS", "TorchEngine"]

_FLOAT, _INT, _BYTE = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.uint8)

INPUTS: Mapping[GraphName, Mapping[str, np.dtype[Any]]] = {
    "swin": {"faces": _BYTE},
    "plm": {"input_ids": _INT, "attention_mask": _INT},
    "fusion": {
        "token_states": _FLOAT,
        "text_row": _INT,
        "text_start": _INT,
        "text_length": _INT,
        "audio": _FLOAT,
        "audio_length": _INT,
        "vision": _FLOAT,
        "vision_mask": _FLOAT,
        "face_logits": _FLOAT,
        "face_index": _INT,
        "noise": _FLOAT,
    },
    "unimodal": {"vision": _FLOAT, "vision_mask": _FLOAT},
}
"""The inputs of every graph."""


class TorchEngine:
    """An engine on PyTorch, in float32 on the CPU.

    Args:
        graph: Which part it runs.
        model: The reference model, shared by the engines of its parts.
    """

    def __init__(self, graph: GraphName, model: ReferenceModel) -> None:
        self.graph = graph
        self._model: ReferenceModel | None = model

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return INPUTS[self.graph]

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`."""
        import torch

        if self._model is None:
            raise RuntimeError("the engine is closed")
        check_inputs(self.graph, self.inputs, inputs)
        tensors = {name: torch.tensor(array) for name, array in arrays_from_values(inputs).items()}
        return {name: tensor.numpy() for name, tensor in self._model.run(self.graph, tensors).items()}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Computes all outputs; see `Engine.start`."""
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        """Lets the model go."""
        self._model = None
