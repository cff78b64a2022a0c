"""Trains a model: both phases of every epoch, validation, the best epoch kept, and a state to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fmmt_deploy.errors import FmmtError, UsageError
from fmmt_deploy.evaluation.evaluation import Evaluation
from fmmt_deploy.interrupts import Interrupts
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.batches import FaceBatch, Faces, Target, TargetBatch
from fmmt_deploy.training.checkpoints import Checkpoints
from fmmt_deploy.training.devices import Devices, lost_peers, open_devices
from fmmt_deploy.training.objective import Trainee
from fmmt_deploy.training.optimisation import optimisers_of
from fmmt_deploy.training.planning import idle_note
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.state import Identity, Progress, State, check_same, read_state
from fmmt_deploy.training.stepping import Place, Stepper, StepResult
from fmmt_deploy.training.watching import EpochRecord, Phase, StepRecord, Watcher

__all__ = ["Trained", "Training", "Validate", "train"]

Validate = Callable[[ReferenceModel], Evaluation]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it.

    Attributes:
        best_epoch: Whose model was kept, from 1.
        best: Its scores on the validation split.
        epochs: That were made.
        stopped_early: Whether for want of better ones.
    """

    best_epoch: int
    best: Evaluation
    epochs: int
    stopped_early: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is trained, on what, how it is judged, and where it is kept.

    Attributes:
        model: With the weights to start from, and its dropout.
        settings: Of the whole training.
        target: The emotions of utterances.
        faces: Labelled faces, for epochs that begin with them; None for none.
        validate: Scores a model on the validation split.
        watcher: Is told what happens.
        folder: Of the run.
        tokenizer: Content of its `tokenizer.json`, where it reads text.
        also: Fingerprints of what else a resumed training must have the same of, by name.
    """

    model: ReferenceModel
    settings: Settings
    target: Target
    faces: Faces | None
    validate: Validate
    watcher: Watcher
    folder: Path
    tokenizer: str | None
    also: Mapping[str, str] = field(default_factory=dict)


def train(training: Training, *, resume: bool, device: str) -> Trained:
    """Trains a model in place, and writes `best/` (a run folder) and `state/` into the folder of the run.

    Afterwards the model is that of the last epoch made; the best is in `best/`. Where torchrun started several
    processes, each of them calls this with the same; only the main one validates, writes, and tells the watcher.

    Args:
        training: What is to be done.
        resume: Go on from the folder's state, if there is one.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: The folder holds a training that is not to be resumed, or one of other settings or data; or FP16
            was asked for on a CPU.
        EnvironmentProblem: The disk is full, or there is no GPU.
        ArtefactError: The state is damaged.
        UnstableError: A loss is not finite.
        KeyboardInterrupt: Ctrl-C, or in a process that is alone SIGTERM or SIGHUP; the state was written before.
    """
    settings, folder = training.settings, training.folder
    with open_devices(device, settings.run.precision) as devices:
        state = read_state(folder)  # once all processes are here: until then the main one may be making the folder
        if state is not None and not resume:
            raise UsageError(
                f"{folder} holds a training that was begun.",
                fix="Add --resume to go on, or give another folder.",
                path=folder,
            )
        loop = _Loop(training, devices)
        if state is not None:
            loop.resume(state)
        elif resume and devices.main:
            training.watcher.note("There is no state to resume from: the training begins.")
        if devices.main and (note := idle_note(settings.target, devices.processes)):
            training.watcher.note(note)
        return loop.run()


class _Loop:
    """A training in one of its processes; see `train`."""

    def __init__(self, training: Training, devices: Devices) -> None:
        model, settings, target, faces = training.model, training.settings, training.target, training.faces
        self._model, self._settings, self._devices = model, settings, devices
        self._validate, self._watcher = training.validate, training.watcher
        self._sources: dict[Phase, Target | Faces] = {"target": target}
        if faces is not None and settings.faces.epochs and model.architecture.swin is not None:
            self._sources = {"faces": faces, "target": target}
        trainee = Trainee(model, devices.processes, settings.target.moves_faces).to(devices.device)
        optimisers = optimisers_of(model, settings, self._planned())
        self._stepper = Stepper(trainee, optimisers, devices, settings.run.seed)
        data: dict[str, str] = {phase: source.fingerprint for phase, source in self._sources.items()}
        self._identity = Identity(settings, {**training.also, **data}, devices.processes, str(torch.__version__))
        self._checkpoints = Checkpoints(training.folder, model, training.tokenizer, optimisers, devices, self._identity)
        self._progress = Progress(phase=self._phases(1)[0])
        self._interrupts = Interrupts(alone=devices.processes == 1)

    def resume(self, state: State) -> None:
        """Goes on from a state."""
        for note in check_same(state.identity, self._identity):
            self._note(note)
        self._progress = state.progress
        if not self._progress.finished:
            self._checkpoints.restore(state)
            phase, step = self._progress.phase, self._progress.step
            self._note(f"Resumed in epoch {self._progress.epoch}, after {step} steps of the {phase} phase.")

    def run(self) -> Trained:
        """Makes all epochs that are left."""
        with self._interrupts.taken():
            try:
                with lost_peers():
                    while not self._progress.finished:
                        self._epoch()
            except KeyboardInterrupt:
                self._interrupted()
                raise
        done = self._progress
        if done.best is None:
            raise FmmtError("The training ended without a best epoch.")
        return Trained(done.best_epoch, done.best, done.epoch, done.stopped_early)

    def _epoch(self) -> None:
        began = time.monotonic()
        phases = self._phases(self._progress.epoch)
        for phase in phases[phases.index(self._progress.phase) :]:
            if phase != self._progress.phase:
                self._progress = replace(self._progress, phase=phase, step=0)
            self._run_phase(phase)
        evaluation = self._evaluated()
        with self._interrupts.held():
            self._end_epoch(evaluation, began)

    def _run_phase(self, phase: Phase) -> None:
        """Makes what is left of a phase. Processes are interrupted after the same step, so that none waits in vain."""
        done, devices, interrupts = self._progress, self._devices, self._interrupts
        source = self._sources[phase]
        steps = source.steps(done.epoch)
        self._stepper.enter(phase)
        with interrupts.held() if devices.processes > 1 else nullcontext():
            before = time.monotonic()
            # closed here, so that workers end while further interrupts are left unheard
            with closing(source.batches(done.epoch, done.step, devices.rank, devices.processes)) as batches:
                for step in batches:
                    with interrupts.held():
                        made = self._step(phase, steps, (step,) if isinstance(step, FaceBatch) else step, before)
                        before = time.monotonic()
                    if made.interrupted:
                        break
            interrupts.came = devices.any(interrupts.came)
            with interrupts.held():
                self._checkpoints.save(self._progress)

    def _step(self, phase: Phase, steps: int, passes: Sequence[FaceBatch | TargetBatch], before: float) -> StepResult:
        done = self._progress
        total = (done.faces_steps if phase == "faces" else done.target_steps) + 1
        place = Place(phase, done.epoch, done.step + 1, total)
        made = self._stepper.step(place, passes, self._interrupts.came)
        self._progress = _after_step(done, made)
        if self._devices.main:
            self._watcher.step(
                StepRecord(
                    phase=phase,
                    epoch=place.epoch,
                    step=place.step,
                    steps=steps,
                    total=total,
                    loss=made.loss,
                    learning_rate=made.learning_rate,
                    gradient_norm=made.gradient_norm,
                    cases=made.cases,
                    seconds=time.monotonic() - before,
                )
            )
        self._checkpoints.save_if_due(self._progress)
        return made

    def _evaluated(self) -> Evaluation:
        """The main process validates; all know the outcome, and so whether to go on."""
        evaluation = None
        if self._devices.main:
            threads = torch.get_num_threads()
            self._model.eval()
            try:
                evaluation = self._validate(self._model)
            finally:
                torch.set_num_threads(threads)  # engines set it; later steps' last digits would be others for it
        told = self._devices.told(evaluation)
        if told is None:
            raise FmmtError("The validation gave no scores.")
        return told

    def _end_epoch(self, evaluation: Evaluation, began: float) -> None:
        done, settings = self._progress, self._settings.target
        better = done.best is None or evaluation.weighted_f1 > done.best.weighted_f1
        if better:
            self._checkpoints.save_best()
        patience = not better and 0 < settings.patience <= done.without_gain + 1
        self._progress = Progress(
            epoch=done.epoch,
            phase=done.phase,
            step=done.step,
            faces_steps=done.faces_steps,
            target_steps=done.target_steps,
            best_epoch=done.epoch if better else done.best_epoch,
            best=evaluation if better else done.best,
            without_gain=0 if better else done.without_gain + 1,
            finished=patience or done.epoch == settings.epochs,
            stopped_early=patience and done.epoch < settings.epochs,
        )
        if not self._progress.finished:
            self._progress = replace(
                self._progress, epoch=done.epoch + 1, phase=self._phases(done.epoch + 1)[0], step=0
            )
        if self._devices.main:
            self._watcher.epoch(self._epoch_record(done, evaluation, better, time.monotonic() - began))
        self._checkpoints.save(self._progress)

    def _epoch_record(self, done: Progress, evaluation: Evaluation, best: bool, seconds: float) -> EpochRecord:
        steps = {phase: self._sources[phase].steps(done.epoch) for phase in self._phases(done.epoch)}
        faces_loss = done.faces_loss / steps["faces"] if "faces" in steps else None
        target_loss = done.target_loss / steps["target"]
        epochs = self._settings.target.epochs
        return EpochRecord(done.epoch, epochs, faces_loss, target_loss, evaluation, best, seconds)

    def _interrupted(self) -> None:
        with self._interrupts.held():
            self._checkpoints.save(self._progress)
            if self._devices.main:
                self._watcher.note("Interrupted; what was done is saved: --resume goes on.")

    def _note(self, text: str) -> None:
        if self._devices.main:
            self._watcher.note(text)

    def _phases(self, epoch: int) -> tuple[Phase, ...]:
        if "faces" in self._sources and epoch <= self._settings.faces.epochs:
            return ("faces", "target")
        return ("target",)

    def _planned(self) -> dict[Phase, int]:
        """Steps of the whole training, by phase."""
        epochs = range(1, self._settings.target.epochs + 1)
        return {
            phase: sum(source.steps(epoch) for epoch in epochs if phase in self._phases(epoch))
            for phase, source in self._sources.items()
        }


def _after_step(done: Progress, made: StepResult) -> Progress:
    if done.phase == "faces":
        return replace(
            done, step=done.step + 1, faces_steps=done.faces_steps + 1, faces_loss=done.faces_loss + made.loss
        )
    return replace(
        done, step=done.step + 1, target_steps=done.target_steps + 1, target_loss=done.target_loss + made.loss
    )
