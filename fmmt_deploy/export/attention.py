"""Attention and transformer layers as graph nodes, in the form that TensorRT recognises and fuses.

Four axes (batch, heads, rows, size), the scale on the query before the first product, an additive bias that broadcasts,
Softmax over the last axis. Rows of a batch are kept as one matrix (batch · rows, columns) between attentions.
"""

from __future__ import annotations

from dataclasses import dataclass

from fmmt_deploy.export.builder import GraphBuilder

__all__ = ["BERT", "MASKED", "PUBLISHED", "Heads", "PostNormNames", "attention", "feed_forward", "post_norm_layer"]

MASKED = -10000.0
"""Added to the scores of masked keys; exp of it is 0 in float32, and it still is a number in float16."""


@dataclass(frozen=True, slots=True)
class Heads:
    """How a matrix of rows is seen as heads: the name of its (batch, rows, heads, size) shape, and the numbers."""

    split: str
    heads: int
    size: int


def attention(
    graph: GraphBuilder, query: str, key: str, value: str, q: Heads, kv: Heads, bias: str | None, windows: int = 1
) -> str:
    """softmax(query · keyᵀ / √size + bias) · value on matrices of rows.

    Args:
        graph: Where to.
        query: (rows, heads · size), as `key` and `value`.
        key: See `query`.
        value: See `query`.
        q: How the query's rows are seen as heads.
        kv: How the key's and value's are.
        bias: Broadcasts to (batch, heads, rows, rows), or None.
        windows: More than 1 (Swin's shifted windows): so many batches are seen as one with that many times the heads,
            so that `bias` may differ between them and still have four axes.
    """
    scaled = graph.mul(query, q.size**-0.5)
    queries = graph.transpose(graph.op("Reshape", scaled, q.split), 0, 2, 1, 3)
    keys = graph.transpose(graph.op("Reshape", key, kv.split), 0, 2, 3, 1)
    values = graph.transpose(graph.op("Reshape", value, kv.split), 0, 2, 1, 3)
    if windows > 1:
        fold = [-1, windows * q.heads, 0, 0]
        queries, keys, values = (graph.reshape(x, *fold) for x in (queries, keys, values))
    scores = graph.op("MatMul", queries, keys)
    if bias is not None:
        scores = graph.op("Add", scores, bias)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
    if windows > 1:
        mixed = graph.reshape(mixed, -1, q.heads, 0, 0)
    return graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), -1, q.heads * q.size)


def feed_forward(graph: GraphBuilder, x: str, first: str, second: str) -> str:
    """second(gelu(first(x))), with the exact (erf) GELU."""
    return graph.linear(graph.op("Gelu", graph.linear(x, first)), second)


@dataclass(frozen=True, slots=True)
class PostNormNames:
    """Parameter names of a post-norm (BERT) layer, below its prefix."""

    query: str
    key: str
    value: str
    dense: str
    dense_norm: str
    inner: str
    outer: str
    outer_norm: str


BERT = PostNormNames(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
"""As in transformers' BERT and RoBERTa."""

PUBLISHED = PostNormNames(
    "transformer_self_attention.selfatt.query",
    "transformer_self_attention.selfatt.key",
    "transformer_self_attention.selfatt.value",
    "transformer_self_attention.dense_norm.dense",
    "transformer_self_attention.dense_norm.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
"""As in the published utterance encoders."""


def post_norm_layer(
    graph: GraphBuilder, x: str, prefix: str, names: PostNormNames, heads: Heads, bias: str, eps: float
) -> str:
    """One BERT-style layer on a matrix of rows."""
    with graph.scope(prefix):
        query, key, value = (graph.linear(x, f"{prefix}.{n}") for n in (names.query, names.key, names.value))
        mixed = attention(graph, query, key, value, heads, heads, bias)
        mixed = graph.op("Add", graph.linear(mixed, f"{prefix}.{names.dense}"), x)
        x = graph.layer_norm(mixed, f"{prefix}.{names.dense_norm}", eps)
        inner = feed_forward(graph, x, f"{prefix}.{names.inner}", f"{prefix}.{names.outer}")
        return graph.layer_norm(graph.op("Add", inner, x), f"{prefix}.{names.outer_norm}", eps)
