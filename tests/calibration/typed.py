"""Typed graphs of the small models, made once a session; and reading them without the pass's own code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import onnx
from onnx import TensorProto

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.cast import typed_files
from fmmt_deploy.calibration.draft import write_draft
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.types import GraphName

LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16")
GRAPHS_OF_MODELS: list[tuple[str, GraphName]] = [
    *((model, graph) for model in ("roberta", "bert") for graph in ("swin", "plm", "fusion")),
    ("unimodal", "unimodal"),
]
Kinds: TypeAlias = dict[str, int]


def write_typed(bundle: Bundle, graph: GraphName, precision: Precision, folder: Path, *keep: str) -> Path:
    """Runs the pass on one graph, outside of any bundle."""
    draft = draft_in(graph, bundle.graph(graph), precision, keep)
    relative, _ = typed_files(graph, precision)
    (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    write_draft(draft, folder / relative)
    return folder / relative


class TypedFiles:
    """Gives the file of a typed graph of a small model."""

    def __init__(self, bundles: object, folder: Path) -> None:
        @cache
        def file(model: str, graph: GraphName, precision: Precision) -> Path:
            return write_typed(bundles(model), graph, precision, folder / model)  # type: ignore[operator]

        self._file = file

    def __call__(self, model: str, graph: GraphName, precision: Precision) -> Path:
        return self._file(model, graph, precision)


def inferred_kinds(path: Path) -> tuple[onnx.GraphProto, Kinds]:
    """The graph, and the element type of every tensor by ONNX's own inference."""
    model = onnx.load(path, load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return graph, kinds | {t.name: t.data_type for t in graph.initializer}


def makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Who makes each tensor."""
    return {name: node for node in graph.node for name in node.output}


def constants_of(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of its weights and constants."""
    return (tensor.name for tensor in graph.initializer)
