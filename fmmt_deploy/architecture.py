"""What shape a model has: read off a checkpoint once, then frozen. No torch, so that bundles can hold it.

Source of every default: the published FacialMMT (Zheng et al., ACL 2023) as released.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

__all__ = [
    "Architecture",
    "Context",
    "FusionSizes",
    "Modality",
    "PartSizes",
    "PlmKind",
    "PlmSizes",
    "SizeProblem",
    "SwinSizes",
    "UnimodalSizes",
    "size_problem",
]

LARGEST_SIZE = 2**31
"""No size of a model comes near; more is a damaged file that would exhaust memory."""

MOST_TOKENS = 512
"""No utterance has more words than a dialogue may have tokens."""

SWIN_STAGES = 4
"""224 pixels are 56 patches, and 7 after three mergings: one window, which can't be halved again."""

Modality = Literal["T+A+V", "V"]
PlmKind = Literal["roberta", "bert"]
Context = Literal["dialogue", "past"]
"""Which turns an utterance's words are read with: all of its dialogue's, as published, or those up to its own."""


@dataclass(frozen=True, slots=True)
class SwinSizes:
    """The face model: a Swin transformer on 224 × 224 pixels, patches of 4, windows of 7.

    Attributes:
        embed_dim: Columns of the first stage; each further one has twice as many.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        feature_size: Numbers that a face's tokens are projected to.
        linear_size: Of the layer before the last.
    """

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
    """A whole model: either swin, plm and fusion (`T+A+V`), or unimodal (`V`).

    `context` is no size, but as fixed: a model must be asked about what it was trained to read.
    """

    modality: Modality
    swin: SwinSizes | None = None
    plm: PlmSizes | None = None
    fusion: FusionSizes | None = None
    unimodal: UnimodalSizes | None = None
    context: Context = "dialogue"

    @property
    def vision_length(self) -> int:
        """V: at most so many faces of an utterance are used."""
        sizes = self.fusion or self.unimodal
        return 0 if sizes is None else sizes.vision_length


PartSizes: TypeAlias = SwinSizes | PlmSizes | FusionSizes | UnimodalSizes


@dataclass(frozen=True, slots=True)
class SizeProblem:
    """A size that no model can have: which one, what it should be, what it is."""

    field: str
    expected: str
    found: str


def size_problem(sizes: PartSizes) -> SizeProblem | None:
    """The first size of a part that makes no sense, by itself or beside the others; None if all do."""
    for field in fields(sizes):
        value = getattr(sizes, field.name)
        if value == ():
            return SizeProblem(field.name, "not empty", "an empty list")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not 0 < number < LARGEST_SIZE:
                return SizeProblem(field.name, f"above 0 and below {LARGEST_SIZE}", f"{number:.4g}")
    return _swin_problem(sizes) if isinstance(sizes, SwinSizes) else _heads_problem(sizes)


def _heads_problem(sizes: PlmSizes | FusionSizes | UnimodalSizes) -> SizeProblem | None:
    if sizes.hidden_size % sizes.heads:
        return SizeProblem("heads", f"a divisor of hidden_size {sizes.hidden_size}", str(sizes.heads))
    if not isinstance(sizes, FusionSizes):
        return None
    if sizes.hidden_size % 2 or sizes.hidden_size < 4:
        return SizeProblem("hidden_size", "even and at least 4, for sines and cosines", str(sizes.hidden_size))
    if sizes.text_length > MOST_TOKENS:
        return SizeProblem("text_length", f"at most {MOST_TOKENS}", str(sizes.text_length))
    return None


def _swin_problem(sizes: SwinSizes) -> SizeProblem | None:
    if len(sizes.heads) != len(sizes.depths):
        return SizeProblem("heads", f"as many as depths ({len(sizes.depths)})", str(len(sizes.heads)))
    if len(sizes.depths) > SWIN_STAGES:
        return SizeProblem("depths", f"at most {SWIN_STAGES}", str(len(sizes.depths)))
    for stage, heads in enumerate(sizes.heads):
        if (width := sizes.embed_dim * 2**stage) % heads:
            return SizeProblem(f"heads[{stage}]", f"a divisor of the stage's width {width}", str(heads))
    return None
