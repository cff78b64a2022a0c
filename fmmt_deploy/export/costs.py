"""What an utterance costs in a bundle's graphs, to plan machines with: FLOPs of matrix products, bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import matmul_flops, weight_bytes
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.types import GraphName

__all__ = ["GraphCost", "Workload", "costs_of_bundle"]

UNITS: Mapping[GraphName, str] = {
    "swin": "face",
    "plm": "dialogue",
    "fusion": "utterance",
    "unimodal": "utterance",
}
"""What each graph's work grows with: one call's smallest unit."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The traffic to plan for; the defaults are the means of MELD's test set, but for the faces, which are a choice.

    Attributes:
        tokens: Of a dialogue.
        faces: Of an utterance.
        utterances_per_dialogue: A dialogue is encoded once for so many utterances.
    """

    tokens: int = 134
    faces: float = 10.0
    utterances_per_dialogue: float = 9.3

    def units(self, graph: GraphName) -> float:
        """How many of a graph's units one utterance needs."""
        return {"swin": self.faces, "plm": 1 / self.utterances_per_dialogue}.get(graph, 1.0)


@dataclass(frozen=True, slots=True)
class GraphCost:
    """One graph's work.

    Attributes:
        graph: Its name.
        precision: Its precision.
        unit: Of what one unit is: a face, a dialogue, an utterance.
        flops: Of one unit (matrix products, 2 × multiply-adds).
        flops_per_utterance: With a dialogue's share of its encoding.
        input_bytes_per_utterance: What the host moves to it; what other graphs hand over is not counted.
        weight_bytes: Of its weights and constants.
    """

    graph: GraphName
    precision: Precision
    unit: str
    flops: int
    flops_per_utterance: float
    input_bytes_per_utterance: float
    weight_bytes: int


def costs_of_bundle(bundle: Bundle, workload: Workload) -> tuple[GraphCost, ...]:
    """The cost of every graph in every precision.

    Raises:
        BundleError: A graph's shapes can't be inferred.
    """
    return tuple(
        _cost(bundle.graph(graph, precision), graph, precision, workload)
        for graph, files in bundle.manifest.graphs.items()
        for precision in files
    )


def _cost(path: Path, graph: GraphName, precision: Precision, workload: Workload) -> GraphCost:
    dims = {"faces": 1, "dialogues": 1, "utterances": 1, "tokens": workload.tokens}
    units = workload.units(graph)
    flops, inputs = matmul_flops(path, dims), _input_bytes(path, dims)
    return GraphCost(graph, precision, UNITS[graph], flops, flops * units, inputs * units, weight_bytes(path))


HANDED_OVER = ("token_states", "face_logits")
"""Inputs of `fusion` that are the other graphs' outputs."""


def _input_bytes(path: Path, dims: Mapping[str, int]) -> int:
    total = 0
    for value in onnx.load(path, load_external_data=False).graph.input:
        if value.name not in HANDED_OVER:
            kind = value.type.tensor_type
            shape = [dims[axis.dim_param] if axis.dim_param else axis.dim_value for axis in kind.shape.dim]
            total += math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return total
