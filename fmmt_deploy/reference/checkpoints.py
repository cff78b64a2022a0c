"""Reads every kind of checkpoint: published pickles, state dicts, safetensors, published folders, our run folders.

No torch here: pickles are read by `fmmt_deploy.data.pickles`, which runs nothing in them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.errors import CheckpointError, UsageError
from fmmt_deploy.reference.folders import find_plm_dir, published_files
from fmmt_deploy.reference.pickled import facts_of, tensors_of
from fmmt_deploy.reference.plm_settings import CONFIG_NAME, plm_settings_from_folder
from fmmt_deploy.reference.published import parts_of, plm_kind_of
from fmmt_deploy.reference.run_folder import is_run_folder, read_run_folder
from fmmt_deploy.reference.safetensors_file import read_safetensors
from fmmt_deploy.reference.sizes import Facts, sizes_of
from fmmt_deploy.reference.weights import Checkpoint, Tensors, checked_weights, listed, sha256_of

__all__ = ["Checkpoint", "find_plm_dir", "read_checkpoint", "read_checkpoints"]


def read_checkpoints(ckpt: Path, swin_ckpt: Path | None = None, plm_dir: Path | None = None) -> Checkpoint:
    """Reads a model from a checkpoint, or a folder, and the face model's own checkpoint if it is apart.

    Args:
        ckpt: A published pickle, a state dict (`.pt`, `.safetensors`), the published folder, or a run folder of ours.
        swin_ckpt: The face model, where `ckpt` does not hold it.
        plm_dir: The language model's folder; its `config.json` tells what a plain state dict does not. Default: the
            one in or beside `ckpt`.

    Raises:
        CheckpointError: A file can't be read, is no checkpoint of this model, or has NaN in it.
        UsageError: A path does not exist, a part is given twice, or parts don't belong together.
    """
    first = read_checkpoint(ckpt, plm_dir)
    if swin_ckpt is None:
        return first
    second = read_checkpoint(swin_ckpt, plm_dir)
    fix = "Give the multimodal checkpoint as --ckpt, and only the face model as --swin-ckpt."
    if twice := sorted(set(first.parts) & set(second.parts)):
        raise UsageError(f"{ckpt} and {swin_ckpt} both hold {listed(twice)}.", fix=fix)
    if "unimodal" in (*first.parts, *second.parts):
        raise UsageError("A vision-only model has no face model.", fix="Give it as --ckpt, without --swin-ckpt.")
    renamed = {f"swin-ckpt/{n}" if n in first.sha256 else n: digest for n, digest in second.sha256.items()}
    return Checkpoint(
        {**first.parts, **second.parts},
        {**first.sizes, **second.sizes},
        {**first.sha256, **renamed},
        {**first.settings, **second.settings},
    )


def read_checkpoint(path: Path, plm_dir: Path | None = None) -> Checkpoint:
    """Reads one file or folder; see `read_checkpoints`."""
    if not path.exists():
        raise UsageError(f"There is no checkpoint {path}.", fix="Give the path of a file or folder that exists.")
    if not path.is_dir():
        return _read_file(path, plm_dir)
    if is_run_folder(path):
        return read_run_folder(path)
    return read_checkpoints(*published_files(path), plm_dir)


def _read_file(path: Path, plm_dir: Path | None) -> Checkpoint:
    tensors, facts = _contents(path)
    parts = parts_of(tensors, path)
    kind = plm_kind_of(tensors, path) if "plm" in parts else None
    hashes = {path.name: sha256_of(path)}
    if "plm" in parts and facts.plm is None:
        folder = plm_dir or find_plm_dir(path)
        facts = replace(facts, plm=plm_settings_from_folder(folder, path))
        if folder is not None:
            hashes[f"{folder.resolve().name}/{CONFIG_NAME}"] = sha256_of(folder / CONFIG_NAME)
    sizes = {part: sizes_of(part, weights, facts, kind, path) for part, weights in parts.items()}
    return Checkpoint({part: checked_weights(weights, path) for part, weights in parts.items()}, sizes, hashes)


def _contents(path: Path) -> tuple[Tensors, Facts]:
    if path.suffix == ".safetensors":
        return read_safetensors(path), Facts()
    tree = read_pickle(path, CheckpointError)
    return tensors_of(tree, path), facts_of(tree, path)
