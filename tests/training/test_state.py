"""What is resumed from is what was saved, or an error that says why not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmmt_deploy.errors import ArtefactError, UsageError
from fmmt_deploy.training.settings import RunSettings, Settings
from fmmt_deploy.training.state import (
    Identity,
    Progress,
    Scaling,
    State,
    check_same,
    read_progress,
    read_state,
    write_state,
)
from tests.training.sources import scores, small_settings

IDENTITY = Identity(small_settings(), {"faces": "a", "target": "b"}, 1, "2.9")
PROGRESS = Progress(
    epoch=3,
    phase="target",
    step=7,
    faces_steps=20,
    target_steps=27,
    target_loss=0.1 + 0.2,
    best_epoch=2,
    best=scores(0.6),
)


def state(**changes: object) -> State:
    draws = torch.Generator().manual_seed(0)
    model = {"a.weight": torch.randn(3, 4, generator=draws), "count": torch.tensor(5)}
    moments = {"target/a.weight/exp_avg": torch.randn(3, 4, generator=draws), "target/a.weight/step": torch.tensor(7.0)}
    scaler = Scaling(2.0**16, 2.0, 0.5, 2000, 3)
    return replace(State(PROGRESS, IDENTITY, model, moments, scaler), **changes)  # type: ignore[arg-type]


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    assert read_progress(tmp_path / "none") is None
    write_state(tmp_path, state(progress=Progress()))
    write_state(tmp_path, state())
    found = read_state(tmp_path)
    assert found is not None
    assert (found.progress, found.identity, found.scaler) == (PROGRESS, IDENTITY, state().scaler)
    assert read_progress(tmp_path) == PROGRESS
    for saved, wanted in ((found.model, state().model), (found.moments, state().moments)):
        assert saved.keys() == wanted.keys()
        assert all(torch.equal(saved[name], wanted[name]) for name in wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_finished_training_keeps_no_tensors(tmp_path: Path) -> None:
    write_state(tmp_path, state())
    write_state(tmp_path, State(replace(PROGRESS, finished=True), IDENTITY, {}, {}))
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["state.json"]
    found = read_state(tmp_path)
    assert found is not None
    assert (found.progress.finished, found.model) == (True, {})


@pytest.mark.parametrize("file", ["model.safetensors", "moments.safetensors"])
def test_one_other_byte_is_found(file: str, tmp_path: Path) -> None:
    write_state(tmp_path, state())
    path = tmp_path / "state" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=f"{file} was altered"):
        read_state(tmp_path)
    path.unlink()
    with pytest.raises(ArtefactError, match="can't be read"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:200], "does not parse"),
        (lambda text: text.replace("training-state/1", "training-state/2"), "schema"),
        (lambda text: text.replace('"step": 7', '"step": "7"'), "progress.step"),
        (lambda text: text.replace('"scaler"', '"other"'), "other"),
    ],
)
def test_a_manifest_that_makes_no_sense(change: object, message: str, tmp_path: Path) -> None:
    write_state(tmp_path, state())
    path = tmp_path / "state" / "state.json"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ArtefactError, match=message):
        read_progress(tmp_path)


def test_no_file_outside_is_read(tmp_path: Path) -> None:
    write_state(tmp_path, state())
    path = tmp_path / "state" / "state.json"
    values = json.loads(path.read_text())
    values["files"]["../../secret"] = values["files"].pop("model.safetensors")
    path.write_text(json.dumps(values))
    found = read_state(tmp_path)
    assert found is not None
    assert found.model == {}


def test_a_swap_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """Between its two renames the state has its other name, see `bundle.atomic`."""
    write_state(tmp_path, state())
    (tmp_path / "state").rename(tmp_path / ".state.old")
    assert read_progress(tmp_path) == PROGRESS


def test_other_settings_are_named() -> None:
    other = replace(IDENTITY, settings=small_settings(epochs=9, batch_size=3), data={"target": "c", "faces": "a"})
    with pytest.raises(UsageError) as error:
        check_same(IDENTITY, other)
    assert error.value.why == "target.epochs was 2, is 9; target.batch_size was 1, is 3; the data of target differ."


def test_what_changes_nothing_may_differ() -> None:
    run = RunSettings(precision="fp32", workers=7, face_cache_gib=1.0, save_minutes=3.0)
    settings: Settings = replace(IDENTITY.settings, run=run)
    assert check_same(IDENTITY, replace(IDENTITY, settings=settings)) == ()
    assert len(check_same(IDENTITY, replace(IDENTITY, processes=2, torch="2.10"))) == 2
    with pytest.raises(UsageError, match="other settings"):
        check_same(IDENTITY, replace(IDENTITY, settings=replace(settings, run=replace(run, seed=5))))
