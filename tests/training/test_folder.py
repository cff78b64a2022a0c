"""The folder of a run: nothing of anybody else's is ever touched."""

import errno
import json
from pathlib import Path

import pytest

from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.training import folder as folder_module
from fmmt_deploy.training.folder import SETTINGS, begin, check_place, claimed, is_training, write_json
from fmmt_deploy.training.recipes import effective_from_toml, read_effective

EFFECTIVE = effective_from_toml("[target]\nepochs = 3\n", "r.toml")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("state", ["absent", "empty", "training"])
def test_a_run_begins_with_its_settings_and_nothing_else(state: str, tmp_path: Path) -> None:
    run = tmp_path / "some" / "run"
    if state != "absent":
        run.mkdir(parents=True)
    if state == "training":
        (run / SETTINGS).write_text(effective_settings())
        (run / "best").mkdir()
        (run / "best" / "model.safetensors").write_text("weights")
    check_place(run, resume=False, force=state == "training", inputs=[])
    begin(run, EFFECTIVE)
    assert is_training(run)
    assert names(run) == [SETTINGS]
    assert names(run.parent) == ["run"]
    assert read_effective(run / SETTINGS).settings == EFFECTIVE.settings


def effective_settings() -> str:
    from fmmt_deploy.training.recipes import toml_from_effective

    return toml_from_effective(EFFECTIVE)


def test_an_empty_folder_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    check_place(Path(), resume=False, force=False, inputs=[])
    begin(Path(), EFFECTIVE)
    assert tmp_path.stat().st_ino == before
    assert is_training(tmp_path)


@pytest.mark.parametrize("there", ["empty", "training", "nothing"])
def test_a_link_stays_a_link(there: str, tmp_path: Path) -> None:
    disk, link = tmp_path / "disk" / "run", tmp_path / "link"
    link.symlink_to(disk)
    if there != "nothing":
        disk.mkdir(parents=True)
    if there == "training":
        begin(disk, EFFECTIVE)
        (disk / "best").mkdir()
    check_place(link, resume=False, force=there == "training", inputs=[])
    begin(link, EFFECTIVE)
    assert link.is_symlink()
    assert names(disk) == [SETTINGS]
    assert names(tmp_path) == ["disk", "link"]
    assert names(tmp_path / "disk") == ["run"]


def test_a_folder_in_which_somebody_is_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    begin(run, EFFECTIVE)
    (run / "best").mkdir()
    monkeypatch.chdir(run / "best")
    with pytest.raises(UsageError, match="which --force would remove"):
        check_place(Path(".."), resume=False, force=True, inputs=[])


def test_a_name_that_no_folder_can_have(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        check_place(tmp_path / ("x" * 300), resume=False, force=False, inputs=[])


def test_a_training_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "PATIENCE_S", 0.0)
    with claimed(tmp_path):  # there is nothing to claim yet
        begin(tmp_path, EFFECTIVE)
    with claimed(tmp_path), pytest.raises(UsageError, match="Another training is at work in"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_what_is_no_training_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    for resume, force in ((False, False), (True, False), (False, True)):
        with pytest.raises(UsageError, match="not a training's folder"):
            check_place(tmp_path, resume, force, [])
    (tmp_path / SETTINGS).write_text("[target]\nepochs = 1\n")  # somebody's own recipe
    with pytest.raises(UsageError, match="not a training's folder"):
        check_place(tmp_path, resume=False, force=True, inputs=[])
    file = tmp_path / "file"
    file.write_text("…")
    with pytest.raises(UsageError, match="not a training's folder"):
        check_place(file, resume=False, force=True, inputs=[])
    assert names(tmp_path) == ["file", SETTINGS, "thesis.tex"]


def test_a_training_is_gone_on_with_or_replaced_only_if_asked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, EFFECTIVE)
    with pytest.raises(UsageError, match=r"holds a training.*\n.*--resume.*--force"):
        check_place(run, resume=False, force=False, inputs=[])
    check_place(run, resume=True, force=False, inputs=[run / "data"])
    check_place(run, resume=False, force=True, inputs=[tmp_path / "data", tmp_path])
    with pytest.raises(UsageError, match="both make no sense"):
        check_place(run, resume=True, force=True, inputs=[])


@pytest.mark.parametrize("inside", [".", "data"])
def test_what_is_read_is_not_removed(inside: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, EFFECTIVE)
    (run / "data").mkdir()
    with pytest.raises(UsageError, match="which --force would remove"):
        check_place(run, resume=False, force=True, inputs=[run / inside])


def test_a_place_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder_module.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(EnvironmentProblem, match=r"can't be written.*\n.*Read-only"):
        check_place(tmp_path / "run", resume=False, force=False, inputs=[])


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("…")
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        check_place(tmp_path / "file" / "run", resume=False, force=False, inputs=[])


def test_checking_leaves_nothing(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "run", resume=False, force=False, inputs=[])
    assert names(tmp_path) == []


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evaluation.json"
    write_json(path, {"a": 1})

    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentProblem, match="disk"):
        write_json(path, {"a": 2})
    assert names(tmp_path) == ["evaluation.json"]
    assert json.loads(path.read_text()) == {"a": 1}
