"""The layers of an engine, as TensorRT-RTX lists them in its log when it has built one.

An engine can be inspected only where it can be loaded, on a GPU. But a builder that is asked for detailed information
says what it made, also on a machine without one: every layer, the types of its tensors, and the ONNX nodes in it. So
what was realised is known, and can be refused, before an engine ever meets a GPU. Seen with TensorRT-RTX 1.7.1; a
builder that lists nothing of the kind gives no layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.tensorrt.flavour import LAYERS
from fmmt_deploy.engines.tensorrt.network import onnx_nodes

__all__ = ["EngineLayer", "layers_from_log"]

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId: \d+, Metadata: (?P<metadata>.*)$",
    re.MULTILINE,
)
_DATATYPE = re.compile(r"Datatype: (\w+)")

_PRECISIONS: dict[str, Precision] = {
    "Float": "fp32",
    "FP32": "fp32",
    "Half": "fp16",
    "FP16": "fp16",
    "BFloat16": "bf16",
    "BF16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
}
"""TensorRT's words for the types that are a precision; integers that only count or index are none. Of 8 bits a tensor
is `int8` or `fp8`, whatever is around it."""

_PRODUCT = re.compile(r"gemm|conv|matrix|matmul|mha|fc", re.IGNORECASE)
"""In a layer's kind or name: those generated at run time are called `__myl_FcAddDivErfAddMulMul`, `_gemm_mha_v2`."""

_NOTHING_COMPUTED = {"signal", "wait", "shape_call"}


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer of an engine: often a good many nodes of the graph.

    Attributes:
        name: TensorRT's.
        kind: `gemm`, `kgen`, `runtime_fusion` and others.
        inputs: The precision of each input that has one.
        outputs: The precision of each output that has one.
        nodes: The ONNX nodes that are in it, in part or whole.
    """

    name: str
    kind: str
    inputs: tuple[Precision, ...]
    outputs: tuple[Precision, ...]
    nodes: tuple[str, ...]

    @property
    def computes(self) -> bool:
        """Whether it does any arithmetic on tensors."""
        return self.kind not in _NOTHING_COMPUTED

    @property
    def multiplies(self) -> bool:
        """Whether a matrix product is in it, by its kind or name."""
        return _PRODUCT.search(f"{self.kind} {self.name}") is not None

    @property
    def is_attention(self) -> bool:
        """Whether it is attention in one piece: both products and the softmax between them."""
        return "mha" in self.name

    @property
    def only_casts(self) -> bool:
        """Whether it does nothing but change types or layouts."""
        return re.fullmatch(r"__myl_((Cast|Resh|Tran|Move)+)_.*", self.name) is not None and "Cast" in self.name


def layers_from_log(messages: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Reads the listing out of everything that a builder logged at its most talkative.

    Args:
        messages: What it logged, in order.

    Returns:
        The layers of the engine, in the order they run; none if the log has no such listing.
    """
    listing = next((text for text in messages if text.startswith(LAYERS)), "")
    return tuple(
        EngineLayer(
            found["name"],
            found["kind"],
            _precisions(found["inputs"]),
            _precisions(found["outputs"]),
            onnx_nodes(found["metadata"]),
        )
        for found in _LAYER.finditer(listing)
    )


def _precisions(tensors: str) -> tuple[Precision, ...]:
    return tuple(_PRECISIONS[name] for name in _DATATYPE.findall(tensors) if name in _PRECISIONS)
