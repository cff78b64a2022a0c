"""The matrix products of a graph: their type and their work, as its ONNX file has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.engines.tensorrt.profiles import Profile
from fmmt_deploy.errors import BundleError

__all__ = ["Product", "flops_share", "products_of"]

_OPERATORS = ("MatMul", "Gemm", "Conv")
_PRECISIONS: Mapping[int, Precision] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
}


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product.

    Attributes:
        node: Its node's name.
        operator: `Gemm`, `MatMul` or `Conv`.
        precision: The type of what is multiplied.
        flops: 2 × multiply-adds, at the sizes that were asked about.
    """

    node: str
    operator: str
    precision: Precision
    flops: int


def products_of(path: Path, profile: Profile) -> tuple[Product, ...]:
    """Every matrix product of a graph, by shape inference.

    Args:
        path: The ONNX file; its weights are not read.
        profile: The sizes to tell the work at: the usual ones.

    Raises:
        BundleError: It is not an ONNX file, or a type or shape can't be inferred.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise BundleError(
            f"{path} is not an ONNX graph.", why=str(error), fix="Export the bundle again.", path=path
        ) from error
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in profile:
                axis.dim_value = profile[axis.dim_param].opt
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        types[value.name] = value.type.tensor_type.elem_type
    nodes = [node for node in graph.node if node.op_type in _OPERATORS]
    return tuple(_product(path, node, shapes, types) for node in nodes)


def flops_share(products: Iterable[Product]) -> dict[Precision, float]:
    """The share of the FLOPs in each precision; those without any are left out."""
    products = tuple(products)
    total = sum(product.flops for product in products) or 1
    found = {p: sum(product.flops for product in products if product.precision == p) / total for p in PRECISIONS}
    return {precision: share for precision, share in found.items() if share}


def _product(
    path: Path, node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, int]
) -> Product:
    left, right, out = (shapes.get(name, ()) for name in (node.input[0], node.input[1], node.output[0]))
    precision = _PRECISIONS.get(types.get(node.input[0], 0))
    if precision is None or not out or not all((*left, *right, *out)):
        raise BundleError(
            f"The type or shape of {node.name} in {path} can't be told: {left} · {right} = {out}.",
            fix="Export the bundle again with this version.",
            path=path,
            tensor=node.output[0],
        )
    if node.op_type == "Conv":  # weights (M, C/groups, kernel…): each output value is C/groups × kernel multiply-adds
        depth = math.prod(right[1:])
    else:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        depth = left[0 if transposed else -1]
    return Product(node.name, node.op_type, precision, 2 * math.prod(out) * depth)
