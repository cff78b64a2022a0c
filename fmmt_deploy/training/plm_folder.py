"""Reads a published language model's folder: `config.json`, tokenizer files, and weights if it has them.

Weights are `model.safetensors` or `pytorch_model.bin`, whole or in shards with an index, with the names of the bare
model or of one with a head (`roberta.…`, `bert.…`), and with LayerNorm's `gamma` and `beta` of old BERT files. No torch
here, and nothing in a pickle is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from fmmt_deploy.architecture import PlmKind, PlmSizes, size_problem
from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text
from fmmt_deploy.reference.pickled import tensors_of
from fmmt_deploy.reference.plm_settings import CONFIG_NAME, PlmSettings, plm_settings_from_config
from fmmt_deploy.reference.published import UNUSED, WRAPPER_NAMES, NameTable, renamed
from fmmt_deploy.reference.safetensors_file import read_safetensors
from fmmt_deploy.reference.sizes import MAX_TOKENS, ROBERTA_EXTRA_POSITIONS, Facts, sizes_of
from fmmt_deploy.reference.weights import Tensors, checked_weights, listed, sha256_of

__all__ = ["WEIGHT_FILES", "PlmFolder", "read_plm_folder"]

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The first that is there is read."""

NAMES: NameTable = ((re.compile(r"(roberta|bert)\."), ""),)
OLD_NAMES: NameTable = (
    (re.compile(r"(.*LayerNorm)\.gamma$"), r"\1.weight"),
    (re.compile(r"(.*LayerNorm)\.beta$"), r"\1.bias"),
)
BODY = ("embeddings.", "encoder.")
"""What is used; all else is a head of the task it was pre-trained for."""

_FIX = "Get the folder again from its publisher, with the tokenizer's files and config.json beside the weights."


@dataclass(frozen=True)
class PlmFolder:
    """A language model to begin with.

    Attributes:
        sizes: As its weights, or without them its configuration, tell.
        tokenizer: Content of its `tokenizer.json`.
        tensors: `embeddings.…` and `encoder.…`; None if the folder has no weights.
        sha256: Of the files read, by name.
        notes: What in it was not used.
    """

    sizes: PlmSizes
    tokenizer: str
    tensors: Tensors | None
    sha256: dict[str, str]
    notes: tuple[str, ...]


def read_plm_folder(folder: Path, kind: PlmKind) -> PlmFolder:
    """Reads the folder.

    Args:
        folder: It.
        kind: Which language model the settings ask for.

    Raises:
        CheckpointError: A file is missing or damaged, they contradict each other, or it is another language model.
        DataError: The tokenizer's files are missing or damaged.
    """
    config = folder / CONFIG_NAME
    values = _json(config)
    _check_kind(values.get("model_type", kind), kind, config)
    settings = plm_settings_from_config(values, config)
    weights = next((path for name in WEIGHT_FILES if (path := folder / name).is_file()), None)
    tokenizer, hashes = tokenizer_json(folder, kind), {CONFIG_NAME: sha256_of(config)}
    tensors: Tensors | None = None
    notes: tuple[str, ...] = ()
    if weights is None:
        sizes = _sizes_of_config(values, settings, kind, config)
    else:
        tensors, read, notes = _weights(weights)
        sizes = _sizes_of_tensors(tensors, settings, kind, weights)
        hashes |= {file.name: sha256_of(file) for file in read}
    _check_vocabulary(tokenizer, sizes, folder)
    name = folder.resolve().name
    return PlmFolder(sizes, tokenizer, tensors, {f"{name}/{file}": digest for file, digest in hashes.items()}, notes)


def _json(path: Path) -> dict[str, object]:
    try:
        return json_object_from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.", fix=_FIX, path=path) from error
    except (OSError, JsonValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} can't be read: {error}.", fix=_FIX, path=path) from error


def _check_kind(found: object, kind: PlmKind, config: Path) -> None:
    if found != kind:
        raise CheckpointError(
            f"{config} is of a language model of type {str(found)[:60]!r}, the settings ask for {kind!r}.",
            fix=f"Add --set model.plm={found}, or give another folder as --plm-dir."
            if found in ("roberta", "bert")
            else "Give a RoBERTa's or a BERT's folder as --plm-dir.",
            path=config,
        )


def _sizes_of_config(values: dict[str, object], settings: PlmSettings, kind: PlmKind, config: Path) -> PlmSizes:
    def size(name: str) -> int:
        value = values.get(name)
        if type(value) is not int:
            raise CheckpointError(f"{config}: {name} should be a whole number, found {str(value)[:40]}.", path=config)
        return value

    sizes = PlmSizes(
        kind=kind,
        vocab_size=size("vocab_size"),
        hidden_size=size("hidden_size"),
        layers=size("num_hidden_layers"),
        heads=settings.heads,
        intermediate_size=size("intermediate_size"),
        max_tokens=size("max_position_embeddings") - (ROBERTA_EXTRA_POSITIONS if kind == "roberta" else 0),
        layer_norm_eps=settings.layer_norm_eps,
        type_vocab_size=size("type_vocab_size"),
    )
    if (problem := size_problem(sizes)) is not None:
        raise CheckpointError(
            f"{config}: {problem.field} should be {problem.expected}, found {problem.found}.", path=config
        )
    if sizes.max_tokens > MAX_TOKENS:
        raise CheckpointError(
            f"{config}: the language model has {sizes.max_tokens} positions, expected at most {MAX_TOKENS}.",
            fix="Use a RoBERTa or BERT of the published kind.",
            path=config,
        )
    return sizes


def _sizes_of_tensors(tensors: Tensors, settings: PlmSettings, kind: PlmKind, path: Path) -> PlmSizes:
    ours = {f"plm.{name}": tensor for name, tensor in tensors.items()}
    sizes = sizes_of("plm", ours, Facts(plm=settings), kind, path)
    assert isinstance(sizes, PlmSizes)
    return sizes


def _weights(path: Path) -> tuple[Tensors, list[Path], tuple[str, ...]]:
    """Weights of the body, the files that were read for them, and what was left out."""
    files = _shards(path) if path.suffix == ".json" else [path]
    contents: Tensors = {}
    for file in files:
        found = read_safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        if twice := sorted(contents.keys() & found.keys()):
            raise CheckpointError(f"{path} has the tensor {twice[0]} in two shards.", fix=_FIX, path=path)
        contents |= found
    tensors = contents
    for table in (WRAPPER_NAMES, NAMES, OLD_NAMES):
        tensors = renamed(tensors, table, path)
    used = {n: t for n, t in tensors.items() if n.startswith(BODY) and not UNUSED.fullmatch(n)}
    if not used:
        raise CheckpointError(
            f"{path} holds no RoBERTa or BERT: no tensor's name begins with {listed(BODY)}.",
            why=f"It begins with {listed(name[:60] for name in list(tensors)[:3])}.",
            fix=_FIX,
            path=path,
        )
    heads = sorted(name for name in tensors if not name.startswith(BODY))
    notes = (f"{path.name}: heads are not used: {_some(heads)}",) if heads else ()
    return checked_weights(used, path), [path, *files], notes


def _pickled(path: Path) -> Tensors:
    return tensors_of(read_pickle(path, CheckpointError), path)


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all in its own folder."""
    where = _json(index).get("weight_map")
    names = sorted(set(map(str, where.values()))) if isinstance(where, dict) else []
    suffix: Literal[".safetensors", ".bin"] = ".safetensors" if ".safetensors" in index.name else ".bin"
    for name in names:
        if Path(name).name != name or not name.endswith(suffix) or not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index} names {name[:80]!r}, which is no {suffix} file beside it.", fix=_FIX, path=index
            )
    if not names:
        raise CheckpointError(f"{index} names no files.", fix=_FIX, path=index)
    return [index.parent / name for name in names]


def _check_vocabulary(tokenizer: str, sizes: PlmSizes, folder: Path) -> None:
    largest = max(Tokenizer.from_str(tokenizer).get_vocab().values(), default=0)
    if largest >= sizes.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has token {largest}, the language model only {sizes.vocab_size} tokens.",
            why="They are of two different language models.",
            fix=_FIX,
            path=folder,
        )


def _some(names: list[str]) -> str:
    return listed(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
