"""The building blocks of the fusion and unimodal models, with the published parameter names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MASKED", "AdditiveAttention", "CrossModalEncoder", "UtteranceEncoder", "sinusoids"]

MASKED = -10000.0
"""What the published encoders add to the scores of masked keys."""


def sinusoids(rows: int, size: int) -> Tensor:
    """Positions 1 … `rows` as (rows, size): sines in the first half of the columns, cosines in the second."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(1, rows + 1, dtype=torch.float32)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Multi-head attention of already projected (U, rows, H) tensors; the query is already scaled."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    scores: Tensor = q @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    mixed: Tensor = F.dropout(scores.softmax(-1), dropout) @ v if dropout else scores.softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


class _SelfAttention(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))


class _DenseNorm(nn.Module):
    """Dense, residual, LayerNorm with the published eps of 1e-12."""

    def __init__(self, inner: int, size: int, dropout: float) -> None:
        super().__init__()
        self.dense, self.dropout = nn.Linear(inner, size), nn.Dropout(dropout)
        self.LayerNorm = nn.LayerNorm(size, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return normed


class _Attention(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.selfatt = _SelfAttention(size)
        self.dense_norm = _DenseNorm(size, size, dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        att, scale = self.selfatt, math.sqrt(x.shape[-1] // self.heads)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(att.query(x) / scale, att.key(x), att.value(x), self.heads, bias, dropout)
        out: Tensor = self.dense_norm(mixed, x)
        return out


class _Intermediate(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, 4 * size)


class _PostNormLayer(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.transformer_self_attention = _Attention(size, heads, dropout)
        self.intermediate = _Intermediate(size)
        self.output = _DenseNorm(4 * size, size, dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.transformer_self_attention(x, bias)
        out: Tensor = self.output(F.gelu(self.intermediate.dense(x)), x)
        return out


class UtteranceEncoder(nn.Module):
    """Learned positions and post-norm layers; masked rows are no keys, but still give rows.

    Args:
        positions: Rows, A or V.
        size: H.
        heads: Attention heads.
        layers: Number of layers.
        dropout: Of sums, attention and every branch, in training only.
    """

    def __init__(self, positions: int, size: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.position_embeddings, self.dropout = nn.Embedding(positions, size), nn.Dropout(dropout)
        self.layer = nn.ModuleList(_PostNormLayer(size, heads, dropout) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps `x` (U, positions, H) with `mask` (U, positions; 1 = real) to (U, positions, H)."""
        # Not `1.0 - mask`: where no row is real, −10000 for all would only cost the scores their last digits.
        bias = ((mask.amax(1, keepdim=True) - mask) * MASKED)[:, None, None, :]
        x = self.dropout(x + self.position_embeddings.weight)
        for layer in self.layer:
            x = layer(x, bias)
        return x


class _PackedAttention(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size, size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size))
        self.out_proj = nn.Linear(size, size)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        (wq, wk, wv), (bq, bk, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query = F.linear(x, wq, bq) * (x.shape[-1] // self.heads) ** -0.5
        key, value, dropout = F.linear(other, wk, bk), F.linear(other, wv, bv), self.dropout if self.training else 0.0
        out: Tensor = self.out_proj(attend(query, key, value, self.heads, dropout=dropout))
        return out


class _PreNormLayer(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn, self.dropout = _PackedAttention(size, heads, dropout), nn.Dropout(dropout)
        self.fc1, self.fc2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.layer_norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        first, second = self.layer_norms
        x = x + self.dropout(self.self_attn(first(x), first(other)))
        out: Tensor = x + self.dropout(self.fc2(F.gelu(self.fc1(second(x)))))
        return out


class CrossModalEncoder(nn.Module):
    """Rows of one modality attend to those of another; there is no key mask, so padded rows are attended to.

    Every layer reads the same `other`, normalised by its own first LayerNorm (Tsai et al., MulT, 2019).
    """

    def __init__(self, size: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_PreNormLayer(size, heads, dropout) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Maps positioned `x` (U, rows, H) and `other` (U, other rows, H) to (U, rows, H)."""
        for layer in self.layers:
            x = layer(x, other)
        out: Tensor = self.layer_norm(x)
        return out


class AdditiveAttention(nn.Module):
    """Pools rows by value(tanh(P(x) + Q(query_vector))), masked (Bahdanau et al., 2015)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query_vector = nn.Parameter(torch.randn(size))
        self.value = nn.Linear(size, 1)
        self.P, self.Q = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps `x` (U, rows, H) with `mask` (U, rows; 1 = real) to (U, H), over all rows where none is real."""
        scores = self.value(torch.tanh(self.P(x) + self.Q(self.query_vector))).squeeze(-1)
        hidden = mask < mask.amax(1, keepdim=True)  # where no row is real, none is hidden
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        pooled: Tensor = weights[:, None, :] @ x
        return pooled.squeeze(1)
