"""The `swin` graph: emotion logits of faces.

Tokens are kept in the order of the windows that attend to each other, so that partitioning, shifting and merging are
one Gather a block instead of four transpositions; everything else in a Swin works on each token by itself.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from fmmt_deploy.architecture import SwinSizes
from fmmt_deploy.export.attention import Heads, attention, feed_forward
from fmmt_deploy.export.builder import GraphBuilder, WeightFile
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS

__all__ = ["swin_graph"]

PATCH, WINDOW = 4, 7
EPS = 1e-5
OTHER_REGION = -100.0
"""What Swin adds to the scores of pairs that the cyclic shift brought together (Liu et al., 2021, section 3.2)."""

Order = NDArray[np.int64]
"""For each token, which patch of the grid it is, in row-major numbers."""


def swin_graph(sizes: SwinSizes, weights: WeightFile) -> onnx.ModelProto:
    """Input `faces` uint8 (N, 224, 224, 3), BGR; output `face_logits` float32 (N, 7)."""
    graph = GraphBuilder("swin", weights)
    faces = graph.input("faces", np.uint8, ("faces", FACE_PIXELS, FACE_PIXELS, 3))
    grid = FACE_PIXELS // PATCH
    x = _patch_embedding(graph, faces, grid, sizes.embed_dim)
    order: Order = np.arange(grid * grid)
    for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
        columns = sizes.embed_dim * 2**stage
        if stage:
            x, grid, order = _merged(graph, x, grid, order, stage, columns)
        for block in range(depth):
            shift = WINDOW // 2 if block % 2 and grid > WINDOW else 0
            x, order = _reordered(graph, x, order, _window_order(grid, shift), columns)
            x = _block(graph, x, f"backbone.layers.{stage}.blocks.{block}", grid, shift, heads, columns)
    x, _ = _reordered(graph, x, order, np.arange(grid * grid), columns)
    graph.output(_head(graph, x, grid, columns), "face_logits", np.float32, ("faces", len(EMOTIONS)))
    return graph.model()


def _patch_embedding(graph: GraphBuilder, faces: str, grid: int, columns: int) -> str:
    """Pixels in [−1, 1], cut in patches (channel, row, column) as the weights lie, projected, normalised."""
    prefix = "backbone.patch_embed"
    with graph.scope(prefix):
        pixels = graph.add(graph.mul(graph.op("Cast", faces, to=onnx.TensorProto.FLOAT), 2 / 255), -1.0)
        patches = graph.reshape(pixels, -1, grid, PATCH, grid, PATCH, 3)
        patches = graph.reshape(graph.transpose(patches, 0, 1, 3, 5, 2, 4), -1, 3 * PATCH * PATCH)
        weight = graph.weight(f"{prefix}.proj.weight", shape=(columns, 3 * PATCH * PATCH))
        x = graph.op("Gemm", patches, weight, graph.weight(f"{prefix}.proj.bias"), transB=1)
        return graph.layer_norm(x, f"{prefix}.norm", EPS)


def _merged(graph: GraphBuilder, x: str, grid: int, order: Order, stage: int, columns: int) -> tuple[str, int, Order]:
    """Patch merging: four neighbours side by side, normalised, reduced; already in the next block's window order."""
    prefix, half = f"backbone.layers.{stage}.downsample", grid // 2
    wanted = _window_order(half, 0)
    row, column = 2 * (wanted // half), 2 * (wanted % half)
    neighbours = [(row + dy) * grid + column + dx for dx in (0, 1) for dy in (0, 1)]
    with graph.scope(prefix):
        x, _ = _reordered(graph, x, order, np.stack(neighbours, axis=1).ravel(), columns // 2)
        x = graph.layer_norm(graph.reshape(x, -1, 2 * columns), f"{prefix}.norm", EPS)
        return graph.linear(x, f"{prefix}.reduction", bias=False), half, wanted


def _block(graph: GraphBuilder, x: str, prefix: str, grid: int, shift: int, heads: int, columns: int) -> str:
    """One Swin block on tokens in window order."""
    with graph.scope(prefix):
        normed = graph.layer_norm(x, f"{prefix}.norm1", EPS)
        query, key, value = (
            graph.linear(normed, f"{prefix}.attn.qkv", slice(i * columns, (i + 1) * columns)) for i in range(3)
        )
        table = graph.weights.read(f"{prefix}.attn.relative_position_bias_table")
        bias = graph.constant(_attention_bias(table, grid, shift))
        split = graph.constant([-1, WINDOW * WINDOW, heads, columns // heads])
        view = Heads(split, heads, columns // heads)
        mixed = attention(graph, query, key, value, view, view, bias, windows=(grid // WINDOW) ** 2 if shift else 1)
        x = graph.op("Add", x, graph.linear(mixed, f"{prefix}.attn.proj"))
        normed = graph.layer_norm(x, f"{prefix}.norm2", EPS)
        return graph.op("Add", x, feed_forward(graph, normed, f"{prefix}.mlp.fc1", f"{prefix}.mlp.fc2"))


def _head(graph: GraphBuilder, x: str, grid: int, columns: int) -> str:
    """No pooling: all tokens, flattened, to the features; BatchNorm as the affine map it is after training."""
    x = graph.layer_norm(x, "output_layer.0", EPS)
    features = graph.linear(graph.reshape(x, -1, grid * grid * columns), "output_layer.2")
    gamma, beta, mean, variance = (
        graph.weights.read(f"output_layer.3.{name}").astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPS)
    features = graph.add(graph.mul(features, scale), beta - mean * scale)
    return graph.linear(graph.op("Relu", graph.linear(features, "linear")), "classifier")


def _reordered(graph: GraphBuilder, x: str, order: Order, wanted: Order, columns: int) -> tuple[str, Order]:
    """Brings tokens from one order into another."""
    index = np.empty_like(order)
    index[order] = np.arange(order.size)
    index = index[wanted]
    if np.array_equal(index, np.arange(order.size)):
        return x, wanted
    tokens = graph.op("Gather", graph.reshape(x, -1, order.size, columns), graph.constant(index), axis=1)
    return graph.reshape(tokens, -1, columns), wanted


def _window_order(grid: int, shift: int) -> Order:
    """Patches window by window, after a cyclic shift up and left."""
    patches = np.roll(np.arange(grid * grid).reshape(grid, grid), (-shift, -shift), axis=(0, 1))
    return _windows(patches)


def _windows(image: NDArray[np.int64]) -> NDArray[np.int64]:
    side = image.shape[0] // WINDOW
    windows: NDArray[np.int64] = image.reshape(side, WINDOW, side, WINDOW).transpose(0, 2, 1, 3).ravel()
    return windows


def _attention_bias(table: NDArray[np.float32], grid: int, shift: int) -> NDArray[np.float32]:
    """Relative-position bias, with the shift mask in it: (1, heads, 49, 49), or (1, windows · heads, 49, 49)."""
    place = np.stack(np.divmod(np.arange(WINDOW * WINDOW), WINDOW))
    away = place[:, :, None] - place[:, None, :] + WINDOW - 1
    bias: NDArray[np.float32] = table[away[0] * (2 * WINDOW - 1) + away[1]].transpose(2, 0, 1)[None]
    if not shift:
        return bias
    edge = np.searchsorted([grid - WINDOW, grid - shift], np.arange(grid), side="right")
    region = _windows(3 * edge[:, None] + edge[None, :]).reshape(-1, 1, WINDOW * WINDOW)
    mask = np.where(region != region.transpose(0, 2, 1), OTHER_REGION, 0.0)[:, None]
    rows = WINDOW * WINDOW
    return (bias + mask).reshape(1, -1, rows, rows).astype(np.float32)
