"""Every kind of checkpoint we read, and the one we write: safetensors beside a JSON configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from fmmt_deploy.architecture import Architecture, FusionSizes, PlmKind, PlmSizes, SwinSizes, UnimodalSizes
from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.errors import CheckpointError, UsageError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.training.published import PlmSettings, Tensors, attributes_of, parts_of, sizes_of, tensors_of
from fmmt_deploy.types import GraphName

__all__ = ["Checkpoint", "RunConfig", "find_plm_dir", "read_checkpoint", "read_checkpoints"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
FOLDER_PATTERNS = ("multimodal_*.pt", "best_swin_*.pt", "unimodal_model_*.pt")
SCHEMA = "fmmt.checkpoint/1"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The `config.json` beside our own weights."""

    schema: str
    architecture: Architecture
    tau: float
    threshold: float


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one or more parts of a model, in memory or mapped from their files.

    Attributes:
        parts: For each graph the weights it has, with our names.
        sizes: The sizes of each part.
        sha256: Of every file read, by name.
        settings: tau and threshold, where the checkpoint tells.
    """

    parts: Mapping[GraphName, Tensors]
    sizes: Mapping[GraphName, SwinSizes | PlmSizes | FusionSizes | UnimodalSizes]
    sha256: Mapping[str, str]
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """The whole model's sizes.

        Raises:
            CheckpointError: Parts are missing.
        """
        sizes = cast(dict[str, Any], dict(self.sizes))
        if "unimodal" in sizes:
            return Architecture("V", unimodal=sizes["unimodal"])
        if missing := [part for part in ("swin", "plm", "fusion") if part not in sizes]:
            raise CheckpointError(
                f"The checkpoint has {_listed(sizes)}, but not {_listed(missing)}.",
                fix="Give the face model too: --swin-ckpt best_swin_*.pt."
                if missing == ["swin"]
                else "Give the multimodal checkpoint as --ckpt and the face model as --swin-ckpt.",
            )
        return Architecture("T+A+V", swin=sizes["swin"], plm=sizes["plm"], fusion=sizes["fusion"])


def read_checkpoints(ckpt: Path, swin_ckpt: Path | None = None, plm_dir: Path | None = None) -> Checkpoint:
    """Reads a model from a checkpoint, or a folder, and the face model's own checkpoint if it is apart.

    Args:
        ckpt: A published pickle, a state dict (`.pt`, `.safetensors`), the published folder, or a run folder of ours.
        swin_ckpt: The face model, where `ckpt` does not hold it.
        plm_dir: The language model's folder; its `config.json` tells what a plain state dict does not.

    Raises:
        CheckpointError: A file can't be read, is no checkpoint of this model, or has NaN in it.
        UsageError: A path does not exist, or a part is given twice.
    """
    read = [read_checkpoint(path, plm_dir) for path in (ckpt, swin_ckpt) if path is not None]
    merged = read[0]
    for other in read[1:]:
        if twice := sorted(set(merged.parts) & set(other.parts)):
            raise UsageError(
                f"{ckpt} and {swin_ckpt} both hold {_listed(twice)}.",
                fix="Give the multimodal checkpoint as --ckpt, and only the face model as --swin-ckpt.",
            )
        merged = Checkpoint(
            {**merged.parts, **other.parts},
            {**merged.sizes, **other.sizes},
            {**merged.sha256, **other.sha256},
            {**merged.settings, **other.settings},
        )
    return merged


def read_checkpoint(path: Path, plm_dir: Path | None = None) -> Checkpoint:
    """Reads one file or folder; see `read_checkpoints`."""
    if not path.exists():
        raise UsageError(f"There is no checkpoint {path}.", fix="Give the path of a file or folder that exists.")
    if not path.is_dir():
        return _read_file(path, plm_dir or find_plm_dir(path))
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return _read_own(path)
    return _read_folder(path, plm_dir or find_plm_dir(path))


def find_plm_dir(ckpt: Path) -> Path | None:
    """The language model's folder: the checkpoint's own, one in it, or (as published) one beside it."""
    folder = ckpt if ckpt.is_dir() else ckpt.parent
    inside = sorted(p for p in folder.iterdir() if p.is_dir())
    beside = [folder.parent / name for name in _published_plm_names(folder.name)]
    for candidate in (folder, *inside, *beside):
        if any((candidate / name).is_file() for name in TOKENIZER_FILES):
            return candidate
    return None


def _published_plm_names(folder: str) -> tuple[str, ...]:
    kind = folder.lower()
    return tuple(f"{name}-large" for name in ("roberta", "bert") if kind.endswith(f"-{name}"))


def _read_folder(folder: Path, plm_dir: Path | None) -> Checkpoint:
    found: list[Path] = []
    for pattern in FOLDER_PATTERNS:
        matches = sorted(folder.glob(pattern))
        if len(matches) > 1:
            raise UsageError(
                f"{folder} holds {len(matches)} files {pattern}: {_listed([m.name for m in matches])}.",
                fix="Name the one to use with --ckpt (and --swin-ckpt).",
            )
        found += matches
    if not found:
        raise CheckpointError(
            f"{folder} holds no checkpoint.",
            fix=f"Expected {_listed(FOLDER_PATTERNS)}, or our {CONFIG} and {WEIGHTS}.",
            path=folder,
        )
    if found[0].name.startswith("unimodal"):
        return _read_file(found[0], plm_dir)
    return read_checkpoints(found[0], found[1] if len(found) > 1 else None, plm_dir)


def _read_file(path: Path, plm_dir: Path | None) -> Checkpoint:
    numbers: dict[str, int] = {}
    settings: PlmSettings | None = None
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
    else:
        tree = read_pickle(path, CheckpointError)
        tensors = tensors_of(tree, path)
        numbers, settings = attributes_of(tree)
    kind: PlmKind | None = next((k for k in ("roberta", "bert") if f"{k}.{_WORDS}" in tensors), None)
    parts = parts_of(tensors, path)
    if "plm" in parts and settings is None:
        settings = _settings_from_dir(plm_dir)
    try:
        sizes = {part: sizes_of(part, weights, numbers, settings, kind) for part, weights in parts.items()}
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path} lacks a tensor that tells the model's size, or it has another shape: {error}.",
            fix="The file is incomplete or of another model; get it again.",
            path=path,
        ) from error
    checked = {part: _checked(weights, path) for part, weights in parts.items()}
    return Checkpoint(checked, sizes, {path.name: _sha256(path)})


_WORDS = "embeddings.word_embeddings.weight"


def _settings_from_dir(plm_dir: Path | None) -> PlmSettings | None:
    if plm_dir is None or not (config := plm_dir / "config.json").is_file():
        return None
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        settings = PlmSettings(
            int(values["num_attention_heads"]), float(values["layer_norm_eps"]), str(values.get("hidden_act", "gelu"))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{config} is not a language model's configuration: {error!r}.",
            fix="Give the folder the model was trained from, with its own config.json.",
            path=config,
        ) from error
    if settings.hidden_act != "gelu":
        raise CheckpointError(f"{config} asks for the activation {settings.hidden_act}, expected gelu.", path=config)
    return settings


def _read_own(folder: Path) -> Checkpoint:
    config, weights = folder / CONFIG, folder / WEIGHTS
    try:
        values = json_object_from_text(config.read_text(encoding="utf-8"))
        run = dataclass_from_json(RunConfig, values)
    except (JsonValueError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{config} is not a run's configuration: {error}.", fix="Save the run again.", path=config
        ) from error
    if run.schema != SCHEMA:
        raise CheckpointError(f"{config} has schema {run.schema}, expected {SCHEMA}.", fix="Save the run again.")
    parts: dict[GraphName, Tensors] = {}
    for name, tensor in _safetensors(weights).items():
        part, _, rest = name.partition(".")
        parts.setdefault(cast(GraphName, part), {})[rest] = tensor
    architecture = asdict(run.architecture)
    sizes = {p: getattr(run.architecture, p) for p in parts if architecture.get(p) is not None}
    checked = {part: _checked(tensors, weights) for part, tensors in parts.items()}
    hashes = {path.name: _sha256(path) for path in (config, weights)}
    return Checkpoint(checked, sizes, hashes, {"tau": run.tau, "threshold": run.threshold})


def _safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {error}.",
            fix="It is truncated or corrupt, or holds bfloat16: get it again, or save it as float32.",
            path=path,
        ) from error


def _checked(tensors: Tensors, path: Path) -> Tensors:
    """Float tensors as float32, without NaN or infinities."""
    checked: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise CheckpointError(
                f"{path}: {name} holds {tensor.dtype}, expected floating point numbers.", path=path, tensor=name
            )
        checked[name] = tensor if tensor.dtype == np.float32 else tensor.astype(np.float32)
        if not np.isfinite(checked[name]).all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite values.",
                why="A model with such weights answers nothing but NaN.",
                fix="Take an earlier checkpoint of that training.",
                path=path,
                tensor=name,
            )
    return checked


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names)
