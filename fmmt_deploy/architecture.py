"""What shape a model has: read off a checkpoint once, then frozen. No torch, so that bundles can hold it.

Source of every default: the published FacialMMT (Zheng et al., ACL 2023) as released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Architecture", "FusionSizes", "Modality", "PlmKind", "PlmSizes", "SwinSizes", "UnimodalSizes"]

Modality = Literal["T+A+V", "V"]
PlmKind = Literal["roberta", "bert"]


@dataclass(frozen=True, slots=True)
class SwinSizes:
    """The face model: a Swin transformer on 224 × 224 pixels, patches of 4, windows of 7."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    feature_size: int = 512
    linear_size: int = 64


@dataclass(frozen=True, slots=True)
class PlmSizes:
    """The text encoder. `max_tokens` is the longest sequence it has positions for."""

    kind: PlmKind
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_tokens: int
    layer_norm_eps: float
    type_vocab_size: int = 1


@dataclass(frozen=True, slots=True)
class FusionSizes:
    """The cross-modal model. `vision_size` is without the seven face probabilities that are put beside it."""

    hidden_size: int
    heads: int
    text_length: int
    audio_length: int
    audio_size: int
    audio_layers: int
    vision_length: int
    vision_size: int
    vision_layers: int
    crossmodal_layers: int


@dataclass(frozen=True, slots=True)
class UnimodalSizes:
    """The vision-only model."""

    hidden_size: int
    heads: int
    vision_length: int
    vision_size: int
    vision_layers: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole model: either swin, plm and fusion (`T+A+V`), or unimodal (`V`)."""

    modality: Modality
    swin: SwinSizes | None = None
    plm: PlmSizes | None = None
    fusion: FusionSizes | None = None
    unimodal: UnimodalSizes | None = None

    @property
    def vision_length(self) -> int:
        """V: at most so many faces of an utterance are used."""
        sizes = self.fusion or self.unimodal
        return 0 if sizes is None else sizes.vision_length
