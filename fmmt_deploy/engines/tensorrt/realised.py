"""What became of a graph in an engine: the type of each matrix product, fused attention, casts.

Told from an engine's own layers. Those come from the builder's log (see `layers`), or from the engine inspector's JSON,
which needs a GPU and of which there are two forms: in TensorRT 10 a tensor has `Format/Datatype`, a sentence such as
`Row major linear FP16 format` or a word such as `Half`; in TensorRT 11 and TensorRT-RTX it has `Datatype` beside
`Format` (`DataType` in NVIDIA's migration guide), layers have `Constants`, and `Bindings` became `I/O Tensors`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.bundle.products import Product
from fmmt_deploy.engines.tensorrt.flavour import logger
from fmmt_deploy.engines.tensorrt.layers import EngineLayer
from fmmt_deploy.engines.tensorrt.network import onnx_nodes
from fmmt_deploy.errors import BundleError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text

__all__ = ["Realised", "Surprise", "inspected", "layers_from_inspector", "realised_from_layers"]

_WORDS: tuple[tuple[str, Precision], ...] = (
    (r"bf16|bfloat16", "bf16"),
    (r"fp16|half", "fp16"),
    (r"fp8|float8|e4m3", "fp8"),
    (r"fp32|float", "fp32"),
    (r"\bint8", "int8"),
)
"""In this order: `BFloat16` has a `Float` in it. Nor is `UInt8`, as pictures are, an `Int8`."""

_OPERANDS: Mapping[Precision, Precision] = {"int8-fp32": "int8"}
"""What goes into a product of a precision, where that is called otherwise: what is around it is not told apart."""

_REFORMAT = re.compile(r"reformat", re.IGNORECASE)
_CAST = re.compile(r"__myl_\w*Cas")


@dataclass(frozen=True, slots=True)
class Surprise:
    """A matrix product of the graph that is of another type in the engine.

    Attributes:
        node: Its node.
        asked: The graph's type.
        found: The types of what goes into its layer.
    """

    node: str
    asked: Precision
    found: tuple[Precision, ...]


@dataclass(frozen=True, slots=True)
class Realised:
    """What became of a graph in an engine.

    Attributes:
        flops_share: The share of the FLOPs of matrix products in each type; products no layer tells of are in none.
        unseen_share: The share of FLOPs in those.
        surprises: Products of another type than the graph has them in.
        layer_share: The share of the layers that compute something in each type of their outputs.
        layers: How many layers there are of each kind.
        attention_products: Products of two activations, as attention has them.
        fused_products: How many of those are in a fused attention.
        casts: Layers that do nothing but change types.
        reformats: Layers that do nothing but change layouts.
    """

    flops_share: Mapping[Precision, float]
    unseen_share: float
    surprises: tuple[Surprise, ...]
    layer_share: Mapping[Precision, float]
    layers: Mapping[str, int]
    attention_products: int
    fused_products: int
    casts: int
    reformats: int


def inspected(trt: Any, plan: memoryview) -> str:
    """What an engine inspector says of a plan, as JSON; needs a GPU.

    Args:
        trt: The module that `import_flavour` gave.
        plan: The plan that was just built.

    Raises:
        BundleError: TensorRT can't load its own plan here.
    """
    engine = trt.Runtime(logger(trt)).deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleError("TensorRT can't load the engine it built.", fix="Look at its messages with --debug.")
    text: str = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return text


def layers_from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Reads the layers that an engine inspector describes.

    Args:
        text: What `EngineInspector.get_engine_information(LayerInformationFormat.JSON)` gave.

    Raises:
        BundleError: It is not of a form known, or the engine was built without detailed layer information.
    """
    try:
        values = json_object_from_text(text)
    except JsonValueError as error:
        raise _unknown_form(str(error)) from error
    layers = values.get("Layers")
    if not isinstance(layers, list):
        raise _unknown_form("it has no list of Layers")
    return tuple(_layer(layer) for layer in layers)


def realised_from_layers(layers: Iterable[EngineLayer], products: Iterable[Product]) -> Realised:
    """Compares an engine's layers with the products of its graph.

    A product's type is the graph's where that is among the types that go into its layer (a fused layer takes others
    beside, such as a residual), and a surprise otherwise. Of a quantised product it is the type of its operands: one
    whose layer takes half precision only was dequantised before.

    Args:
        layers: The engine's.
        products: The graph's, with their work.
    """
    layers, products = tuple(layers), tuple(products)
    total = sum(product.flops for product in products) or 1
    types = {product: _found(product, layers) for product in products}
    flops = Counter[Precision]()
    for product, found in types.items():
        if found:
            flops[product.precision if _operand(product) in found else found[0]] += product.flops
    computing = [layer for layer in layers if layer.computes and layer.outputs]
    outputs = Counter(layer.outputs[0] for layer in computing)
    fused = {node for layer in layers if layer.is_attention for node in layer.nodes}
    inner = [product.node for product in products if product.operator == "MatMul"]
    return Realised(
        flops_share={precision: flops[precision] / total for precision in PRECISIONS if flops[precision]},
        unseen_share=sum(product.flops for product, found in types.items() if not found) / total,
        surprises=tuple(
            Surprise(product.node, product.precision, found)
            for product, found in types.items()
            if found and _operand(product) not in found
        ),
        layer_share={p: outputs[p] / len(computing) for p in PRECISIONS if outputs[p]},
        layers=dict(Counter(layer.kind for layer in layers).most_common()),
        attention_products=len(inner),
        fused_products=sum(node in fused for node in inner),
        casts=sum(layer.only_casts or layer.kind.lower() == "cast" for layer in layers),
        reformats=sum(_REFORMAT.search(layer.kind) is not None for layer in layers),
    )


def _operand(product: Product) -> Precision:
    return _OPERANDS.get(product.precision, product.precision)


def _found(product: Product, layers: Iterable[EngineLayer]) -> tuple[Precision, ...]:
    """The types that go into the layer that computes a product; none if no layer tells.

    A node may be in several layers, its scaling in one and its reshape in another: then the first that multiplies, by
    its kind or name, is meant. A generated layer that also casts may do so before it multiplies, and does not tell.
    """
    having = [layer for layer in layers if product.node in layer.nodes]
    multiplying = [layer for layer in having if layer.multiplies]
    layer = next(iter(multiplying or (having if len(having) == 1 else [])), None)
    if layer is None or (_operand(product) not in layer.inputs and _CAST.search(layer.name)):
        return ()
    return tuple(dict.fromkeys(layer.inputs))


def _layer(value: object) -> EngineLayer:
    if isinstance(value, str):
        raise BundleError(
            "The engine was built without detailed layer information.",
            why="It has the names of its layers only.",
            fix="Build it again with `fmmt build --force`.",
        )
    if not isinstance(value, dict) or not isinstance(value.get("Name"), str):
        raise _unknown_form("a layer has no Name")
    return EngineLayer(
        value["Name"],
        str(value.get("LayerType", "")),
        _types(value.get("Inputs")),
        _types(value.get("Outputs")),
        onnx_nodes(str(value.get("Metadata", ""))),
    )


def _types(tensors: object) -> tuple[Precision, ...]:
    if not isinstance(tensors, list):
        raise _unknown_form("a layer has no Inputs or Outputs")
    found = []
    for tensor in tensors:
        by_name = {str(name).lower(): value for name, value in tensor.items()} if isinstance(tensor, dict) else {}
        text = by_name.get("datatype", by_name.get("format/datatype"))
        if not isinstance(text, str):
            raise _unknown_form("a tensor has no type")
        found += [precision for pattern, precision in _WORDS if re.search(pattern, text, re.IGNORECASE)][:1]
    return tuple(found)


def _unknown_form(why: str) -> BundleError:
    return BundleError(
        "The engine's layer information is of no form known.",
        why=why,
        fix="What was realised can't be told; TensorRT 10.12 to 11 and TensorRT-RTX 1.7 are known.",
    )
