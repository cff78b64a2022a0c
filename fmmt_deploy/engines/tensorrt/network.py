"""A parsed TensorRT network against the ONNX graph it came from: nothing is left between what was asked and built."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import Product
from fmmt_deploy.errors import BundleError, PrecisionError

__all__ = ["NetworkFacts", "TensorFacts", "check_network", "facts_of_network", "onnx_nodes"]

_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM")
_PRECISIONS: Mapping[str, Precision] = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "INT8 to FLOAT": "int8-fp32",
    "INT8 to HALF": "int8",
    "FP8 to FLOAT": "fp8",
    "FP8 to HALF": "fp8",
}
"""By the types of operands; of those that are dequantised, from and to what."""
_TYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}
"""ONNX's types as TensorRT names them."""

_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output: its name, TensorRT's name of its type, its axes (-1 where they vary)."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a parsed network has.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        layers: How many layers there are of each kind, by TensorRT's name of it.
        products: For each ONNX node that became a matrix product, its types: one, unless something is wrong;
            `INT8 to HALF` where operands are dequantised.
    """

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    layers: Mapping[str, int]
    products: Mapping[str, frozenset[str]]

    @property
    def casts(self) -> int:
        """How many layers convert types."""
        return self.layers.get("CAST", 0)


def facts_of_network(network: Any) -> NetworkFacts:
    """Reads off a parsed network what it has.

    Args:
        network: An `INetworkDefinition`.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    stored = {  # of what is dequantised, by the name of the result
        layer.get_output(0).name: layer.get_input(0).dtype.name for layer in layers if layer.type.name == "DEQUANTIZE"
    }
    products: dict[str, frozenset[str]] = {}
    for layer in layers:
        if layer.type.name in _PRODUCTS:
            operands = [layer.get_input(i) for i in range(2)]
            types = frozenset(_operand_type(operand, stored) for operand in operands if operand is not None)
            for node in onnx_nodes(layer.metadata) or (layer.name,):
                products[node] = products.get(node, frozenset()) | types
    return NetworkFacts(
        tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs)),
        dict(Counter(layer.type.name for layer in layers).most_common()),
        products,
    )


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """The ONNX nodes that a layer's metadata names, each once."""
    return tuple(dict.fromkeys(_NODE.findall(metadata)))


def check_network(path: Path, facts: NetworkFacts, products: Iterable[Product]) -> None:
    """Holds a parsed network against its ONNX file.

    Args:
        path: The ONNX file.
        facts: What the network has.
        products: The graph's matrix products.

    Raises:
        BundleError: An input or output has another name, type or shape.
        PrecisionError: A matrix product is missing, was added, or is of another type than the graph says.
    """
    graph = onnx.load(path, load_external_data=False).graph
    for what, wanted, found in (("input", graph.input, facts.inputs), ("output", graph.output, facts.outputs)):
        _check_tensors(path, what, tuple(map(_declared, wanted)), found)
    asked = {product.node: product for product in products}
    for node in facts.products.keys() ^ asked.keys():
        what = "lost the matrix product" if node in asked else "has a matrix product that the graph has not,"
        raise PrecisionError(
            f"TensorRT's network of {path.name} {what} {node}.",
            why="So the share of each precision can't be told.",
            fix="Build with another version of TensorRT, or export the bundle again.",
            path=path,
            tensor=node,
        )
    for node, product in asked.items():
        if {_PRECISIONS.get(name) for name in facts.products[node]} != {product.precision}:
            raise PrecisionError(
                f"{node} of {path.name} is asked for in {product.precision}, TensorRT's network has it in "
                f"{' and '.join(sorted(facts.products[node]))}.",
                fix="Build with another version of TensorRT, or make the graph of that precision again.",
                path=path,
                tensor=node,
            )


def _check_tensors(path: Path, what: str, wanted: tuple[TensorFacts, ...], found: tuple[TensorFacts, ...]) -> None:
    by_name = {tensor.name: tensor for tensor in found}
    if by_name.keys() != {tensor.name for tensor in wanted}:
        raise BundleError(
            f"{path.name} has {what}s {', '.join(t.name for t in wanted)}, TensorRT's network {', '.join(by_name)}.",
            fix="Build with another version of TensorRT, or export the bundle again.",
            path=path,
        )
    for tensor in wanted:
        other = by_name[tensor.name]
        same_shape = len(other.shape) == len(tensor.shape) and all(
            theirs in (ours, -1) for ours, theirs in zip(tensor.shape, other.shape, strict=True)
        )
        if other.type != tensor.type or not same_shape:
            raise BundleError(
                f"{path.name} has the {what} {tensor.name} as {tensor.type} {tensor.shape}, TensorRT's network as "
                f"{other.type} {other.shape}.",
                fix="Build with another version of TensorRT, or export the bundle again.",
                path=path,
                tensor=tensor.name,
            )


def _operand_type(tensor: Any, stored: Mapping[str, str]) -> str:
    kind: str = tensor.dtype.name
    return f"{stored[tensor.name]} to {kind}" if tensor.name in stored else kind


def _tensor(tensor: Any) -> TensorFacts:
    return TensorFacts(tensor.name, tensor.dtype.name, tuple(tensor.shape))


def _declared(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(-1 if axis.dim_param else axis.dim_value for axis in kind.shape.dim)
    return TensorFacts(value.name, _TYPES.get(kind.elem_type, str(kind.elem_type)), shape)
