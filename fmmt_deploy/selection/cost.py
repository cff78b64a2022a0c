"""How long graphs may take beside each other, where nobody has measured it: FLOPs and bytes, weighted by type.

The unit is one FLOP in float32, so only quotients mean something. It is a rule for the order in which precisions are
tried and for who steps back, never a claim about speed: measured speeds go before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.selection.layers import BYTES, LayeredGraph
from fmmt_deploy.types import GraphName

__all__ = ["FLOPS_A_BYTE", "RATES", "Speeds", "float32_cost", "graph_cost"]

RATES: Mapping[Precision, float] = {"fp32": 1, "fp16": 2, "bf16": 2, "int8": 4, "fp8": 4, "int8-fp32": 2}
"""FLOPs in the time of one in float32. On tensor cores each halving of the type doubles the rate, as NVIDIA's data
sheets have it (against float32 without TF32, float16 gains more). `int8-fp32` is for CPUs: ONNX Runtime was measured at
twice float32 for a full-size Swin on two cores with VNNI, and at three times for a RoBERTa-large."""

FLOPS_A_BYTE = 16
"""Float32 FLOPs in the time of reading a byte of weights: 8 on two CPU cores, 14 on an H200, 100 on an L4."""

Speeds: TypeAlias = Mapping[tuple[GraphName, Precision], float]
"""Of graphs with nothing kept back: how many times as fast as in float32 they were measured."""


def graph_cost(layered: LayeredGraph, kept_share: float = 0.0, speeds: Speeds | None = None) -> float:
    """About how long a graph takes in its precision.

    Args:
        layered: It.
        kept_share: The share of its FLOPs that is kept back, 0 to 1.
        speeds: What was measured; where it is, it counts and the rule does not.
    """
    low = _whole(layered, layered.precision, speeds or {})
    wide = _whole(layered, layered.wide, speeds or {})
    touched = layered.low_flops / layered.flops if layered.flops else 1.0
    return low + (wide - low) * (min(1.0, kept_share / touched) if touched else 0.0)


def _whole(layered: LayeredGraph, precision: Precision, speeds: Speeds) -> float:
    """With nothing kept back. Weights count as if all were the products': embeddings are looked up, not read."""
    if (layered.graph, precision) in speeds:
        return float32_cost(layered) / speeds[layered.graph, precision]
    low = layered.low_flops / layered.flops if layered.flops else 0.0
    numbers = layered.constant_bytes / BYTES["fp32"]
    bytes_ = numbers * (low * BYTES[precision] + (1 - low) * BYTES[layered.wide])
    flops = layered.low_flops / RATES[precision] + (layered.flops - layered.low_flops) / RATES[layered.wide]
    return flops + FLOPS_A_BYTE * bytes_


def float32_cost(layered: LayeredGraph) -> float:
    """About how long the same graph takes in float32."""
    return float(layered.flops + FLOPS_A_BYTE * layered.constant_bytes)
