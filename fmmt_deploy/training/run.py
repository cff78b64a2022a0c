"""A whole training: from what is asked for to a checkpoint, its scores, its curves and its model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fmmt_deploy.bundle.atomic import locked, recover
from fmmt_deploy.errors import ArtefactError, FmmtError
from fmmt_deploy.evaluation.evaluation import Evaluation
from fmmt_deploy.reference.folders import BEST
from fmmt_deploy.reference.run_folder import is_run_folder
from fmmt_deploy.training.folder import ABLATION, EVALUATION, begin, claimed, is_training, write_json
from fmmt_deploy.training.preparing import Prepared, Status
from fmmt_deploy.training.scoring import SplitScores, score_split

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel
    from fmmt_deploy.training.ablation import Ablation
    from fmmt_deploy.training.state import Progress
    from fmmt_deploy.training.trainer import Trained
    from fmmt_deploy.training.watching import Watcher

__all__ = ["Outcome", "run_training"]

CURVES = "curves.png"
EVALUATION_SCHEMA, ABLATION_SCHEMA = "fmmt.training-evaluation/1", "fmmt.ablation/1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a training.

    Attributes:
        folder: Of the run.
        best: The checkpoint in it.
        best_epoch: Whose it is, from 1.
        epochs: That were made.
        stopped_early: Whether for want of better ones.
        scores: By split, `val` and perhaps `test`.
        notes: What to know about the data and the start.
        ablation: What each source is worth, if that was asked for: on the test split, or without one on the other.
    """

    folder: Path
    best: Path
    best_epoch: int
    epochs: int
    stopped_early: bool
    scores: Mapping[str, SplitScores]
    notes: tuple[str, ...]
    ablation: Ablation | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "path": str(self.folder),
            "checkpoint": str(self.best),
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "stopped_early": self.stopped_early,
            "scores": {split: scores.to_json() for split, scores in self.scores.items()},
            "notes": list(self.notes),
            "ablation": None if self.ablation is None else self.ablation.to_json(),
        }


def run_training(prepared: Prepared, main: bool = True, status: Status = lambda _: None) -> Outcome | None:
    """Trains, then scores the best epoch and writes all that is shown of the run.

    Args:
        prepared: See `preparing.prepare`.
        main: Whether this is the process that writes; the others train and are done.
        status: Is told what is being done.

    Returns:
        What came of it; None in other processes.

    Raises:
        ArtefactError: The best checkpoint of a run that is to go on is gone.
        UsageError: Another training is at work in the folder.
        FmmtError: See `trainer.train`.
    """
    from fmmt_deploy.training.state import read_progress

    request = prepared.request
    if not main:
        _train(prepared, _Nobody(), _not_here)
        return None
    with ExitStack() as ours:
        ours.enter_context(claimed(request.out))
        progress = read_progress(request.out) if request.resume and is_training(request.out) else None
        if progress is None:  # also where a run was killed before its first state: nothing of it is worth keeping
            begin(request.out, request.effective)
            ours.enter_context(claimed(request.out))  # the new one
        elif progress.best is not None:
            _check_best(request.out)
        trained = _trained(prepared, progress)
        outcome = _scored(prepared, trained, status)
        _report(prepared, outcome, status)
        return outcome


def _check_best(folder: Path) -> None:
    with locked(folder):
        recover(folder / BEST)
    if not is_run_folder(folder / BEST):
        what = f"{folder / BEST} is gone, where the run's best checkpoint was."
        raise ArtefactError(what, fix="Put it back, or begin the run anew with --force.", path=folder / BEST)


def _trained(prepared: Prepared, progress: Progress | None) -> Trained:
    """The main process's part."""
    from fmmt_deploy.training.logs import open_watcher
    from fmmt_deploy.training.validation import validator

    request, tokenizer = prepared.request, prepared.start.tokenizer_json
    watcher = open_watcher(request.out, request.settings, progress, request.quiet)
    try:
        if progress is None:
            for note in prepared.notes:
                watcher.note(note)
        elif progress.finished:
            watcher.note("The training is finished already.")
        validate = validator(prepared.val, tokenizer, request.settings, prepared.device)
        return _train(prepared, watcher, validate)
    finally:
        watcher.close()


def _train(prepared: Prepared, watcher: Watcher, validate: Callable[[ReferenceModel], Evaluation]) -> Trained:
    from fmmt_deploy.training.trainer import Training, train

    request, start = prepared.request, prepared.start
    training = Training(
        model=start.model,
        settings=request.settings,
        target=prepared.target,
        faces=prepared.faces,
        validate=validate,
        watcher=watcher,
        folder=request.out,
        tokenizer=start.tokenizer_json,
        also=_also(prepared),
    )
    return train(training, resume=request.resume, device=prepared.device)


def _also(prepared: Prepared) -> dict[str, str]:
    """What would be another training with another: the best epochs are of one validation split, words of one tokenizer.

    The test split may change: it decides nothing.
    """
    from fmmt_deploy.training.fingerprints import fingerprint_of_dialogues, fingerprint_of_text

    tokenizer = prepared.start.tokenizer_json
    words = {} if tokenizer is None else {"the tokenizer": fingerprint_of_text(tokenizer)}
    return {"validation": fingerprint_of_dialogues(prepared.val.dialogues), **words}


def _scored(prepared: Prepared, trained: Trained, status: Status) -> Outcome:
    from fmmt_deploy.reference.checkpoints import read_checkpoint
    from fmmt_deploy.reference.loading import model_from_checkpoint

    request, device, tokenizer = prepared.request, prepared.device, prepared.start.tokenizer_json
    status("scoring the best epoch")
    checkpoint = read_checkpoint(request.out / BEST)
    model = model_from_checkpoint(checkpoint, **checkpoint.settings).to(device)
    splits = {"val": prepared.val} | ({} if prepared.test is None else {"test": prepared.test})
    scores = {name: score_split(model, tokenizer, split, device) for name, split in splits.items()}
    ablation = None
    if request.ablate:
        from fmmt_deploy.training.ablation import ablate

        status("scoring it without each of its sources")
        ablation = ablate(model, tokenizer, prepared.test or prepared.val, device=device)
    return Outcome(
        folder=request.out,
        best=request.out / BEST,
        best_epoch=trained.best_epoch,
        epochs=trained.epochs,
        stopped_early=trained.stopped_early,
        scores=scores,
        notes=prepared.notes,
        ablation=ablation,
    )


def _report(prepared: Prepared, outcome: Outcome, status: Status) -> None:
    """Writes what is told of a training; a picture that can't be drawn is said, and can be drawn from the log later."""
    from fmmt_deploy.training.card import write_card
    from fmmt_deploy.training.card_facts import card_facts
    from fmmt_deploy.training.curves import draw_curves
    from fmmt_deploy.training.logs import LOG

    folder, document = outcome.folder, outcome.to_json()
    ablation = document.pop("ablation")
    del document["path"]  # what lies in the folder holds wherever that is
    document["checkpoint"] = outcome.best.name
    write_json(folder / EVALUATION, {"schema": EVALUATION_SCHEMA, **document})
    if isinstance(ablation, dict):
        write_json(folder / ABLATION, {"schema": ABLATION_SCHEMA, **ablation})
    try:
        draw_curves(folder / LOG, folder / CURVES)
    except FmmtError as error:
        status(f"warning: {error.what}")
    write_card(folder, card_facts(prepared, outcome))


def _not_here(_: ReferenceModel) -> NoReturn:
    raise AssertionError("only the main process validates")


class _Nobody:
    """Watches nothing, in the processes that are not the main one."""

    def note(self, text: str) -> None:
        pass

    def step(self, record: object) -> None:
        pass

    def epoch(self, record: object) -> None:
        pass

    def close(self) -> None:
        pass
