"""Reads what the Swin begins with: `Swin_tiny_Ms-Celeb-1M.pt`, a Swin-T that was trained to tell people apart.

A dict with the key `state_dict`, in which names begin with `backbone.`; or a safetensors file with the same names. No
torch here, and nothing in a pickle is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmmt_deploy.architecture import SwinSizes
from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.pickled import tensors_of
from fmmt_deploy.reference.published import FACE_NAMES, UNUSED, WRAPPER_NAMES, NameTable, renamed
from fmmt_deploy.reference.safetensors_file import read_safetensors
from fmmt_deploy.reference.sizes import Facts, sizes_of
from fmmt_deploy.reference.weights import Tensors, checked_weights, listed, sha256_of

__all__ = ["FaceBackbone", "read_face_backbone"]

NAMES: NameTable = ((re.compile(r"backbone\."), "swin."),)
"""Pre-trained → published."""


@dataclass(frozen=True)
class FaceBackbone:
    """Weights of the Swin without its emotion head.

    Attributes:
        tensors: `backbone.…` and `output_layer.…`, with the reference model's names.
        sha256: Of the file, by name.
        notes: What in it was not used.
    """

    tensors: Tensors
    sha256: dict[str, str]
    notes: tuple[str, ...]


def read_face_backbone(path: Path, sizes: SwinSizes) -> FaceBackbone:
    """Reads the file.

    Args:
        path: It.
        sizes: What the model is to have.

    Raises:
        CheckpointError: It can't be read, is something else, or has other sizes.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.", fix="Give --swin-weights the file itself.", path=path)
    contents = (
        read_safetensors(path)
        if path.suffix == ".safetensors"
        else tensors_of(read_pickle(path, CheckpointError), path)
    )
    tensors = renamed(contents, WRAPPER_NAMES, path)
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    if "backbone.patch_embed.proj.weight" not in inside:
        raise CheckpointError(
            f"{path} holds no pre-trained Swin: expected backbone.patch_embed.proj.weight among its tensors.",
            why=f"It begins with {listed(name[:60] for name in list(tensors)[:3])}.",
            fix="Give Swin_tiny_Ms-Celeb-1M.pt as --swin-weights, or a safetensors file with its names.",
            path=path,
        )
    others = [name for name in tensors if name not in inside]
    used = renamed(renamed(inside, NAMES, path), FACE_NAMES, path)
    used = checked_weights({name: tensor for name, tensor in used.items() if not UNUSED.fullmatch(name)}, path)
    _check_sizes(used, sizes, path)
    notes = (f"{path.name}: {len(others)} tensors of another head are not used, such as {others[0]}",) if others else ()
    return FaceBackbone(used, {path.name: sha256_of(path)}, notes)


def _check_sizes(tensors: Tensors, sizes: SwinSizes, path: Path) -> None:
    head = np.broadcast_to(np.float32(0), (sizes.linear_size, sizes.feature_size))  # starts fresh, so is not in it
    found = sizes_of("swin", {**tensors, "linear.weight": head}, Facts(), None, path)
    if found != sizes:
        raise CheckpointError(
            f"{path} has another Swin than the settings: {found}, expected {sizes}.",
            fix="Set model.swin.* to its sizes, or train this Swin --from-scratch without --swin-weights.",
            path=path,
        )
