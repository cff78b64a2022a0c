"""The work of a graph, counted from the graph itself: its matrix products by precision, and bytes of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.errors import BundleError

__all__ = [
    "TYPICAL",
    "Product",
    "constant_bytes",
    "flops_by_precision",
    "flops_share",
    "matmul_flops",
    "products_of",
    "read_bytes",
    "weight_bytes",
]

TYPICAL = {"dialogues": 1, "tokens": 134, "utterances": 1, "faces": 10}
"""One utterance of MELD's test set: its dialogue has 134 tokens on average; ten faces is a choice."""

_OPERATORS = ("MatMul", "Gemm", "Conv")
_PRECISIONS: Mapping[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
_QUANTISED: Mapping[tuple[int, int], Precision] = {
    (TensorProto.INT8, TensorProto.FLOAT): "int8-fp32",
    (TensorProto.INT8, TensorProto.FLOAT16): "int8",
    (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT): "fp8",
    (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT16): "fp8",
}
"""By the type that both operands are dequantised from, and the one that they are dequantised to."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product.

    Attributes:
        node: Its node's name.
        operator: `Gemm`, `MatMul` or `Conv`.
        precision: The type of what is multiplied; of operands that are dequantised, with the type around it.
        flops: 2 × multiply-adds, at the sizes that were asked about.
    """

    node: str
    operator: str
    precision: Precision
    flops: int


def products_of(graph: Path | onnx.ModelProto, dims: Mapping[str, int] = TYPICAL) -> tuple[Product, ...]:
    """Every matrix product of a graph, by shape and type inference.

    Args:
        graph: Its file, or the graph; weights are not read.
        dims: A number for each named dimension of its inputs.

    Raises:
        BundleError: It is not an ONNX file; or the shape or type of a product can't be inferred, or is of two types,
            or of another mixture of quantised ones than our precisions are.
    """
    model = onnx.ModelProto()
    model.CopyFrom(_loaded(graph) if isinstance(graph, Path) else graph)
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in dims:
                axis.dim_value = dims[axis.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    kinds = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        kinds[value.name] = value.type.tensor_type.elem_type
    stored = {n.output[0]: kinds.get(n.input[0], 0) for n in inferred.node if n.op_type == "DequantizeLinear"}
    nodes = [node for node in inferred.node if node.op_type in _OPERATORS]
    return tuple(Product(n.name, n.op_type, _precision(n, kinds, stored), _flops(n, shapes)) for n in nodes)


def flops_by_precision(products: Iterable[Product]) -> dict[Precision, int]:
    """The FLOPs in each precision, the most first."""
    found: dict[Precision, int] = {}
    for product in products:
        found[product.precision] = found.get(product.precision, 0) + product.flops
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def flops_share(products: Iterable[Product]) -> dict[Precision, float]:
    """The share of the FLOPs in each precision, from 0 to 1, the largest first."""
    flops = flops_by_precision(products)
    total = sum(flops.values()) or 1
    return {precision: count / total for precision, count in flops.items()}


def matmul_flops(path: Path, dims: Mapping[str, int]) -> int:
    """FLOPs of all matrix products of a graph; see `products_of`."""
    return sum(product.flops for product in products_of(path, dims))


def weight_bytes(path: Path) -> int:
    """Bytes of the constants and weights of a graph's file; see `constant_bytes`."""
    return constant_bytes(_loaded(path))


def read_bytes(path: Path) -> int:
    """Bytes of the constants and weights that every call reads: those of tables, of which it takes rows, are left out.

    Only a few rows of an embedding are read for a text, and all of its bytes would hide what the rest costs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(_loaded(path))
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in tables]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return constant_bytes(model)


def constant_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a graph's constants and weights in their types; each is counted once, however often it is used."""
    return sum(
        helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * math.prod(tensor.dims)
        for tensor in model.graph.initializer
    )


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise BundleError(
            f"{path} is not an ONNX graph.", why=str(error), fix="Export the bundle again.", path=path
        ) from error


def _precision(node: onnx.NodeProto, kinds: Mapping[str, int], stored: Mapping[str, int]) -> Precision:
    """A product's precision.

    Args:
        node: It.
        kinds: The type of every tensor.
        stored: For each tensor that is dequantised, the type it is dequantised from.
    """
    found = {kinds.get(name, TensorProto.UNDEFINED) for name in node.input if name}
    if len(found) != 1:
        raise _untold(node, f"it should multiply numbers of one floating-point type, found {_names(found)}")
    (around,) = found
    operands = [stored.get(name) for name in node.input[:2]]
    if operands == [None, None]:
        if around not in _PRECISIONS:
            raise _untold(node, f"it should multiply numbers of one floating-point type, found {_names(found)}")
        return _PRECISIONS[around]
    left, right = (around if kind is None else kind for kind in operands)
    if left != right or (left, around) not in _QUANTISED:
        raise _untold(
            node,
            "both of its operands should be dequantised from INT8 or FLOAT8E4M3FN, to FLOAT or FLOAT16, found "
            f"{_names([left])} · {_names([right])} in {_names(found)}",
        )
    return _QUANTISED[left, around]


def _names(kinds: Iterable[int]) -> str:
    return ", ".join(sorted(TensorProto.DataType.Name(kind) for kind in kinds))


def _flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    left, right, out = (shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0]))
    if not out or not all((*left, *right, *out)):
        raise _untold(node, f"a shape is unknown: {left} · {right} = {out}")
    if node.op_type == "Conv":  # weights (M, C/groups, kernel…): each output value is C/groups × kernel multiply-adds
        depth = math.prod(right[1:])
    else:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        depth = left[0 if transposed else -1]
    return 2 * math.prod(out) * depth


def _untold(node: onnx.NodeProto, why: str) -> BundleError:
    return BundleError(
        f"The work of {node.name} can't be told: {why}.",
        fix="Export the bundle again with this version.",
        tensor=node.output[0],
    )
