"""The `fusion` graph: from token states, features and face logits to utterance logits.

The face gate is part of it: batched, without loops, every utterance by itself, so that an answer never depends on its
batch mates and nothing returns to the host between the three graphs. Selections are made by index, never by a matrix
product over values, so that they stay exact in any precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from fmmt_deploy.architecture import FusionSizes
from fmmt_deploy.export.attention import MASKED, PUBLISHED, Heads, attention, feed_forward, post_norm_layer
from fmmt_deploy.export.builder import GraphBuilder, WeightFile
from fmmt_deploy.types import EMOTIONS

__all__ = ["additive_attention", "fusion_graph", "key_bias", "utterance_encoder"]

FLOAT, INT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
CLASSES = len(EMOTIONS)
ENCODER_EPS, CROSSMODAL_EPS = 1e-12, 1e-5


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one modality: a matrix (U · count, H), and the mask (U, count) where padding is known."""

    matrix: str
    count: int


def fusion_graph(sizes: FusionSizes, tau: float, threshold: float, weights: WeightFile) -> onnx.ModelProto:
    """Inputs as in `fmmt_deploy.pipeline.batch`; outputs `logits` float32 (U, 7) and `kept` bool (U, V)."""
    graph = GraphBuilder("fusion", weights)
    words, words_mask = _words(graph, sizes)
    audio, audio_mask = _audio(graph, sizes)
    vision, vision_mask, kept = _gated_vision(graph, sizes, tau, threshold)

    audio = utterance_encoder(
        graph,
        audio,
        audio_mask,
        "audio_utt_transformer",
        sizes.audio_length,
        sizes.audio_layers,
        sizes.hidden_size,
        sizes.heads,
    )
    vision = utterance_encoder(
        graph,
        vision,
        vision_mask,
        "vision_utt_transformer",
        sizes.vision_length,
        sizes.vision_layers,
        sizes.hidden_size,
        sizes.heads,
    )
    first = _cross_both(
        graph,
        "CrossModalTrans_TA",
        _positioned(graph, words, sizes.text_length, sizes, words_mask),
        _positioned(graph, audio, sizes.audio_length, sizes),
        sizes,
    )
    rows = _cross_both(
        graph,
        "CrossModalTrans_TA_V",
        _positioned(graph, first.matrix, first.count, sizes),
        _positioned(graph, vision, sizes.vision_length, sizes),
        sizes,
    )
    mask = graph.op("Concat", words_mask, audio_mask, vision_mask, axis=1)
    pooled = additive_attention(graph, rows.matrix, rows.count, mask, sizes.hidden_size)
    graph.output(graph.linear(pooled, "classifier"), "logits", np.float32, ("utterances", CLASSES))
    graph.output(graph.op("Cast", kept, to=BOOL), "kept", np.bool_, ("utterances", sizes.vision_length))
    return graph.model()


def _prefix_mask(graph: GraphBuilder, length: str, count: int) -> str:
    """1 for the first `length` (U,) of `count` rows: float32 (U, count)."""
    place = graph.constant(np.arange(count))
    return graph.op("Cast", graph.op("Less", place, graph.op("Unsqueeze", length, graph.constant([1]))), to=FLOAT)


def _words(graph: GraphBuilder, sizes: FusionSizes) -> tuple[str, str]:
    """Each utterance's own words, cut out of its dialogue; rows beyond them are exactly zero."""
    with graph.scope("words"):
        states = graph.input("token_states", np.float32, ("dialogues", "tokens", sizes.hidden_size))
        row, start, length = (
            graph.input(name, np.int64, ("utterances",)) for name in ("text_row", "text_start", "text_length")
        )
        mask = _prefix_mask(graph, length, sizes.text_length)
        tokens = graph.op("Slice", graph.op("Shape", states), *(graph.constant([i]) for i in (1, 2, 0)))
        first = graph.op("Add", graph.op("Mul", row, tokens), start)
        place = graph.op(
            "Add", graph.op("Unsqueeze", first, graph.constant([1])), graph.constant(np.arange(sizes.text_length))
        )
        place = graph.op("Mul", place, graph.op("Cast", mask, to=INT))
        words = graph.op("Gather", graph.reshape(states, -1, sizes.hidden_size), place, axis=0)
        words = graph.op("Mul", words, graph.op("Unsqueeze", mask, graph.constant([2])))
        return graph.reshape(words, -1, sizes.hidden_size), mask


def _audio(graph: GraphBuilder, sizes: FusionSizes) -> tuple[str, str]:
    audio = graph.input("audio", np.float32, ("utterances", sizes.audio_length, sizes.audio_size))
    length = graph.input("audio_length", np.int64, ("utterances",))
    mask = _prefix_mask(graph, length, sizes.audio_length)
    return graph.linear(graph.reshape(audio, -1, sizes.audio_size), "audio_linear"), mask


def _gated_vision(graph: GraphBuilder, sizes: FusionSizes, tau: float, threshold: float) -> tuple[str, str, str]:
    """Vision rows of the faces that pass the gate, in order at the front, beside their probabilities.

    Returns:
        Rows (U · V, H) after `vision_linear`, their mask (U, V), and which faces were used, in their own order (U, V).
    """
    count = sizes.vision_length
    with graph.scope("gate"):
        vision = graph.input("vision", np.float32, ("utterances", count, sizes.vision_size))
        mask = graph.input("vision_mask", np.float32, ("utterances", count))
        logits = graph.input("face_logits", np.float32, ("faces", CLASSES))
        index = graph.input("face_index", np.int64, ("utterances", count))
        noise = graph.input("noise", np.float32, ("utterances", count, CLASSES))

        noisy = graph.mul(graph.op("Add", graph.op("Gather", logits, index, axis=0), noise), 1 / tau)
        probabilities = graph.op("Softmax", noisy, axis=-1)
        confidence = graph.op(
            "ReduceSum", graph.op("Mul", probabilities, probabilities), graph.constant([2]), keepdims=0
        )
        sure = graph.op("Cast", graph.op("Greater", confidence, graph.constant(np.float32(threshold))), to=FLOAT)
        sure = graph.op("Mul", sure, mask)
        none_sure = graph.op("Sub", graph.constant(1.0), graph.op("ReduceMax", sure, graph.constant([1]), keepdims=1))
        used = graph.op("Add", sure, graph.op("Mul", none_sure, mask))

        source, packed_mask = _packing(graph, used, count)
        rows = graph.op("Concat", vision, probabilities, axis=2)
        width = sizes.vision_size + CLASSES
        rows = graph.op("GatherND", rows, source, batch_dims=1)
        rows = graph.op("Mul", rows, graph.op("Unsqueeze", packed_mask, graph.constant([2])))
    return graph.linear(graph.reshape(rows, -1, width), "vision_linear"), packed_mask, used


def _packing(graph: GraphBuilder, used: str, count: int) -> tuple[str, str]:
    """Which row of its utterance comes to each place at the front (U, V, 1), and the mask of those places (U, V)."""
    upper = np.triu(np.ones((count, count), np.float32))
    place = graph.add(graph.op("MatMul", used, graph.constant(upper)), -1.0)
    arrives = graph.op("Equal", graph.op("Unsqueeze", place, graph.constant([1])), graph.constant(_column(count)))
    arrives = graph.op("Mul", graph.op("Cast", arrives, to=FLOAT), graph.op("Unsqueeze", used, graph.constant([1])))
    places = graph.constant(np.arange(count, dtype=np.float32))
    source = graph.op("ReduceSum", graph.op("Mul", arrives, places), graph.constant([2]), keepdims=0)
    total = graph.op("ReduceSum", used, graph.constant([1]), keepdims=1)
    mask = graph.op("Cast", graph.op("Less", places, total), to=FLOAT)
    return graph.op("Unsqueeze", graph.op("Cast", source, to=INT), graph.constant([2])), mask


def _column(count: int) -> NDArray[np.float32]:
    return np.arange(count, dtype=np.float32)[:, None]


def key_bias(graph: GraphBuilder, mask: str) -> str:
    """0 for real keys, −10000 for masked ones: (U, 1, 1, count) from a mask (U, count)."""
    return graph.op("Unsqueeze", _hidden(graph, mask), graph.constant([1, 2]))


def utterance_encoder(
    graph: GraphBuilder, x: str, mask: str, prefix: str, count: int, layers: int, size: int, heads: int
) -> str:
    """Learned positions, then post-norm layers with masked keys, on a matrix (U · count, H)."""
    x = graph.op("Add", graph.reshape(x, -1, count, size), graph.weight(f"{prefix}.position_embeddings.weight"))
    x = graph.reshape(x, -1, size)
    bias = key_bias(graph, mask)
    view = _heads(graph, count, size, heads)
    for layer in range(layers):
        x = post_norm_layer(graph, x, f"{prefix}.layer.{layer}", PUBLISHED, view, bias, ENCODER_EPS)
    return x


def _heads(graph: GraphBuilder, count: int, size: int, heads: int) -> Heads:
    return Heads(graph.constant([-1, count, heads, size // heads]), heads, size // heads)


def _positioned(graph: GraphBuilder, x: str, count: int, sizes: FusionSizes, mask: str | None = None) -> _Rows:
    """Scales by √H and adds sinusoids; padded words get none."""
    size = sizes.hidden_size
    scaled = graph.reshape(graph.mul(x, np.float32(size**0.5)), -1, count, size)
    positions = graph.constant(_sinusoids(count, size))
    if mask is not None:
        positions = graph.op("Mul", positions, graph.op("Unsqueeze", mask, graph.constant([2])))
    return _Rows(graph.reshape(graph.op("Add", scaled, positions), -1, size), count)


def _sinusoids(rows: int, size: int) -> NDArray[np.float32]:
    """Positions 1 … rows: sines in the first half of the columns, cosines in the second."""
    half = size // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-(np.log(10000) / (half - 1))))
    angles = np.arange(1, rows + 1, dtype=np.float32)[:, None] * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _cross_both(graph: GraphBuilder, prefix: str, one: _Rows, other: _Rows, sizes: FusionSizes) -> _Rows:
    """Rows of `one` after attending to `other`, then those of `other` after attending to `one`; same weights."""
    size = sizes.hidden_size
    both = [
        graph.reshape(_cross_modal(graph, prefix, x, y, sizes), -1, x.count, size)
        for x, y in ((one, other), (other, one))
    ]
    rows = graph.op("Concat", *both, axis=1)
    return _Rows(graph.reshape(rows, -1, size), one.count + other.count)


def _cross_modal(graph: GraphBuilder, prefix: str, x: _Rows, other: _Rows, sizes: FusionSizes) -> str:
    """A stack of pre-norm layers; each reads the same `other`, through its own first LayerNorm. No key mask."""
    size, rows = sizes.hidden_size, x.matrix
    q, kv = (_heads(graph, r.count, size, sizes.heads) for r in (x, other))
    for number in range(sizes.crossmodal_layers):
        layer = f"{prefix}.layers.{number}"
        with graph.scope(layer):
            normed, keys = (graph.layer_norm(r, f"{layer}.layer_norms.0", CROSSMODAL_EPS) for r in (rows, other.matrix))
            query, key, value = (
                _packed(graph, r, f"{layer}.self_attn", i, size) for i, r in enumerate((normed, keys, keys))
            )
            mixed = graph.linear(attention(graph, query, key, value, q, kv, None), f"{layer}.self_attn.out_proj")
            rows = graph.op("Add", rows, mixed)
            normed = graph.layer_norm(rows, f"{layer}.layer_norms.1", CROSSMODAL_EPS)
            rows = graph.op("Add", rows, feed_forward(graph, normed, f"{layer}.fc1", f"{layer}.fc2"))
    return graph.layer_norm(rows, f"{prefix}.layer_norm", CROSSMODAL_EPS)


def _packed(graph: GraphBuilder, x: str, name: str, part: int, size: int) -> str:
    """One third (query, key, value) of a packed projection."""
    rows = slice(part * size, (part + 1) * size)
    weight, bias = (graph.weight(f"{name}.in_proj_{kind}", rows) for kind in ("weight", "bias"))
    return graph.op("Gemm", x, weight, bias, transB=1)


def additive_attention(graph: GraphBuilder, x: str, count: int, mask: str, size: int) -> str:
    """Pools a matrix (U · count, H) to (U, H) by value(tanh(P(x) + Q(query_vector))), masked by (U, count)."""
    with graph.scope("attention"):
        read = graph.weights.read
        query = read("attention.Q.weight") @ read("attention.query_vector") + read("attention.Q.bias")
        inner = graph.op(
            "Gemm", x, graph.weight("attention.P.weight"), graph.constant(read("attention.P.bias") + query), transB=1
        )
        scores = graph.reshape(graph.linear(graph.op("Tanh", inner), "attention.value"), -1, count)
        scores = graph.op("Add", scores, _hidden(graph, mask))
        weights = graph.op("Unsqueeze", graph.op("Softmax", scores, axis=-1), graph.constant([1]))
        pooled = graph.op("MatMul", weights, graph.reshape(x, -1, count, size))
        return graph.reshape(pooled, -1, size)


def _hidden(graph: GraphBuilder, mask: str) -> str:
    """What is added to scores: 0 for real rows, −10000 for others, and 0 for all if none is real.

    A softmax doesn't see what is added to all scores alike, but float32 does: beside 10000 it has three digits left.
    """
    real = graph.op("ReduceMax", mask, graph.constant([1]), keepdims=1)
    return graph.mul(graph.op("Sub", mask, real), -MASKED)
