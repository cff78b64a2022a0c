"""Small graphs with quantised products, made by hand, in the form that calibration gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.draft import draft_from_onnx, write_draft
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.engines.tensorrt.profiles import Profile, Range
from fmmt_deploy.types import GraphName

__all__ = [
    "PROFILE",
    "block",
    "calibrated_bundle",
    "calibrated_file",
    "products_in",
    "quantised_file",
    "quantised_model",
]

Around = Literal["fp32", "fp16"]
Operands = Literal["int8", "fp8"]

PROFILE: Profile = {"utterances": Range(1, 4, 8)}
ELEMENT = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}
NUMPY: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16}
STORED = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
LARGEST = {"int8": 127.0, "fp8": 448.0}


def products_in(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The products that have weights, but for patches and heads."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    for node in model.graph.node:
        inner = "patch_embed" not in node.name and "/" in node.name
        if node.op_type == "Gemm" and node.input[1] in weights and inner:
            yield node


def quantised_model(
    model: onnx.ModelProto,
    operands: Operands = "int8",
    products: Sequence[str] | None = None,
    threshold: float = 4.0,
    smooth: bool = False,
) -> onnx.ModelProto:
    """Quantises products of a graph; scales of inputs are all the same, those of weights are by their largest values.

    Args:
        model: A graph in which they read what is around them, with its weights.
        operands: Their type.
        products: Names of nodes; default `products_in`.
        threshold: Where inputs saturate.
        smooth: Whether inputs are multiplied by a constant first, as SmoothQuant has it.
    """
    chosen = set(products) if products is not None else {node.name for node in products_in(model)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input)}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in model.graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        x, weight = node.input[:2]
        around = helper.tensor_dtype_to_np_dtype(kinds[x])
        stored = numpy_helper.to_array(constants[weight]).astype(np.float32)
        right = stored.T if any(a.name == "transB" and a.i for a in node.attribute) else stored
        factors = np.exp2(np.arange(len(right)) % 3 - 1).astype(np.float32) if smooth else np.ones(len(right))
        if x not in done:
            done.add(x)
            constants |= _input_constants(x, threshold, factors if smooth else None, operands, around)
            read = f"{x}/smooth" if smooth else x
            if smooth:
                nodes.append(helper.make_node("Mul", [x, f"{x}/by"], [read], name=read))
            ends = [f"{x}/scale", f"{x}/zero"]
            nodes.append(helper.make_node("QuantizeLinear", [read, *ends], [f"{x}/quantize"], name=f"{x}/quantize"))
        constants |= _weight_constants(node.name, right / factors[:, None], operands, around)
        left, other = f"{node.name}/input", f"{node.name}/weight"
        nodes += [
            helper.make_node("DequantizeLinear", [f"{x}/quantize", f"{x}/scale", f"{x}/zero"], [left], name=left),
            _dequantised(other, axis=1 if operands == "int8" else None),
            helper.make_node("Gemm", [left, other, *node.input[2:]], list(node.output), name=node.name),
        ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        model.graph.input,
        model.graph.output,
        [tensor for name, tensor in constants.items() if name in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def quantised_file(source: Path, target: Path, operands: Operands = "int8", **how: Any) -> Path:
    """Quantises a graph's file; the weights go beside the new one, as ours do."""
    model = quantised_model(onnx.load(source), operands, **how)
    weights = f"{target.stem}.safetensors"
    onnx.save(model, target, save_as_external_data=True, location=weights, size_threshold=256)
    return target


def block(around: Around = "fp32", columns: int = 64, hidden: int = 128, seed: int = 0) -> onnx.ModelProto:
    """From `vision` (utterances, 1, columns) to `y`, both float32: two products of one tensor, a third of their sum.

    Args:
        around: The type of all that is between; nothing is quantised yet.
        columns: Of the input.
        hidden: Columns between.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    kind: Any = NUMPY[around]

    def weight(*shape: int) -> NDArray[Any]:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), kind)

    values = {
        "shape": np.array([-1, columns]),
        "q.weight": weight(hidden, columns),
        "q.bias": weight(hidden),
        "k.weight": weight(hidden, columns),
        "k.bias": weight(hidden),
        "o.weight": weight(columns, hidden),
        "o.bias": weight(columns),
    }
    nodes = [
        helper.make_node("Reshape", ["vision", "shape"], ["rows"], name="rows"),
        helper.make_node("Cast", ["rows"], ["x"], name="down", to=ELEMENT[around]),
        helper.make_node("Gemm", ["x", "q.weight", "q.bias"], ["a"], name="block/q", transB=1),
        helper.make_node("Gemm", ["x", "k.weight", "k.bias"], ["b"], name="block/k", transB=1),
        helper.make_node("Gelu", ["b"], ["g"], name="gelu"),
        helper.make_node("Add", ["a", "g"], ["sum"], name="sum"),
        helper.make_node("Gemm", ["sum", "o.weight", "o.bias"], ["z"], name="block/o", transB=1),
        helper.make_node("Cast", ["z"], ["y"], name="up", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("vision", TensorProto.FLOAT, ["utterances", 1, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["utterances", columns])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def _dequantised(weight: str, axis: int | None) -> onnx.NodeProto:
    ends = [f"{weight}/quantized", f"{weight}/scale", f"{weight}/zero"]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", ends, [weight], name=weight, **attributes)


def _input_constants(
    x: str, threshold: float, factors: NDArray[Any] | None, operands: Operands, around: np.dtype[Any]
) -> dict[str, onnx.TensorProto]:
    made = [
        numpy_helper.from_array(np.asarray(threshold / LARGEST[operands], np.float16).astype(around), f"{x}/scale"),
        helper.make_tensor(f"{x}/zero", STORED[operands], (), b"\0", raw=True),
    ]
    if factors is not None:
        made.append(numpy_helper.from_array(factors.astype(around), f"{x}/by"))
    return {tensor.name: tensor for tensor in made}


def _weight_constants(
    node: str, right: NDArray[Any], operands: Operands, around: np.dtype[Any]
) -> dict[str, onnx.TensorProto]:
    """(K, N), with a scale a column, or for E4M3 one scale."""
    largest = np.abs(right).max(axis=0 if operands == "int8" else None)
    scale = np.asarray(largest / LARGEST[operands] * 1.001, np.float16)
    quotient = right / scale.astype(np.float32)
    if operands == "int8":
        stored: NDArray[Any] = np.rint(quotient).clip(-127, 127).astype(np.int8)
    else:
        stored = quotient.clip(-448, 448).astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
    name = f"{node}/weight"
    made = [
        helper.make_tensor(f"{name}/quantized", STORED[operands], stored.shape, stored.tobytes(), raw=True),
        numpy_helper.from_array(scale.astype(around), f"{name}/scale"),
        helper.make_tensor(f"{name}/zero", STORED[operands], scale.shape, bytes(scale.size), raw=True),
    ]
    return {tensor.name: tensor for tensor in made}


def calibrated_file(graph: GraphName, source: Path, target: Path, precision: Precision, threshold: float = 8.0) -> Path:
    """Makes a graph as `fmmt calibrate` would, from one of ours in float32, with the same threshold for every input."""
    sites = sites_of(GraphView(draft_from_onnx(graph, source).model))
    scales = {site.input: InputScale(site.input, threshold) for site in sites}
    write_draft(draft_in(graph, source, precision, calibration=Calibration(graph, scales)), target)
    return target


def calibrated_bundle(bundle: Bundle, out: Path, precisions: Precisions, threshold: float = 8.0) -> Bundle:
    """A bundle that has graphs in other precisions, too; see `calibrated_file`."""
    graphs = {graph: dict(files) for graph, files in bundle.manifest.graphs.items()}
    with extend_bundle(bundle, out) as writer:
        for graph, precision in precisions.items():
            relative = f"graphs/{precision}/{graph}.onnx"
            writer.place(str(Path(relative).with_suffix(".safetensors")))
            calibrated_file(graph, bundle.graph(graph), writer.place(relative), precision, threshold)
            graphs[graph][precision] = relative
        return writer.commit(replace(bundle.manifest, graphs=graphs))
