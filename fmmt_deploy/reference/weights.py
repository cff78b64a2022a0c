"""What a checkpoint gives: named float32 tensors and sizes of one or more parts of the model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.architecture import Architecture, Context, PartSizes
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.types import GraphName

__all__ = ["Checkpoint", "Tensors", "checked_weights", "listed", "sha256_of"]

Tensors: TypeAlias = dict[str, NDArray[Any]]

MAX_PARAMETERS = 1 << 32
"""Ten times the published model; more can only come from tensors that repeat a few numbers."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one or more parts of a model, in memory or mapped from their files.

    Attributes:
        parts: For each graph the weights it has, with our names.
        sizes: The sizes of each part.
        sha256: Of every file read, by name.
        settings: tau and threshold, where the checkpoint tells.
        context: Which turns its utterances are read with.
    """

    parts: Mapping[GraphName, Tensors]
    sizes: Mapping[GraphName, PartSizes]
    sha256: Mapping[str, str]
    settings: Mapping[str, float] = field(default_factory=dict)
    context: Context = "dialogue"

    @property
    def architecture(self) -> Architecture:
        """The whole model's sizes.

        Raises:
            CheckpointError: Parts are missing.
        """
        sizes = cast(dict[str, Any], dict(self.sizes))
        if sizes.keys() == {"unimodal"}:
            return Architecture("V", unimodal=sizes["unimodal"])
        if missing := [part for part in ("swin", "plm", "fusion") if part not in sizes]:
            raise CheckpointError(
                f"The checkpoint has {listed(sizes)}, but not {listed(missing)}.",
                fix="Give the face model too: --swin-ckpt best_swin_*.pt."
                if missing == ["swin"]
                else "Give the multimodal checkpoint as --ckpt and the face model as --swin-ckpt.",
            )
        return Architecture("T+A+V", swin=sizes["swin"], plm=sizes["plm"], fusion=sizes["fusion"], context=self.context)


def checked_weights(tensors: Tensors, path: Path) -> Tensors:
    """Any floating point weights as float32, without NaN or infinities; tensors that repeat numbers still do.

    Raises:
        CheckpointError: There are other numbers in them, or absurdly many.
    """
    if (count := sum(math.prod(tensor.shape) for tensor in tensors.values())) > MAX_PARAMETERS:
        raise CheckpointError(f"{path} claims to have {count} parameters, no model of this kind does.", path=path)
    return {name: _checked(tensor, name, path) for name, tensor in tensors.items()}


def _checked(tensor: NDArray[Any], name: str, path: Path) -> NDArray[np.float32]:
    if tensor.dtype.kind != "f":
        raise CheckpointError(
            f"{path}: {name} holds {tensor.dtype}, expected floating point numbers.",
            fix="Save the model's weights unquantised, as float32, float16 or bfloat16.",
            path=path,
            tensor=name,
        )
    # Where a stride is 0, one element stands for all: a gigabyte that takes no memory must not begin to.
    own = tensor[tuple(slice(1) if step == 0 else slice(None) for step in tensor.strides)]
    with np.errstate(over="ignore"):
        values = own.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{path}: {name} holds NaN or infinite values.",
            why="A model with such weights answers nothing but NaN.",
            fix="Take an earlier checkpoint of that training.",
            path=path,
            tensor=name,
        )
    return np.broadcast_to(values, tensor.shape)


def sha256_of(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(names: Iterable[object]) -> str:
    """Names for a message."""
    return ", ".join(map(str, names))
