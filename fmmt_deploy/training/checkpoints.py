"""What a training leaves behind while it runs: the best model, and what it is resumed from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from fmmt_deploy.bundle.swapping import swapped
from fmmt_deploy.errors import ArtefactError, EnvironmentProblem
from fmmt_deploy.reference.folders import BEST
from fmmt_deploy.reference.loading import save_checkpoint
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.devices import Devices
from fmmt_deploy.training.optimisation import Optimiser
from fmmt_deploy.training.state import FOLDER, Identity, Progress, Scaling, State, write_state
from fmmt_deploy.training.watching import Phase

__all__ = ["BEST", "Checkpoints"]

SHOWN = 200
"""Characters of a list of tensors, which may be of all of a model."""

_TRACKER = "_growth_tracker"
"""PyTorch's name in a scaler's state."""


class Checkpoints:
    """Writes and reads a training's files, in the main process alone: the others have the same weights and moments.

    Args:
        folder: Of the run.
        model: That is trained.
        tokenizer: Content of its `tokenizer.json`, where it reads text.
        optimisers: By phase.
        devices: This process's.
        identity: What the training is of.
    """

    def __init__(
        self,
        folder: Path,
        model: ReferenceModel,
        tokenizer: str | None,
        optimisers: Mapping[Phase, Optimiser],
        devices: Devices,
        identity: Identity,
    ) -> None:
        self._folder, self._model, self._tokenizer = folder, model, tokenizer
        self._optimisers, self._devices, self._identity = optimisers, devices, identity
        self._saved: Progress | None = None
        self._saved_at = time.monotonic()

    def save_if_due(self, progress: Progress) -> None:
        """Writes the state where `run.save_minutes` have passed since the last time."""
        if time.monotonic() - self._saved_at >= self._identity.settings.run.save_minutes * 60:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Writes the state, but if it is the last one written.

        Raises:
            EnvironmentProblem: It can't be written; the one before is as it was.
        """
        if self._devices.main and progress != self._saved:
            with _said_of(self._folder / FOLDER):
                write_state(self._folder, self._state(progress))
            self._saved = progress
        self._saved_at = time.monotonic()

    def save_best(self) -> None:
        """Writes the model in the place of the best one.

        Raises:
            EnvironmentProblem: It can't be written; the one before is as it was.
        """
        if self._devices.main:
            target = self._folder / BEST
            with _said_of(target), swapped(target) as folder:
                save_checkpoint(self._model, folder, self._tokenizer)

    def restore(self, state: State) -> None:
        """Puts a state back into the model and the optimisers, each number where it was.

        Raises:
            ArtefactError: It is of another model.
        """
        try:
            self._model.load_state_dict(dict(state.model))  # copies, so that nothing holds on to the files
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()[:SHOWN]
            raise ArtefactError("The state is of another model.", why=why, fix="Begin a new run.") from error
        for phase, optimiser in self._optimisers.items():
            found = {number: _moments_of(state, f"{phase}/{name}/") for number, name in enumerate(optimiser.names)}
            found = {number: moments for number, moments in found.items() if moments}
            groups = optimiser.adam.state_dict()["param_groups"]
            optimiser.adam.load_state_dict({"state": found, "param_groups": groups})
        if self._devices.scaler is not None and state.scaler is not None:
            values = asdict(state.scaler)
            self._devices.scaler.load_state_dict({_TRACKER: values.pop("growth_tracker"), **values})
        self._saved = state.progress

    def _state(self, progress: Progress) -> State:
        if progress.finished:
            return State(progress, self._identity, {}, {})
        return State(progress, self._identity, self._model.state_dict(), self._moments(), self._scaling())

    def _scaling(self) -> Scaling | None:
        if self._devices.scaler is None:
            return None
        values = self._devices.scaler.state_dict()
        return Scaling(growth_tracker=values.pop(_TRACKER), **values)

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{phase}/{name}/{kind}": tensor
            for phase, optimiser in self._optimisers.items()
            for name, parameter in zip(optimiser.names, optimiser.parameters, strict=True)
            for kind, tensor in optimiser.adam.state.get(parameter, {}).items()
        }


def _moments_of(state: State, prefix: str) -> dict[str, Tensor]:
    kinds = ("step", "exp_avg", "exp_avg_sq")
    return {kind: state.moments[prefix + kind].clone() for kind in kinds if prefix + kind in state.moments}


@contextmanager
def _said_of(target: Path) -> Iterator[None]:
    """Names what a person knows, where a temporary file beside it can't be written."""
    try:
        yield
    except EnvironmentProblem as error:
        fix = "Free some space, and go on with --resume: what was saved before is as it was."
        raise EnvironmentProblem(f"{target} can't be written.", why=error.why, fix=fix, path=target) from error
