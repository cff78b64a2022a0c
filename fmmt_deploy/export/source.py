"""What is exported: a reference model with its tokenizer, read from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["DEFAULTS", "Source", "random_source", "read_source"]

DEFAULTS = {"tau": 1.0, "threshold": 0.2}
"""As published; a pickled checkpoint does not tell them."""


@dataclass(frozen=True)
class Source:
    """A model to export.

    Attributes:
        model: The reference.
        tokenizer: Content of its `tokenizer.json`; None if it reads no text.
        sha256: Of every file it was read from, by name.
    """

    model: ReferenceModel
    tokenizer: str | None
    sha256: Mapping[str, str]


def random_source(preset: Literal["full", "tiny"]) -> Source:
    """A model with random weights and without a tokenizer, to measure with.

    Raises:
        EnvironmentProblem: PyTorch and what goes with it are missing.
    """
    try:
        from fmmt_deploy.reference.presets import PRESETS, random_model

        model = random_model(PRESETS[preset])
    except ImportError as error:
        raise _missing(error) from error
    return Source(model, None, {f"random-{preset}": "0" * 64})


def read_source(
    ckpt: Path, swin_ckpt: Path | None, plm_dir: Path | None, tau: float | None, threshold: float | None
) -> Source:
    """Reads a model and its tokenizer.

    Args:
        ckpt: See `fmmt_deploy.reference.checkpoints.read_checkpoints`.
        swin_ckpt: See there.
        plm_dir: The language model's folder; default one in or beside `ckpt`.
        tau: Temperature; default the checkpoint's own, or 1.0.
        threshold: Default the checkpoint's own, or 0.2.

    Raises:
        EnvironmentProblem: PyTorch and what goes with it are missing.
        CheckpointError: The checkpoint can't be read.
        UsageError: Paths or numbers make no sense, or the tokenizer is not found.
        DataError: The tokenizer's files are not what they should be.
    """
    try:
        from fmmt_deploy.reference.checkpoints import find_plm_dir, read_checkpoints
        from fmmt_deploy.reference.loading import model_from_checkpoint
    except ImportError as error:
        raise _missing(error) from error
    checkpoint = read_checkpoints(ckpt, swin_ckpt, plm_dir)
    settings = {**DEFAULTS, **checkpoint.settings}
    settings |= {name: value for name, value in (("tau", tau), ("threshold", threshold)) if value is not None}
    _check(settings)
    tokenizer = _tokenizer(checkpoint.architecture, plm_dir or find_plm_dir(ckpt), ckpt)
    return Source(model_from_checkpoint(checkpoint, **settings), tokenizer, checkpoint.sha256)


def _missing(error: ImportError) -> EnvironmentProblem:
    return EnvironmentProblem(
        "Making a PyTorch model needs packages that are not installed.",
        why=str(error),
        fix="pip install 'fmmt-deploy[torch,cpu]'.",
    )


def _check(settings: Mapping[str, float]) -> None:
    if not 0 < settings["tau"] < float("inf"):
        raise UsageError(f"--tau should be above 0, found {settings['tau']}.", fix="The published value is 1.0.")
    if not 0 <= settings["threshold"] <= 1:
        raise UsageError(
            f"--threshold should be from 0 to 1, found {settings['threshold']}.", fix="The published value is 0.2."
        )


def _tokenizer(architecture: Architecture, plm_dir: Path | None, ckpt: Path) -> str | None:
    if architecture.plm is None:
        return None
    if plm_dir is None:
        raise UsageError(
            f"There is no tokenizer in or beside {ckpt}.",
            fix="Give the language model's folder: --plm-dir DIR (vocab.json and merges.txt, or vocab.txt).",
        )
    return tokenizer_json(plm_dir, architecture.plm.kind)
