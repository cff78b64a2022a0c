"""What is where in the folders people keep checkpoints in: the published one, and the language model's beside it."""

from __future__ import annotations

from pathlib import Path

from fmmt_deploy.errors import CheckpointError, UsageError
from fmmt_deploy.reference.run_folder import CONFIG, WEIGHTS, is_run_folder
from fmmt_deploy.reference.weights import listed

__all__ = ["BEST", "find_plm_dir", "published_files"]

MULTIMODAL, FACES, VISION_ONLY = "multimodal_*.pt", "best_swin_*.pt", "unimodal_model_*.pt"
"""As the published files are named."""

BEST = "best"
"""The run folder of the best epoch, in the folder of a training."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""By any of these a language model's folder is known."""


def find_plm_dir(ckpt: Path) -> Path | None:
    """The language model's folder: the checkpoint's own, one in it, or (as published) one beside it.

    Raises:
        UsageError: There are several in it.
    """
    folder = ckpt if ckpt.is_dir() else ckpt.parent
    if _has_tokenizer(folder):
        return folder
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _has_tokenizer(path)]
    if len(inside) > 1:
        raise UsageError(
            f"{folder} holds {len(inside)} language models: {listed(path.name for path in inside)}.",
            fix="Name the one to use: --plm-dir DIR.",
        )
    beside = [folder.resolve().parent / name for name in _published_plm_names(folder.resolve().name)]
    return next((path for path in (*inside, *beside) if _has_tokenizer(path)), None)


def published_files(folder: Path) -> tuple[Path, Path | None]:
    """The main checkpoint in a published folder, and the face model beside it, if it is there.

    Raises:
        CheckpointError: There is none.
        UsageError: There are several.
    """
    found = {pattern: sorted(folder.glob(pattern)) for pattern in (MULTIMODAL, FACES, VISION_ONLY)}
    if not any(found.values()):
        if is_run_folder(best := folder / BEST):
            what = f"{folder} is a training's folder; its checkpoint is in {BEST}."
            raise CheckpointError(what, fix=f"Give {best}.", path=folder)
        raise CheckpointError(
            f"{folder} holds no checkpoint.",
            fix=f"Expected {listed(found)}, or {CONFIG} and {WEIGHTS} as a run of ours has them.",
            path=folder,
        )
    multimodal, faces, vision_only = found.values()
    main = [*multimodal, *vision_only] or faces
    if len(main) > 1 or len(faces) > 1 or (vision_only and faces):
        raise UsageError(
            f"{folder} holds several checkpoints: {listed(p.name for paths in found.values() for p in paths)}.",
            fix="Name the one to use with --ckpt, and its face model with --swin-ckpt.",
        )
    return main[0], faces[0] if faces and main != faces else None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _published_plm_names(folder: str) -> tuple[str, ...]:
    """`FacialMMT-RoBERTa` lies beside `roberta-large`."""
    return tuple(f"{kind}-large" for kind in ("roberta", "bert") if folder.lower().endswith(f"-{kind}"))
