"""Opens a bundle's graphs for interpretation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engine
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from torch import Tensor

    from fmmt_deploy.engines.emulated.engine import EmulatedEngine, Observe, Program, Step

__all__ = ["engine_from_onnx", "engines_from_bundle"]


def engines_from_bundle(bundle: Bundle, precisions: Precisions, threads: int) -> dict[GraphName, Engine]:
    """Opens every graph of a bundle in the precision asked for; see `engine_from_onnx`."""
    return {
        graph: engine_from_onnx(graph, bundle.graph(graph, precisions[graph]), threads)
        for graph in graphs_of(bundle.manifest.architecture)
    }


def engine_from_onnx(graph: GraphName, path: Path, threads: int, observe: Observe | None = None) -> EmulatedEngine:
    """Opens one graph.

    Args:
        graph: Which graph it is.
        path: Its ONNX file, with its weights beside it.
        threads: Threads within an operator.
        observe: Told every tensor; see `Observe`.

    Raises:
        EnvironmentProblem: PyTorch is not installed.
        BundleError: The graph can't be read, or has an operator or a type that the interpreter does not know.
    """
    try:
        import torch
    except ImportError as error:
        raise EnvironmentProblem(
            "Emulating a graph needs PyTorch, which is not installed.",
            why=str(error),
            fix="pip install 'fmmt-deploy[torch]'.",
        ) from error
    from fmmt_deploy.engines.emulated.engine import EmulatedEngine

    torch.set_num_threads(threads)
    return EmulatedEngine(graph, _program(path), observe)


def _program(path: Path) -> Program:
    from fmmt_deploy.engines.emulated.engine import Program

    try:
        graph = onnx.load(path, load_external_data=False).graph
        constants = {tensor.name: _constant(tensor, path) for tensor in graph.initializer}
    except (OSError, ValueError, KeyError, RuntimeError, DecodeError) as error:
        raise BundleError(
            f"{path} can't be read for emulation.", why=str(error), fix="Export or cast the bundle again.", path=path
        ) from error
    inputs = {v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in graph.input}
    outputs = [value.name for value in graph.output]
    return Program(inputs, outputs, list(_steps(graph, {*constants, *outputs}, path)), constants)


def _steps(graph: onnx.GraphProto, kept: set[str], path: Path) -> Iterable[Step]:
    from fmmt_deploy.engines.emulated.engine import Step
    from fmmt_deploy.engines.emulated.operators import OPERATORS

    last = {name: number for number, node in enumerate(graph.node) for name in (*node.output, *node.input)}
    for number, node in enumerate(graph.node):
        if node.op_type not in OPERATORS or node.domain or len(node.output) != 1:
            raise BundleError(
                f"The emulated engine does not know the operator {node.op_type} of {node.name!r} in {path}.",
                why=f"It knows {', '.join(OPERATORS)}, with one output each.",
                fix="Run this graph with another engine.",
                path=path,
                tensor=node.output[0] if node.output else None,
            )
        attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        names = {*node.input, *node.output} - kept - {""}
        done = tuple(sorted(name for name in names if last[name] == number))
        operator = OPERATORS[node.op_type]
        yield Step(node.name, node.op_type, operator, attributes, tuple(node.input), node.output[0], done)


def _constant(tensor: onnx.TensorProto, path: Path) -> Tensor:
    """In the type it has in the graph; NumPy lacks bfloat16 and E4M3, so the bytes are taken as they are."""
    import torch

    from fmmt_deploy.engines.emulated.operators import STORED

    if tensor.data_type not in STORED:
        raise ValueError(f"{tensor.name} has the type {onnx.TensorProto.DataType.Name(tensor.data_type)}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entry = {item.key: item.value for item in tensor.external_data}
        length, offset = int(entry["length"]), int(entry["offset"])
        data = np.fromfile(path.parent / entry["location"], np.uint8, length, offset=offset)
        if data.size != length:
            raise ValueError(f"{tensor.name} should have {length} bytes in {entry['location']}, found {data.size}")
    else:
        data = np.frombuffer(bytearray(tensor.raw_data or numpy_helper.to_array(tensor).tobytes()), np.uint8)
    return torch.from_numpy(data).view(STORED[tensor.data_type]).reshape(tuple(tensor.dims))
