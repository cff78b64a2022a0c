"""The cross-modal fusion model and the vision-only one, in PyTorch, written to be read beside the paper."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from fmmt_deploy.architecture import FusionSizes, UnimodalSizes
from fmmt_deploy.reference.layers import AdditiveAttention, CrossModalEncoder, UtteranceEncoder, sinusoids
from fmmt_deploy.types import EMOTIONS

__all__ = ["FusionModel", "UnimodalModel", "gate_faces", "text_rows"]


def text_rows(states: Tensor, row: Tensor, start: Tensor, length: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Cuts each utterance's own words out of its dialogue, padded with exact zeros.

    Args:
        states: Token states (D, T, H).
        row: Which dialogue, (U,).
        start: First own token, (U,).
        length: Own tokens, at most `rows`, (U,).
        rows: The model's text length, 38 as published.

    Returns:
        Words (U, rows, H) and their mask (U, rows).
    """
    offsets = torch.arange(rows, device=states.device)
    own = offsets < length[:, None]
    index = (start[:, None] + offsets).clamp_max(states.shape[1] - 1)
    words = torch.where(own[..., None], states[row[:, None], index], 0.0)
    return words, own.to(states.dtype)


def gate_faces(
    vision: Tensor,
    vision_mask: Tensor,
    face_logits: Tensor,
    face_index: Tensor,
    noise: Tensor,
    tau: float,
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keeps the faces the Swin is sure of, in order, each beside its probabilities; all of them if it is of none.

    Args:
        vision: Features (U, V, d).
        vision_mask: 1 for real rows, (U, V).
        face_logits: (N, 7).
        face_index: Which row of `face_logits` each vision row is, (U, V); any value where the mask is 0.
        noise: Gumbel draws, or zeros, (U, V, 7).
        tau: Temperature.
        threshold: Confidence Σp² a face must exceed.

    Returns:
        Vision rows (U, V, d + 7), their mask (U, V), and which faces were used (U, V) in their own order.
    """
    size = vision.shape[-1] + len(EMOTIONS)
    real = vision_mask > 0
    probabilities = ((face_logits[face_index * real] + noise) / tau).softmax(-1)
    sure = real & ((probabilities**2).sum(-1) > threshold)
    used = torch.where(sure.any(1, keepdim=True), sure, real)
    order = used.int().argsort(dim=1, descending=True, stable=True)  # the used ones to the front
    rows = torch.cat([vision, probabilities], dim=-1).gather(1, order[..., None].expand(-1, -1, size))
    mask = used.gather(1, order)
    return torch.where(mask[..., None], rows, 0.0), mask.to(vision_mask.dtype), used


class FusionModel(nn.Module):
    """Utterance logits from words, audio and gated vision (Zheng et al., FacialMMT, ACL 2023, section 3).

    Args:
        sizes: Rows and widths of every modality.
        dropout: Of every encoder, in training only.
    """

    def __init__(self, sizes: FusionSizes, dropout: float = 0.0) -> None:
        super().__init__()
        size, heads = sizes.hidden_size, sizes.heads
        self.text_length = sizes.text_length
        self.audio_linear = nn.Linear(sizes.audio_size, size)
        self.audio_utt_transformer = UtteranceEncoder(sizes.audio_length, size, heads, sizes.audio_layers, dropout)
        self.vision_linear = nn.Linear(sizes.vision_size + len(EMOTIONS), size)
        self.vision_utt_transformer = UtteranceEncoder(sizes.vision_length, size, heads, sizes.vision_layers, dropout)
        self.CrossModalTrans_TA = CrossModalEncoder(size, heads, sizes.crossmodal_layers, dropout)
        self.CrossModalTrans_TA_V = CrossModalEncoder(size, heads, sizes.crossmodal_layers, dropout)
        self.attention = AdditiveAttention(size)
        self.classifier = nn.Linear(size, len(EMOTIONS))

    def encode(self, audio: Tensor, audio_mask: Tensor, vision: Tensor, vision_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes audio (U, A, ·) and gated vision (U, V, ·), each to H columns."""
        return (
            self.audio_utt_transformer(self.audio_linear(audio), audio_mask),
            self.vision_utt_transformer(self.vision_linear(vision), vision_mask),
        )

    def forward(
        self,
        words: Tensor,
        words_mask: Tensor,
        audio: Tensor,
        audio_mask: Tensor,
        vision: Tensor,
        vision_mask: Tensor,
    ) -> Tensor:
        """Maps words (U, 38, H), audio (U, A, ·) and gated vision (U, V, ·), each with its mask, to logits (U, 7)."""
        audio, vision = self.encode(audio, audio_mask, vision, vision_mask)
        text, audio = self._positioned(words, words_mask), self._positioned(audio)
        mixed = torch.cat([self.CrossModalTrans_TA(text, audio), self.CrossModalTrans_TA(audio, text)], dim=1)
        mixed, vision = self._positioned(mixed), self._positioned(vision)
        rows = torch.cat([self.CrossModalTrans_TA_V(mixed, vision), self.CrossModalTrans_TA_V(vision, mixed)], dim=1)
        pooled = self.attention(rows, torch.cat([words_mask, audio_mask, vision_mask], dim=1))
        logits: Tensor = self.classifier(pooled)
        return logits

    @staticmethod
    def _positioned(x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scales by √H and adds sinusoids; zero rows (padded words) get none, as published."""
        positions = _positions(x.shape[1], x.shape[2], x.device, x.dtype)
        return math.sqrt(x.shape[2]) * x + (positions if mask is None else positions * mask[..., None])


@lru_cache(maxsize=16)
def _positions(rows: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sinusoids, kept where they are used: made anew, each pass would wait for the device four times."""
    with torch.inference_mode(False):  # what is made in inference mode can't be trained with later
        return sinusoids(rows, size).to(device, dtype)


class UnimodalModel(nn.Module):
    """Utterance logits from vision features alone; see `FusionModel`."""

    def __init__(self, sizes: UnimodalSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.modality_linear = nn.Linear(sizes.vision_size, sizes.hidden_size)
        self.utt_transformer = UtteranceEncoder(
            sizes.vision_length, sizes.hidden_size, sizes.heads, sizes.vision_layers, dropout
        )
        self.attention = AdditiveAttention(sizes.hidden_size)
        self.classifier = nn.Linear(sizes.hidden_size, len(EMOTIONS))

    def forward(self, vision: Tensor, vision_mask: Tensor) -> Tensor:
        """Maps vision (U, V, d) and its mask (U, V) to logits (U, 7)."""
        rows = self.utt_transformer(self.modality_linear(vision), vision_mask)
        logits: Tensor = self.classifier(self.attention(rows, vision_mask))
        return logits
