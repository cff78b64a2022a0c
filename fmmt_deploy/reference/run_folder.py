"""A run folder, our own form of checkpoint: `model.safetensors`, `config.json`, and `tokenizer.json` if it reads text.

`fmmt_deploy.reference.loading.save_checkpoint` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.architecture import Architecture, PartSizes
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.reference.plm_settings import PlmSettings
from fmmt_deploy.reference.safetensors_file import read_safetensors
from fmmt_deploy.reference.sizes import Facts, sizes_of
from fmmt_deploy.reference.weights import Checkpoint, Tensors, checked_weights, listed, sha256_of
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = ["CONFIG", "SCHEMA", "TOKENIZER", "WEIGHTS", "RunConfig", "is_run_folder", "read_run_folder"]

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
SCHEMA = "fmmt.checkpoint/1"

PARTS: dict[str, tuple[GraphName, ...]] = {"T+A+V": ("swin", "plm", "fusion"), "V": ("unimodal",)}
_FIX = "Save the run again."


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The `config.json` of a run.

    Attributes:
        schema: `SCHEMA`.
        architecture: The model's kind and sizes.
        tau: Temperature of the face probabilities, above 0.
        threshold: Confidence a face must exceed, 0 to 1.
    """

    schema: str
    architecture: Architecture
    tau: float
    threshold: float


def is_run_folder(folder: Path) -> bool:
    """Whether it has the files of one."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_run_folder(folder: Path) -> Checkpoint:
    """Reads a run, and checks that its configuration and its tensors tell the same sizes.

    Raises:
        CheckpointError: A file can't be read, or they don't fit together.
    """
    config, weights = folder / CONFIG, folder / WEIGHTS
    run = _config(config)
    parts = _parts(read_safetensors(weights), run.architecture, weights)
    sizes: dict[GraphName, PartSizes] = {part: getattr(run.architecture, part) for part in parts}
    for part, tensors in parts.items():
        _check_sizes(part, sizes[part], tensors, config)
    checked = {part: checked_weights(tensors, weights) for part, tensors in parts.items()}
    hashes = {path.name: sha256_of(path) for path in (config, weights)}
    return Checkpoint(checked, sizes, hashes, {"tau": run.tau, "threshold": run.threshold}, run.architecture.context)


def _config(path: Path) -> RunConfig:
    try:
        values = json_object_from_text(path.read_text(encoding="utf-8"))
        if (schema := values.get("schema")) != SCHEMA:
            raise _other_schema(path, schema)
        run = dataclass_from_json(RunConfig, values)
        _check(run)
    except (JsonValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a run's configuration: {error}.", fix=_FIX, path=path) from error
    return run


def _other_schema(path: Path, schema: object) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a run's configuration of ours: expected the schema {SCHEMA}, found {ascii(schema)[:60]}.",
        why="A language model's own folder has a config.json too, and is no checkpoint." if schema is None else "",
        fix="Give a language model's folder as --plm-dir." if schema is None else _FIX,
        path=path,
    )


def _check(run: RunConfig) -> None:
    if not 0 < run.tau <= 1e6:
        raise JsonValueError("tau", "above 0 and at most 1000000", str(run.tau))
    if not 0 <= run.threshold <= 1:
        raise JsonValueError("threshold", "between 0 and 1", str(run.threshold))
    wanted = PARTS[run.architecture.modality]
    present = [part for part in GRAPHS if getattr(run.architecture, part) is not None]
    if set(present) != set(wanted):
        raise JsonValueError("architecture", f"of {listed(wanted)}", listed(present) or "nothing")


def _parts(tensors: Tensors, architecture: Architecture, path: Path) -> dict[GraphName, Tensors]:
    """Cuts the first word off each name: it says which part the tensor belongs to."""
    parts: dict[GraphName, Tensors] = {part: {} for part in PARTS[architecture.modality]}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CheckpointError(
                f"{path} has the unknown tensor {name[:80]}; its model has {listed(parts)}.",
                fix=_FIX,
                path=path,
                tensor=name,
            )
        parts[part][rest] = tensor
    return parts


def _check_sizes(part: GraphName, said: PartSizes, tensors: Tensors, config: Path) -> None:
    found = sizes_of(part, tensors, _facts(said, config), getattr(said, "kind", None), config.parent / WEIGHTS)
    if found != said:
        raise CheckpointError(
            f"{config} says {part} has {said}, but the tensors have {found}.",
            why="They are from two different runs, or one of them is damaged.",
            fix=_FIX,
            path=config,
        )


def _facts(sizes: PartSizes, config: Path) -> Facts:
    """What is taken from the configuration because tensors don't tell it."""
    heads, eps = getattr(sizes, "heads", 0), getattr(sizes, "layer_norm_eps", None)
    plm = None if eps is None else PlmSettings(str(config), heads, eps, {})
    return Facts(heads=heads, text_length=getattr(sizes, "text_length", 0), plm=plm)
