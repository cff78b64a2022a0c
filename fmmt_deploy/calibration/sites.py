"""Which products get operands of 8 bits: those of weights, but for the first and the last ones, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from fmmt_deploy.calibration.decisions import ASKED, HEADS, GraphView
from fmmt_deploy.errors import UsageError

__all__ = ["Site", "kept_out", "linears_of", "sites_of"]

_FIRST = ("audio_linear.weight", "vision_linear.weight", "modality_linear.weight")
"""They read features as they come, in no range known."""


@dataclass(frozen=True, slots=True)
class Site:
    """A product that can have operands of 8 bits: input (rows, K) times weight (K, N).

    Attributes:
        node: The Gemm's name.
        input: The tensor of the float32 graph that it reads.
        weight: Its weights' name, (N, K) there.
        bias: Its bias's name, (N,).
        rows: K.
        columns: N.
        output: The tensor that it makes.
    """

    node: str
    input: str
    weight: str
    bias: str | None
    rows: int
    columns: int
    output: str


def sites_of(view: GraphView, keep: Sequence[str] = ()) -> tuple[Site, ...]:
    """All of a float32 graph, in its order.

    Args:
        view: The graph.
        keep: Patterns of the names of products that are kept out, as in a shell.

    Raises:
        UsageError: A pattern fits none.
    """
    products = linears_of(view)
    for pattern in keep:
        if not any(fnmatchcase(node.name, pattern) for node in products):
            raise UsageError(
                f"{pattern!r} fits no product that could have 8 bits.",
                why=f"They are called, for example, {products[0].name!r}." if products else "There is none.",
                fix="`fmmt calibrate --dry-run --json` lists all of them.",
            )
    return tuple(_site(node, view) for node in products if not kept_out(node, keep))


def kept_out(node: onnx.NodeProto, keep: Sequence[str] = ()) -> str:
    """Why a product of weights is kept out of 8 bits; empty if it is not."""
    scope, weight = node.name.split("/")[0], node.input[1].split("[")[0]
    if any(fnmatchcase(node.name, pattern) for pattern in keep):
        return ASKED
    if scope.endswith("patch_embed") or weight in _FIRST:
        return "first: pixels and features as they come"
    if weight in HEADS or weight.startswith("output_layer"):
        return "a head: logits, and what they are made of"
    if weight == "text_linear.weight":  # 0.3 % of the work at full size, and 20 dB more noise than any other product
        return "last: its answer is the graph's"
    if scope == "attention":
        return "scores of pooling"
    return ""


def linears_of(view: GraphView) -> tuple[onnx.NodeProto, ...]:
    """A float32 graph's products of weights."""
    return tuple(node for node in view.nodes if _is_linear(node, view))


def _is_linear(node: onnx.NodeProto, view: GraphView) -> bool:
    attributes = {a.name: a.i for a in node.attribute}
    return node.op_type == "Gemm" and node.input[1] in view.constants and attributes == {"transB": 1}


def _site(node: onnx.NodeProto, view: GraphView) -> Site:
    columns, rows = view.constants[node.input[1]].dims
    bias = node.input[2] if len(node.input) > 2 else None
    return Site(node.name, node.input[0], node.input[1], bias, rows, columns, node.output[0])
