"""A graph that is being rewritten: passes map drafts to drafts, and its weights are read only when it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.calibration.decisions import Decision
from fmmt_deploy.calibration.formats import FORMATS, Around
from fmmt_deploy.calibration.weights import Weight, external_weight, placed_weights, write_weights
from fmmt_deploy.types import GraphName

__all__ = ["Draft", "draft_from_onnx", "write_draft"]


@dataclass(frozen=True)
class Draft:
    """A graph before it is written.

    Attributes:
        graph: Its name.
        precision: What its products are computed in.
        model: It; constants that are among `weights` have no data.
        weights: Its large constants by name.
        decisions: What became of each node but casts; empty as long as the graph is float32.
        held: For each floating-point tensor that is computed or given, the types it is held in; likewise.
    """

    graph: GraphName
    precision: Precision
    model: onnx.ModelProto
    weights: Mapping[str, Weight]
    decisions: tuple[Decision, ...] = ()
    held: Mapping[str, frozenset[Precision]] | None = None

    @property
    def around(self) -> Around:
        """The type around the products."""
        return FORMATS[self.precision].around

    @property
    def casts(self) -> int:
        """How many casts between types were added."""
        return len(self.model.graph.node) - len(self.decisions)

    @property
    def size_bytes(self) -> int:
        """About how large its files will be."""
        return int(self.model.ByteSize()) + sum(weight.size_bytes for weight in self.weights.values())


def draft_from_onnx(graph: GraphName, path: Path) -> Draft:
    """A float32 graph; no weight is read.

    Args:
        graph: The graph's name.
        path: Its ONNX file, with its weights beside it.
    """
    model = onnx.load(path, load_external_data=False)
    external = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    return Draft(graph, "fp32", model, {tensor.name: external_weight(tensor, path.parent) for tensor in external})


def write_draft(draft: Draft, file: Path) -> None:
    """Writes the graph, and its weights beside it as `.safetensors`.

    Raises:
        PrecisionError: A weight overflows its type.
        OSError: A file can't be written.
    """
    beside = file.with_suffix(".safetensors")
    write_weights(draft.weights.values(), beside)
    offsets = placed_weights(draft.weights.values())[1]
    model = onnx.ModelProto()
    model.CopyFrom(draft.model)
    for tensor in model.graph.initializer:
        if tensor.name in offsets:
            del tensor.external_data[:]
            places = (("location", beside.name), ("offset", offsets[tensor.name]))
            for key, value in (*places, ("length", draft.weights[tensor.name].size_bytes)):
                tensor.external_data.add(key=key, value=str(value))
    onnx.save(model, file)
