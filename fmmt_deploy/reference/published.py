"""The published names of weights, and ours: the tables stand here in full, and every tensor passes through them.

Source: the published FacialMMT release, seen through inert pickles; nothing of theirs is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.weights import Tensors, listed
from fmmt_deploy.types import GraphName

__all__ = ["FACE_NAMES", "PLM_NAMES", "UNUSED", "WRAPPER_NAMES", "NameTable", "parts_of", "plm_kind_of", "renamed"]

NameTable: TypeAlias = tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]
"""The first pattern that matches a name's beginning replaces it."""

WRAPPER_NAMES: NameTable = ((re.compile(r"((module|_orig_mod)\.)+"), ""),)
"""What DataParallel and torch.compile put before every name."""

UNUSED = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|relative_position_index|attn_mask|num_batches_tracked|version|_float_tensor)"
    r"|(roberta|bert)\.pooler\.dense\.(weight|bias)"
)
"""Derived buffers, and the pooler, which no answer depends on."""

FACE_NAMES: NameTable = (
    (
        re.compile(r"swin\.layers\.(\d{1,4})\.downsample\.", re.ASCII),
        lambda found: f"backbone.layers.{int(found[1]) + 1}.downsample.",
    ),
    (re.compile(r"swin\.output_layer\."), "output_layer."),
    (re.compile(r"swin\."), "backbone."),
)
"""Published → ours: patch merging ends a stage there, and begins the next one in timm."""

PLM_NAMES: NameTable = ((re.compile(r"(roberta|bert)\."), "plm."),)
"""Both kinds of language model have the same names in ours. The fusion and unimodal models keep the published ones."""

WORDS = "embeddings.word_embeddings.weight"
PLM_KINDS: tuple[PlmKind, ...] = ("roberta", "bert")


def parts_of(tensors: Tensors, path: Path) -> dict[GraphName, Tensors]:
    """Which graphs a checkpoint has weights for, with our names.

    Args:
        tensors: With the published names.
        path: For messages.

    Raises:
        CheckpointError: It is no checkpoint of this model, or has a tensor twice.
    """
    used = renamed(tensors, WRAPPER_NAMES, path)
    used = {name: tensor for name, tensor in used.items() if not UNUSED.fullmatch(name)}
    if "swin.patch_embed.proj.weight" in used:
        return {"swin": renamed(used, FACE_NAMES, path)}
    if "modality_linear.weight" in used:
        return {"unimodal": used}
    if "audio_linear.weight" not in used:
        raise _unknown(used, path)
    text = {name: tensor for name, tensor in used.items() if name.startswith(("roberta.", "bert.", "text_linear."))}
    fusion = {name: tensor for name, tensor in used.items() if name not in text}
    return {"plm": renamed(text, PLM_NAMES, path), "fusion": fusion}


def plm_kind_of(tensors: Tensors, path: Path) -> PlmKind:
    """Which language model a multimodal checkpoint has.

    Raises:
        CheckpointError: None, or both.
    """
    kinds = [kind for kind in PLM_KINDS if any(re.match(rf"((module|_orig_mod)\.)*{kind}\.", name) for name in tensors)]
    if len(kinds) != 1:
        raise CheckpointError(
            f"{path} holds {'two language models' if kinds else 'no language model'}, expected one.",
            why=f"Its names should begin with {' or '.join(f'{kind}.' for kind in PLM_KINDS)}, not with both.",
            fix="The file is incomplete or put together from several; get it again.",
            path=path,
        )
    return kinds[0]


def renamed(tensors: Tensors, table: NameTable, path: Path) -> Tensors:
    """Tensors with the names that a table gives them; those that it does not know keep theirs.

    Args:
        tensors: By name.
        table: See `NameTable`.
        path: For messages.

    Raises:
        CheckpointError: Two get the same name.
    """
    result: Tensors = {}
    for name, tensor in tensors.items():
        new = next((p.sub(replacement, name, count=1) for p, replacement in table if p.match(name)), name)
        if new in result:
            raise CheckpointError(
                f"{path} has the tensor {new} twice, under two names.",
                fix="It is put together from several checkpoints; take one of them.",
                path=path,
                tensor=name,
            )
        result[new] = tensor
    return result


def _unknown(tensors: Tensors, path: Path) -> CheckpointError:
    if any(name.endswith("patch_embed.proj.weight") for name in tensors):
        reason = "it is a pre-trained face backbone, without the emotion head, which training begins with"
    else:
        reason = "it has none of the names that would tell"
    return CheckpointError(
        f"{path} is no FacialMMT checkpoint: {reason}.",
        why=f"Its first tensors: {listed(name[:80] for name in list(tensors)[:3])}.",
        fix="Expected multimodal_*.pt, best_swin_*.pt, unimodal_model_V.pt, or a state dict with their names.",
        path=path,
    )
