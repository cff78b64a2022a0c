"""The `unimodal` graph: utterance logits from vision features alone."""

from __future__ import annotations

import numpy as np
import onnx

from fmmt_deploy.architecture import UnimodalSizes
from fmmt_deploy.export.builder import GraphBuilder, WeightFile
from fmmt_deploy.export.fusion import additive_attention, utterance_encoder
from fmmt_deploy.types import EMOTIONS

__all__ = ["unimodal_graph"]


def unimodal_graph(sizes: UnimodalSizes, weights: WeightFile) -> onnx.ModelProto:
    """Inputs `vision` float32 (U, V, d) and `vision_mask` float32 (U, V); output `logits` float32 (U, 7)."""
    graph = GraphBuilder("unimodal", weights)
    count, size = sizes.vision_length, sizes.hidden_size
    vision = graph.input("vision", np.float32, ("utterances", count, sizes.vision_size))
    mask = graph.input("vision_mask", np.float32, ("utterances", count))
    x = graph.linear(graph.reshape(vision, -1, sizes.vision_size), "modality_linear")
    x = utterance_encoder(graph, x, mask, "utt_transformer", count, sizes.vision_layers, size, sizes.heads)
    pooled = additive_attention(graph, x, count, mask, size)
    graph.output(graph.linear(pooled, "classifier"), "logits", np.float32, ("utterances", len(EMOTIONS)))
    return graph.model()
