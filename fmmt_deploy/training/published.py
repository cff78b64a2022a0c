"""The published checkpoints: from a pickled module to named tensors and sizes, by name tables that stand here in full.

Source of names and quirks: the published FacialMMT release, seen through inert pickles; nothing of theirs is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import FusionSizes, PlmKind, PlmSizes, SwinSizes, UnimodalSizes
from fmmt_deploy.data.pickles import Node
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.types import EMOTIONS, GraphName

__all__ = ["PlmSettings", "Tensors", "attributes_of", "parts_of", "sizes_of", "tensors_of"]

Tensors = dict[str, NDArray[Any]]

UNUSED = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|relative_position_index|attn_mask|num_batches_tracked|version|_float_tensor)"
    r"|(roberta|bert)\.pooler\.dense\.(weight|bias)"
)
"""Derived buffers, and the pooler, which no answer depends on."""

NameTable = tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]

FACE_NAMES: NameTable = (
    (re.compile(r"swin\.layers\.(\d+)\.downsample\."), lambda m: f"backbone.layers.{int(m[1]) + 1}.downsample."),
    (re.compile(r"swin\.output_layer\."), "output_layer."),
    (re.compile(r"swin\."), "backbone."),
)
"""Published → ours: patch merging ends a stage there, and begins the next one in timm."""

PLM_NAMES: NameTable = ((re.compile(r"(roberta|bert)\."), "plm."),)

PUBLISHED_HEADS = 12
"""Attention heads of the fusion and unimodal encoders; no weight tells it, so plain state dicts are read with this."""

TEXT_LENGTH = 38
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class PlmSettings:
    """What a language model's weights don't tell: from its pickled configuration or its `config.json`."""

    heads: int
    layer_norm_eps: float
    hidden_act: str = "gelu"


def tensors_of(tree: object, path: Path) -> Tensors:
    """All parameters and buffers of what a checkpoint holds: a whole module, a state dict, or a dict around one.

    Args:
        tree: As read by `fmmt_deploy.data.pickles.read_pickle`.
        path: For messages.

    Raises:
        CheckpointError: There are no tensors in it.
    """
    tensors = dict(_walk(_unwrapped(tree), "")) if isinstance(tree, Node) else _state_dict(tree)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors.",
            fix="Give a checkpoint: a published .pt, a state dict, .safetensors, or a run folder.",
            path=path,
        )
    return {re.sub(r"^(module|_orig_mod)\.", "", name): tensor for name, tensor in tensors.items()}


def attributes_of(tree: object) -> tuple[dict[str, int], PlmSettings | None]:
    """Head count and text length of a pickled module's own attributes, and its language model's settings."""
    if not isinstance(tree, Node):
        return {}, None
    module = _unwrapped(tree)
    found = {"text_length": _state(module).get("get_text_utt_max_lens"), "heads": None}
    for name in ("audio_utt_transformer", "utt_transformer"):
        encoder = _children(module, "_modules").get(name)
        if isinstance(encoder, Node):
            found["heads"] = next((n for m in _modules(encoder) if (n := _state(m).get("num_attention_heads"))), None)
    return {key: value for key, value in found.items() if isinstance(value, int)}, _plm_settings(module)


def parts_of(tensors: Tensors, path: Path) -> dict[GraphName, Tensors]:
    """Which graphs a checkpoint has weights for, with our names.

    Raises:
        CheckpointError: It is no checkpoint of this model.
    """
    used = {name: tensor for name, tensor in tensors.items() if not UNUSED.fullmatch(name)}
    if "swin.patch_embed.proj.weight" in used:
        return {"swin": {_renamed(name, FACE_NAMES): tensor for name, tensor in used.items()}}
    if "modality_linear.weight" in used:
        return {"unimodal": used}
    if "audio_linear.weight" in used:
        text = {n: t for n, t in used.items() if n.startswith(("roberta.", "bert.", "text_linear."))}
        fusion = {n: t for n, t in used.items() if n not in text}
        return {"plm": {_renamed(n, PLM_NAMES): t for n, t in text.items()}, "fusion": fusion}
    hint = (
        "it is a pre-trained face backbone without the emotion head" if _is_backbone(used) else "no known names in it"
    )
    raise CheckpointError(
        f"{path} is no FacialMMT checkpoint: {hint}.",
        why=f"Its first tensors: {', '.join(list(used)[:3])}.",
        fix="Expected multimodal_*.pt, best_swin_*.pt, unimodal_model_V.pt, or a state dict with their names.",
        path=path,
    )


def sizes_of(
    part: GraphName, tensors: Tensors, numbers: Mapping[str, int], plm: PlmSettings | None, kind: PlmKind | None
) -> SwinSizes | PlmSizes | FusionSizes | UnimodalSizes:
    """Reads a part's sizes off its tensors' shapes.

    Args:
        part: Which part.
        tensors: Its weights, with our names.
        numbers: `heads` and `text_length`, where the checkpoint tells.
        plm: The language model's settings.
        kind: RoBERTa or BERT.

    Raises:
        KeyError: A tensor that tells a size is missing.
    """
    heads = numbers.get("heads", PUBLISHED_HEADS)
    shape = {name: tensor.shape for name, tensor in tensors.items()}
    if part == "swin":
        return _swin_sizes(shape)
    if part == "plm":
        if plm is None or kind is None:
            raise CheckpointError(
                "The checkpoint does not tell the language model's number of heads.",
                why="A plain state dict holds tensors only.",
                fix="Give the language model's folder, with its config.json: --plm-dir DIR.",
            )
        return _plm_sizes(shape, plm, kind)
    if part == "fusion":
        return _fusion_sizes(shape, heads, numbers.get("text_length", TEXT_LENGTH))
    return UnimodalSizes(
        hidden_size=shape["modality_linear.weight"][0],
        heads=heads,
        vision_length=shape["utt_transformer.position_embeddings.weight"][0],
        vision_size=shape["modality_linear.weight"][1],
        vision_layers=_count(shape, r"utt_transformer\.layer\.(\d+)\."),
    )


def _swin_sizes(shape: Mapping[str, tuple[int, ...]]) -> SwinSizes:
    stages = _count(shape, r"backbone\.layers\.(\d+)\.")
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    return SwinSizes(
        embed_dim=shape["backbone.patch_embed.proj.weight"][0],
        depths=tuple(_count(shape, rf"backbone\.layers\.{i}\.blocks\.(\d+)\.") for i in range(stages)),
        heads=tuple(shape[table.format(i)][1] for i in range(stages)),
        feature_size=shape["output_layer.2.weight"][0],
        linear_size=shape["linear.weight"][0],
    )


def _plm_sizes(shape: Mapping[str, tuple[int, ...]], settings: PlmSettings, kind: PlmKind) -> PlmSizes:
    words, size = shape["plm.embeddings.word_embeddings.weight"]
    positions = shape["plm.embeddings.position_embeddings.weight"][0] - (2 if kind == "roberta" else 0)
    return PlmSizes(
        kind=kind,
        vocab_size=words,
        hidden_size=size,
        layers=_count(shape, r"plm\.encoder\.layer\.(\d+)\."),
        heads=settings.heads,
        intermediate_size=shape["plm.encoder.layer.0.intermediate.dense.weight"][0],
        max_tokens=min(positions, MAX_TOKENS),
        layer_norm_eps=settings.layer_norm_eps,
        type_vocab_size=shape["plm.embeddings.token_type_embeddings.weight"][0],
    )


def _fusion_sizes(shape: Mapping[str, tuple[int, ...]], heads: int, text_length: int) -> FusionSizes:
    return FusionSizes(
        hidden_size=shape["audio_linear.weight"][0],
        heads=heads,
        text_length=text_length,
        audio_length=shape["audio_utt_transformer.position_embeddings.weight"][0],
        audio_size=shape["audio_linear.weight"][1],
        audio_layers=_count(shape, r"audio_utt_transformer\.layer\.(\d+)\."),
        vision_length=shape["vision_utt_transformer.position_embeddings.weight"][0],
        vision_size=shape["vision_linear.weight"][1] - len(EMOTIONS),
        vision_layers=_count(shape, r"vision_utt_transformer\.layer\.(\d+)\."),
        crossmodal_layers=_count(shape, r"CrossModalTrans_TA\.layers\.(\d+)\."),
    )


def _count(names: Mapping[str, object], pattern: str) -> int:
    """One more than the largest number at the pattern's group."""
    numbers = [int(found[1]) for name in names if (found := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def _renamed(name: str, table: NameTable) -> str:
    for pattern, replacement in table:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def _is_backbone(tensors: Tensors) -> bool:
    return any(name.endswith("patch_embed.proj.weight") for name in tensors)


def _state(node: Node) -> dict[Any, Any]:
    return node.state if isinstance(node.state, dict) else {}


def _children(node: Node, kind: str) -> dict[Any, Any]:
    children = _state(node).get(kind)
    return children if isinstance(children, dict) else {}


def _unwrapped(node: Node) -> Node:
    """Takes off Lightning's and DataParallel's wrappers."""
    for name in ("_original_module", "_forward_module", "module"):
        inner = _children(node, "_modules").get(name)
        if isinstance(inner, Node):
            return _unwrapped(inner)
    return node


def _modules(node: Node, depth: int = 0) -> Iterator[Node]:
    yield node
    if depth < 50:
        for child in _children(node, "_modules").values():
            if isinstance(child, Node):
                yield from _modules(child, depth + 1)


def _walk(node: Node, prefix: str, depth: int = 0) -> Iterator[tuple[str, NDArray[Any]]]:
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _children(node, kind).items():
            if isinstance(tensor, np.ndarray):
                yield f"{prefix}{name}", tensor
    if depth < 50:
        for name, child in _children(node, "_modules").items():
            if isinstance(child, Node):
                yield from _walk(child, f"{prefix}{name}.", depth + 1)


def _state_dict(tree: object) -> Tensors:
    if not isinstance(tree, dict):
        return {}
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(tree.get(key), dict):
            return _state_dict(tree[key])
    return {str(name): tensor for name, tensor in tree.items() if isinstance(tensor, np.ndarray)}


def _plm_settings(module: Node) -> PlmSettings | None:
    for name in ("roberta", "bert"):
        plm = _children(module, "_modules").get(name)
        if isinstance(plm, Node) and isinstance(config := _state(plm).get("config"), Node):
            values = _state(config)
            heads, eps = values.get("num_attention_heads"), values.get("layer_norm_eps")
            if isinstance(heads, int) and isinstance(eps, float):
                return PlmSettings(heads, eps, str(values.get("hidden_act", "gelu")))
    return None
