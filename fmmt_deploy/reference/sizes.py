"""A part's sizes, read off its tensors' shapes; nothing that a tensor tells is asked of anyone else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fmmt_deploy.architecture import (
    FusionSizes,
    PartSizes,
    PlmKind,
    PlmSizes,
    SwinSizes,
    UnimodalSizes,
    size_problem,
)
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.plm_settings import PlmSettings
from fmmt_deploy.reference.weights import Tensors
from fmmt_deploy.types import EMOTIONS, GraphName

__all__ = ["Facts", "sizes_of"]

MAX_TOKENS = 512
"""What the published models, and their way of cutting dialogues, are made for."""

ROBERTA_EXTRA_POSITIONS = 2
"""RoBERTa numbers its positions from `padding id + 1` = 2."""

FIX = "The file is incomplete or of another model; get it again."


@dataclass(frozen=True, slots=True)
class Facts:
    """What tensors don't tell; the defaults are the published model's.

    Attributes:
        heads: Attention heads of the fusion and unimodal encoders (the language model has its own).
        text_length: Words of an utterance that the fusion model reads.
        plm: The language model's settings, where known.
    """

    heads: int = 12
    text_length: int = 38
    plm: PlmSettings | None = None


def sizes_of(part: GraphName, tensors: Tensors, facts: Facts, kind: PlmKind | None, path: Path) -> PartSizes:
    """Reads a part's sizes.

    Args:
        part: Which part.
        tensors: Its weights, with our names.
        facts: What they don't tell; with the language model's settings, if it is that part.
        kind: RoBERTa or BERT, likewise.
        path: For messages.

    Raises:
        CheckpointError: A tensor that tells a size is missing, or the sizes make no sense.
    """
    shapes = _Shapes({name: tensor.shape for name, tensor in tensors.items()}, path)
    sizes: PartSizes
    if part == "swin":
        sizes = _swin_sizes(shapes)
    elif part == "unimodal":
        sizes = _unimodal_sizes(shapes, facts)
    elif part == "fusion":
        sizes = _fusion_sizes(shapes, facts)
    else:
        if facts.plm is None or kind is None:
            raise ValueError("a language model's sizes need its kind and settings")
        sizes = _plm_sizes(shapes, facts.plm, kind)
    if (problem := size_problem(sizes)) is not None:
        raise CheckpointError(
            f"{path}: {part}.{problem.field} should be {problem.expected}, found {problem.found}.", fix=FIX, path=path
        )
    return sizes


Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Shapes by name, from which sizes are asked for."""

    shapes: Mapping[str, Shape]
    path: Path

    def size(self, name: str, axis: int = 0) -> int:
        """One axis of a matrix or table (a tensor of at least two axes) or of a vector."""
        shape = self.shapes.get(name)
        if shape is None or len(shape) <= axis:
            found = "it is missing" if shape is None else f"it has shape {shape}"
            raise CheckpointError(
                f"{self.path}: tensor {name} tells the model's size, but {found}.",
                fix=FIX,
                path=self.path,
                tensor=name,
            )
        return shape[axis]

    def count(self, pattern: str) -> int:
        """How many numbers there are at the pattern's `#`: all from 0 on, without gaps."""
        regex = re.compile(re.escape(pattern).replace(r"\#", r"(\d{1,4})"), re.ASCII)
        numbers = {int(found[1]) for name in self.shapes if (found := regex.match(name))}
        if numbers != set(range(len(numbers))):
            raise CheckpointError(
                f"{self.path}: some of {pattern} are missing, found {sorted(numbers)[:8]}.", fix=FIX, path=self.path
            )
        return len(numbers)


def _swin_sizes(shapes: _Shapes) -> SwinSizes:
    stages = range(shapes.count("backbone.layers.#."))
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    return SwinSizes(
        embed_dim=shapes.size("backbone.patch_embed.proj.weight"),
        depths=tuple(shapes.count(f"backbone.layers.{i}.blocks.#.") for i in stages),
        heads=tuple(shapes.size(table.format(i), axis=1) for i in stages),
        feature_size=shapes.size("output_layer.2.weight"),
        linear_size=shapes.size("linear.weight"),
    )


def _plm_sizes(shapes: _Shapes, settings: PlmSettings, kind: PlmKind) -> PlmSizes:
    extra = ROBERTA_EXTRA_POSITIONS if kind == "roberta" else 0
    sizes = PlmSizes(
        kind=kind,
        vocab_size=shapes.size("plm.embeddings.word_embeddings.weight"),
        hidden_size=shapes.size("plm.embeddings.word_embeddings.weight", axis=1),
        layers=shapes.count("plm.encoder.layer.#."),
        heads=settings.heads,
        intermediate_size=shapes.size("plm.encoder.layer.0.intermediate.dense.weight"),
        max_tokens=shapes.size("plm.embeddings.position_embeddings.weight") - extra,
        layer_norm_eps=settings.layer_norm_eps,
        type_vocab_size=shapes.size("plm.embeddings.token_type_embeddings.weight"),
    )
    _check_agreement(sizes, settings)
    if sizes.max_tokens > MAX_TOKENS:
        raise CheckpointError(
            f"{shapes.path}: the language model has {sizes.max_tokens} positions, expected at most {MAX_TOKENS}.",
            fix="Use a RoBERTa or BERT of the published kind.",
            path=shapes.path,
        )
    return sizes


def _check_agreement(sizes: PlmSizes, settings: PlmSettings) -> None:
    names = {"num_hidden_layers": "layers"}
    for name, told in settings.sizes.items():
        if (found := getattr(sizes, names.get(name, name))) != told:
            raise CheckpointError(
                f"{settings.source} says {name} {told}, but the language model's tensors have {found}.",
                fix="Give the folder of the very model it was trained from: --plm-dir DIR.",
                path=settings.source,
            )


def _fusion_sizes(shapes: _Shapes, facts: Facts) -> FusionSizes:
    return FusionSizes(
        hidden_size=shapes.size("audio_linear.weight"),
        heads=facts.heads,
        text_length=facts.text_length,
        audio_length=shapes.size("audio_utt_transformer.position_embeddings.weight"),
        audio_size=shapes.size("audio_linear.weight", axis=1),
        audio_layers=shapes.count("audio_utt_transformer.layer.#."),
        vision_length=shapes.size("vision_utt_transformer.position_embeddings.weight"),
        vision_size=shapes.size("vision_linear.weight", axis=1) - len(EMOTIONS),
        vision_layers=shapes.count("vision_utt_transformer.layer.#."),
        crossmodal_layers=shapes.count("CrossModalTrans_TA.layers.#."),
    )


def _unimodal_sizes(shapes: _Shapes, facts: Facts) -> UnimodalSizes:
    return UnimodalSizes(
        hidden_size=shapes.size("modality_linear.weight"),
        heads=facts.heads,
        vision_length=shapes.size("utt_transformer.position_embeddings.weight"),
        vision_size=shapes.size("modality_linear.weight", axis=1),
        vision_layers=shapes.count("utt_transformer.layer.#."),
    )
