"""Names that need nothing else, so that `fmmt status` answers without NumPy."""

from __future__ import annotations

from typing import Literal

__all__ = ["EMOTIONS", "GRAPHS", "GraphName"]

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
"""The published order of the seven classes: index = label."""

GraphName = Literal["swin", "plm", "fusion", "unimodal"]
GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion", "unimodal")
