"""The `plm` graph: token states of whole dialogues, both axes dynamic."""

from __future__ import annotations

import numpy as np
import onnx

from fmmt_deploy.architecture import PlmSizes
from fmmt_deploy.export.attention import BERT, MASKED, Heads, post_norm_layer
from fmmt_deploy.export.builder import GraphBuilder, WeightFile

__all__ = ["plm_graph"]

FIRST_POSITION = {"roberta": 2, "bert": 0}
"""RoBERTa's position table has two rows for padding before its first token's."""


def plm_graph(sizes: PlmSizes, hidden_size: int, weights: WeightFile) -> onnx.ModelProto:
    """Inputs `input_ids` and `attention_mask`, int64 (D, T); output `token_states` float32 (D, T, H)."""
    graph = GraphBuilder("plm", weights)
    ids = graph.input("input_ids", np.int64, ("dialogues", "tokens"))
    mask = graph.input("attention_mask", np.int64, ("dialogues", "tokens"))
    shape = graph.op("Shape", ids)
    tokens = graph.op("Slice", shape, graph.constant([1]), graph.constant([2]), graph.constant([0]))

    x = _embeddings(graph, sizes, ids, tokens)
    size = sizes.hidden_size // sizes.heads
    split = graph.op("Concat", graph.constant([-1]), tokens, graph.constant([sizes.heads, size]), axis=0)
    hidden = graph.mul(graph.add(graph.op("Cast", mask, to=onnx.TensorProto.FLOAT), -1.0), -MASKED)
    bias = graph.op("Unsqueeze", hidden, graph.constant([1, 2]))
    heads = Heads(split, sizes.heads, size)
    for layer in range(sizes.layers):
        x = post_norm_layer(graph, x, f"plm.encoder.layer.{layer}", BERT, heads, bias, sizes.layer_norm_eps)

    states = graph.linear(x, "text_linear")
    out = graph.op("Concat", graph.constant([-1]), tokens, graph.constant([hidden_size]), axis=0)
    states = graph.op("Reshape", states, out)
    graph.output(states, "token_states", np.float32, ("dialogues", "tokens", hidden_size))
    return graph.model()


def _embeddings(graph: GraphBuilder, sizes: PlmSizes, ids: str, tokens: str) -> str:
    """Word + position + type embedding, normalised, as a matrix (D · T, columns)."""
    prefix, first = "plm.embeddings", FIRST_POSITION[sizes.kind]
    with graph.scope(prefix):
        words = graph.op("Gather", graph.weight(f"{prefix}.word_embeddings.weight"), ids)
        last = graph.op("Add", tokens, graph.constant([first]))
        table = graph.weight(f"{prefix}.position_embeddings.weight")
        positions = graph.op("Slice", table, graph.constant([first]), last, graph.constant([0]))
        types = graph.weight(f"{prefix}.token_type_embeddings.weight", slice(0, 1))
        x = graph.op("Add", graph.op("Add", words, types), positions)
        x = graph.layer_norm(x, f"{prefix}.LayerNorm", sizes.layer_norm_eps)
        return graph.reshape(x, -1, sizes.hidden_size)
