"""A run that is killed, interrupted, or out of disk goes on to the very same bits."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from safetensors import SafetensorError

from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.reference import loading
from fmmt_deploy.reference.run_folder import read_run_folder
from fmmt_deploy.training import state as states
from fmmt_deploy.training.checkpoints import Checkpoints
from fmmt_deploy.training.state import Progress, read_progress, read_state
from fmmt_deploy.training.watching import EpochRecord, StepRecord
from tests.training.sources import VISION, Seen, small_settings, small_training, weights_hash

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Real processes, SIGKILL, at times drawn from a seed; two threads, as a user would have."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "tests.training.killing", str(tmp_path), "5", "6"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = tmp_path / "whole"
    for name in ("steps", "phases"):
        killed = tmp_path / name
        assert int((killed / "kills").read_text()) >= 2, "it was never killed: make it slower, or kill it earlier"
        for file in ("best/model.safetensors", "best/config.json", "last.safetensors"):
            assert (killed / file).read_bytes() == (whole / file).read_bytes(), f"{name}/{file}"
        assert read_progress(killed) == read_progress(whole)
        made, expected = (json.loads((folder / "report.json").read_text())["losses"] for folder in (killed, whole))
        assert expected[len(expected) - len(made) :] == made


class Interrupting(Seen):
    """Presses Ctrl-C when it is told of a step, or of an epoch."""

    def __init__(self, step: int = 0, epoch: int = 0) -> None:
        super().__init__()
        self.at_step, self.at_epoch = step, epoch

    def step(self, record: StepRecord) -> None:
        super().step(record)
        if len(self.steps) == self.at_step:
            os.kill(os.getpid(), signal.SIGINT)

    def epoch(self, record: EpochRecord) -> None:
        super().epoch(record)
        if record.epoch == self.at_epoch:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Hash of the weights, and the best model, of a training that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    _, model, _ = small_training(folder, drop=0.1)
    return weights_hash(model), (folder / "best" / "model.safetensors").read_bytes()


def test_a_second_ctrl_c_does_not_stop_the_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Checkpoints.save

    def disturbed(self: Checkpoints, progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(self, progress)

    class Once(Seen):
        def step(self, record: StepRecord) -> None:
            monkeypatch.setattr(Checkpoints, "save", disturbed)
            os.kill(os.getpid(), signal.SIGINT)
            super().step(record)

    with pytest.raises(KeyboardInterrupt):
        small_training(tmp_path, VISION, watcher=Once())
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.target_steps == 1


@pytest.mark.parametrize(
    "watcher",
    [Interrupting(step=1), Interrupting(step=4), Interrupting(epoch=1)],
    ids=["first step", "target phase", "epoch's end"],
)
def test_ctrl_c_saves_where_it_is(watcher: Interrupting, whole: tuple[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        small_training(tmp_path, drop=0.1, watcher=watcher)
    before = read_progress(tmp_path)
    assert before is not None
    assert before.faces_steps + before.target_steps == len(watcher.steps)
    assert watcher.notes == ["Interrupted; what was done is saved: --resume goes on."]
    _, model, seen = small_training(tmp_path, drop=0.1, resume=True)
    assert len(watcher.steps) + len(seen.steps) == 10
    assert seen.notes[0].startswith("Resumed in epoch ")
    assert (weights_hash(model), (tmp_path / "best" / "model.safetensors").read_bytes()) == whole


@contextmanager
def small_disk(files: int, error: Exception) -> Iterator[None]:
    """There is room for so many files of tensors; of the next one half is written."""
    room = iter(range(files))
    save = states.save_file

    def save_file(tensors: dict[str, Any], path: Path) -> None:
        save(tensors, path)
        if next(room, None) is None:
            os.truncate(path, path.stat().st_size // 2)
            raise error

    with patch.object(states, "save_file", save_file), patch.object(loading, "save_file", save_file):
        yield


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
FAILED = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("files", "error"),
    [(0, NO_SPACE), (5, FAILED), (10, NO_SPACE), (11, FAILED), (21, NO_SPACE)],
    ids=["first", "faces", "best", "after the best", "second epoch"],
)
def test_a_full_disk_loses_nothing_saved(
    files: int, error: Exception, whole: tuple[str, bytes], tmp_path: Path
) -> None:
    settings = small_settings(save_minutes=0.0)
    with small_disk(files, error), pytest.raises(EnvironmentProblem, match=r"/(state|best) can't be written") as told:
        small_training(tmp_path, settings=settings, drop=0.1)
    assert "--resume" in told.value.fix
    saved = read_state(tmp_path)  # checks the hashes
    steps = 0 if saved is None else saved.progress.faces_steps + saved.progress.target_steps
    assert steps == {0: 0, 5: 2, 10: 5, 11: 5, 21: 9}[files]
    if files > 10:
        read_run_folder(tmp_path / "best")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    _, model, _ = small_training(tmp_path, settings=settings, drop=0.1, resume=True)
    assert (weights_hash(model), (tmp_path / "best" / "model.safetensors").read_bytes()) == whole
