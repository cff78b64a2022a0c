"""Epochs, the best one, patience, and what a run's folder holds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmmt_deploy.errors import ArtefactError, UsageError
from fmmt_deploy.evaluation.evaluation import Evaluation
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.run_folder import read_run_folder
from fmmt_deploy.training.settings import FaceSettings
from fmmt_deploy.training.state import read_progress
from fmmt_deploy.training.trainer import Trained, Training, train
from tests.models import tiny_source
from tests.training.sources import (
    SMALL,
    VISION,
    Portraits,
    Seen,
    Utterances,
    scores,
    small_model,
    small_settings,
    small_training,
    weights_hash,
)


class Validation:
    """Gives the scores it is told to, and remembers the weights it was shown."""

    def __init__(self, shares: list[float]) -> None:
        self.shares: Iterator[float] = iter(shares)
        self.weights: list[str] = []

    def __call__(self, model: ReferenceModel) -> Evaluation:
        assert not any(module.training for module in model.modules())
        torch.set_num_threads(1)  # as engines may
        self.weights.append(weights_hash(model))
        return scores(next(self.shares))


def vision_training(
    folder: Path, validation: Validation, resume: bool = False, **target: object
) -> tuple[Trained, Seen]:
    seen = Seen()
    settings = small_settings(epochs=5, **target)
    model = small_model(VISION)
    training = Training(
        model=model,
        settings=settings,
        target=Utterances(VISION),
        faces=None,
        validate=validation,
        watcher=seen,
        folder=folder,
        tokenizer=None,
    )
    return train(training, resume=resume, device="cpu"), seen


def test_the_best_epoch_is_kept_the_first_of_equals(tmp_path: Path) -> None:
    validation = Validation([0.2, 0.7, 0.5, 0.7, 0.6])
    trained, seen = vision_training(tmp_path, validation)
    assert (trained.best_epoch, trained.epochs, trained.stopped_early) == (2, 5, False)
    assert trained.best == scores(0.7)
    assert [record.best for record in seen.epochs] == [True, True, False, False, False]
    kept = small_model(VISION)
    tensors = read_run_folder(tmp_path / "best").parts["unimodal"]
    kept.unimodal.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    assert weights_hash(kept) == validation.weights[1]
    assert len(set(validation.weights)) == 5


def test_no_f1_at_all_is_still_the_best_so_far(tmp_path: Path) -> None:
    trained, _ = vision_training(tmp_path, Validation([0.0] * 5))
    assert trained.best_epoch == 1
    read_run_folder(tmp_path / "best")


def test_patience(tmp_path: Path) -> None:
    trained, seen = vision_training(tmp_path, Validation([0.2, 0.7, 0.5, 0.7, 0.9]), patience=2)
    assert (trained.best_epoch, trained.epochs, trained.stopped_early) == (2, 4, True)
    assert len(seen.epochs) == 4
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.finished, progress.stopped_early) == (True, True)


def test_what_is_told(tmp_path: Path) -> None:
    _, _, seen = small_training(tmp_path)
    places = [(r.phase, r.epoch, r.step, r.steps, r.total) for r in seen.steps]
    first = [("faces", 1, 1, 2, 1), ("faces", 1, 2, 2, 2), *(("target", 1, n, 3, n) for n in (1, 2, 3))]
    second = [("faces", 2, 1, 2, 3), ("faces", 2, 2, 2, 4), *(("target", 2, n, 3, n + 3) for n in (1, 2, 3))]
    assert places == first + second
    assert [record.cases for record in seen.steps[:5]] == [3, 3, 4, 4, 4]
    epoch = seen.epochs[1]
    assert (epoch.epoch, epoch.epochs) == (2, 2)
    assert epoch.faces_loss == pytest.approx(sum(r.loss for r in seen.steps[5:7]) / 2)
    assert epoch.target_loss == pytest.approx(sum(r.loss for r in seen.steps[7:]) / 3)
    assert epoch.seconds > sum(record.seconds for record in seen.steps[5:])
    assert [r.learning_rate for r in seen.steps if r.phase == "target"] == pytest.approx(
        [1e-3 * n / 6 for n in (6, 5, 4, 3, 2, 1)]
    )


def test_faces_in_the_first_epochs_only(tmp_path: Path) -> None:
    settings = replace(small_settings(), faces=FaceSettings(epochs=1, learning_rate=1e-3))
    _, _, seen = small_training(tmp_path, settings=settings)
    assert [(r.epoch, r.phase) for r in seen.steps] == [(1, "faces")] * 2 + [(1, "target")] * 3 + [(2, "target")] * 3
    assert [record.faces_loss is None for record in seen.epochs] == [False, True]
    rates = [record.learning_rate for record in seen.steps if record.phase == "faces"]
    assert rates == pytest.approx([1e-3, 5e-4]), "the schedule is that of the phase's own steps"


def test_two_runs_are_the_same_bits(tmp_path: Path) -> None:
    hashes = [weights_hash(small_training(tmp_path / name, drop=0.1)[1]) for name in ("a", "b")]
    assert hashes[0] == hashes[1]


def test_bf16(tmp_path: Path) -> None:
    _, exact, one = small_training(tmp_path / "fp32")
    _, rounded, two = small_training(tmp_path / "bf16", settings=small_settings(precision="bf16"))
    assert all(tensor.dtype != torch.bfloat16 for tensor in rounded.state_dict().values())
    assert 0 < abs(one.steps[-1].loss - two.steps[-1].loss) < 0.1
    assert weights_hash(exact) != weights_hash(rounded)


def test_threads_are_as_before_a_validation_that_changes_them(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        vision_training(tmp_path, Validation([0.1] * 5))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_run_that_was_begun_is_not_begun_again(tmp_path: Path) -> None:
    first, _, _ = small_training(tmp_path)
    with pytest.raises(UsageError, match="holds a training that was begun"):
        small_training(tmp_path)
    again, _, seen = small_training(tmp_path, resume=True)
    assert again == first
    assert not seen.steps


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    _, _, seen = small_training(tmp_path, VISION, resume=True)
    assert seen.notes == ["There is no state to resume from: the training begins."]


@pytest.mark.parametrize("change", ["settings", "data", "model"])
def test_what_is_resumed_is_the_same_training(change: str, tmp_path: Path) -> None:
    class Stopping(Seen):
        def step(self, record: object) -> None:  # noqa: ARG002 - a protocol's signature
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_training(tmp_path, VISION, watcher=Stopping())
    if change == "settings":
        with pytest.raises(UsageError, match="other settings or data"):
            small_training(tmp_path, VISION, settings=small_settings(epochs=7), resume=True)
    elif change == "data":
        with pytest.raises(UsageError, match="other settings or data"):
            small_training(tmp_path, VISION, target=Utterances(VISION, fingerprint="other"), resume=True)
    else:
        assert VISION.unimodal is not None
        wider = replace(VISION, unimodal=replace(VISION.unimodal, hidden_size=60))
        with pytest.raises(ArtefactError, match="of another model") as error:
            small_training(tmp_path, wider, target=Utterances(VISION), resume=True)
        assert len(error.value.why) <= 200


def test_the_tokenizer_goes_with_the_best(tmp_path: Path) -> None:
    tokenizer = tiny_source("roberta").tokenizer
    training = Training(
        model=small_model(),
        settings=small_settings(epochs=1),
        target=Utterances(SMALL, count=4),
        faces=Portraits(count=3),
        validate=Validation([0.5]),
        watcher=Seen(),
        folder=tmp_path,
        tokenizer=tokenizer,
    )
    train(training, resume=False, device="auto" if not torch.cuda.is_available() else "cpu")
    assert (tmp_path / "best" / "tokenizer.json").read_text(encoding="utf-8") == tokenizer
