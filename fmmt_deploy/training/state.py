"""What a training is resumed from: `state/` of its run, written whole or not at all, and read with its hashes checked.

`state.json` says how far it is, of which settings and data it is, and what the other two files' hashes are:
`model.safetensors` (weights and statistics) and `moments.safetensors` (the optimisers'). There is no random state in
it: all randomness is a function of the seed and the place (see `draws`). Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmmt_deploy.bundle.atomic import locked, recover
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.swapping import swapped
from fmmt_deploy.errors import ArtefactError, EnvironmentProblem, UsageError
from fmmt_deploy.evaluation.evaluation import Evaluation
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json, json_object_from_text
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.watching import Phase

__all__ = [
    "FOLDER",
    "Identity",
    "Progress",
    "Scaling",
    "State",
    "check_same",
    "read_progress",
    "read_state",
    "write_state",
]

FOLDER = "state"
"""In the folder of the run."""

MANIFEST, MODEL, MOMENTS = "state.json", "model.safetensors", "moments.safetensors"
SCHEMA = "fmmt.training-state/1"

_FREE = {"run.workers", "run.face_cache_gib", "run.save_minutes"}
"""Settings that change nothing of what is learnt."""

_FIX = "Copy the run again, or remove its folder `state` and begin anew."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: In which it is, from 1.
        phase: In which phase of it.
        step: Steps of that phase that are done.
        faces_steps: Steps of that kind since the training began.
        target_steps: Likewise.
        faces_loss: Sum of this epoch's steps' losses.
        target_loss: Likewise.
        best_epoch: The best so far; 0 before there is one.
        best: Of the best epoch, on the validation split.
        without_gain: Epochs since then.
        finished: There is nothing more to do.
        stopped_early: It is finished before its last epoch.
    """

    epoch: int = 1
    phase: Phase = "faces"
    step: int = 0
    faces_steps: int = 0
    target_steps: int = 0
    faces_loss: float = 0.0
    target_loss: float = 0.0
    best_epoch: int = 0
    best: Evaluation | None = None
    without_gain: int = 0
    finished: bool = False
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What a training is of: a state is resumed by the same one only.

    Attributes:
        settings: All of them.
        data: Fingerprints of each data set, and of what else must be the same, by name.
        processes: How many train together.
        torch: PyTorch's version.
    """

    settings: Settings
    data: Mapping[str, str]
    processes: int
    torch: str


@dataclass(frozen=True, slots=True)
class Scaling:
    """FP16's scaler of gradients, by PyTorch's names; `growth_tracker` counts steps since the scale changed."""

    scale: float
    growth_factor: float
    backoff_factor: float
    growth_interval: int
    growth_tracker: int


@dataclass(frozen=True, slots=True)
class State:
    """All that is needed to go on.

    Attributes:
        progress: How far it is.
        identity: What it is of.
        model: By name.
        moments: By phase, parameter and kind, as `target/fusion.classifier.bias/exp_avg`.
        scaler: Of the gradients' scaler, where there is one.
    """

    progress: Progress
    identity: Identity
    model: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    scaler: Scaling | None = None


@dataclass(frozen=True, slots=True)
class _Manifest:
    schema: str
    progress: Progress
    identity: Identity
    scaler: Scaling | None
    files: Mapping[str, str]


def read_progress(folder: Path) -> Progress | None:
    """How far the training in a run's folder is; None where none was begun.

    Raises:
        ArtefactError: Its state is damaged.
    """
    manifest = _read_manifest(folder)
    return None if manifest is None else manifest.progress


def read_state(folder: Path) -> State | None:
    """The state in a run's folder, with no tensors where it is finished; None where there is none.

    Raises:
        ArtefactError: It is damaged.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        return None
    directory = folder / FOLDER
    model, moments = (
        _read_tensors(directory / name, manifest.files[name]) if name in manifest.files else {}
        for name in (MODEL, MOMENTS)
    )
    return State(manifest.progress, manifest.identity, model, moments, manifest.scaler)


def write_state(folder: Path, state: State) -> None:
    """Replaces the state in a run's folder; a kill at any instant leaves the one before, or this one.

    Raises:
        EnvironmentProblem: It can't be written, as on a full disk; the one before is as it was.
    """
    with swapped(folder / FOLDER) as directory:
        files = {}
        for name, tensors in ((MODEL, state.model), (MOMENTS, state.moments)):
            if tensors:
                _write_tensors(tensors, directory / name)
                files[name] = hash_file(directory / name)
        manifest = _Manifest(SCHEMA, state.progress, state.identity, state.scaler, files)
        text = json.dumps(asdict(manifest), indent=1, allow_nan=False)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def check_same(before: Identity, now: Identity) -> tuple[str, ...]:
    """Compares what a state is of with what is to be resumed.

    Returns:
        What differs and may, as sentences.

    Raises:
        UsageError: Settings or data differ.
    """
    old, new = _flat(asdict(before.settings)), _flat(asdict(now.settings))
    changed = [
        f"{name} was {old[name]}, is {new[name]}" for name in new if name not in _FREE and old[name] != new[name]
    ]
    if before.data != now.data:
        changed += [
            f"the data of {name} differ" for name in sorted({*before.data, *now.data}) if _differs(name, before, now)
        ]
    if changed:
        raise UsageError(
            "The run was begun with other settings or data, and can't be resumed with these.",
            why="; ".join(changed) + ".",
            fix="Give the same again, or begin a new run.",
        )
    notes = []
    if before.processes != now.processes:
        notes.append(f"It had {before.processes} processes, now {now.processes}: dropout draws other numbers.")
    if before.torch != now.torch:
        notes.append(f"It began with PyTorch {before.torch}, and goes on with {now.torch}: last digits may differ.")
    return tuple(notes)


def _differs(name: str, before: Identity, now: Identity) -> bool:
    return before.data.get(name) != now.data.get(name)


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _read_manifest(folder: Path) -> _Manifest | None:
    path = folder / FOLDER / MANIFEST
    if not folder.is_dir():
        return None
    with locked(folder):
        recover(folder / FOLDER)
    if not path.is_file():
        return None
    try:
        values = json_object_from_text(path.read_text(encoding="utf-8"))
        if values.get("schema") != SCHEMA:
            raise JsonValueError("schema", SCHEMA, ascii(values.get("schema"))[:60])
        return dataclass_from_json(_Manifest, values)
    except (JsonValueError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} is not a training's state: {error}.", fix=_FIX, path=path) from error


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        if (found := hash_file(path)) != digest:
            raise ArtefactError(
                f"{path} was altered: expected SHA-256 {digest[:16]}…, found {found[:16]}….", fix=_FIX, path=path
            )
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path} can't be read: {error}.", fix=_FIX, path=path) from error


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # which is also what it makes of a full disk
        raise EnvironmentProblem(
            f"{path} can't be written.", why=str(error), fix="Free some space.", path=path
        ) from error
