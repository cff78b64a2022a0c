"""`fmmt calibrate`, killed: it goes on where it was, makes the same graphs, and leaves nothing behind."""

import shutil
import signal
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration import collection
from fmmt_deploy.calibration.recipes import read_recipe
from fmmt_deploy.cli import calibrate_auto
from tests.calibration.talk import Talk, write_talk
from tests.cli.calibrating import Bundles, beside, calibrate, graph_bytes, with_outliers
from tests.cli.running import in_own_process

ASKED = ("--precision", "int8", "--smooth", "unimodal", "--method", "max", "--split", "train", "--threads", "1")
"""Two passes over six batches: of all tensors, and of those that are smoothed."""

AUTO = ("--auto", "--split", "train", "--judge-split", "train", "--dialogues", "5", "--allow-small", "--threads", "1")

KILL = """
import os, signal
from fmmt_deploy.calibration import collection
from fmmt_deploy.selection import making, progress_file
from fmmt_deploy.cli import calibrate_auto, calibrating
calibrate_auto.ALLOWED = {"gpu": ("int8", "fp8")}
collection.SAVE_SECONDS = 0
def deadly(function, calls):
    left = [calls]
    def called(*arguments, **named):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return called
"""
SAVES = "collection.SavedProgress.save = deadly(collection.SavedProgress.save, {})"
"""Killed when it is about to save once more."""
HALF_A_SAVE = "collection.np.savez = lambda file, **_: (file.write(b'PK'), file.flush(), os.kill(os.getpid(), 9))"
WRITING = "calibrating.check_sqnr = deadly(calibrating.check_sqnr, 0)"
"""The graph is written, but in no bundle yet."""
SEARCHING = "progress_file.ProgressFile.add = deadly(progress_file.ProgressFile.add, 1)"
MAKING = "making.write_draft = deadly(making.write_draft, 0)"


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "killed" / "bundle"))


def copy(bundle: Path, folder: str) -> Path:
    return Path(shutil.copytree(bundle, bundle.parents[1] / folder / "bundle"))


def killed(how: str, bundle: Path, data: Path, *arguments: str) -> str:
    """What it said until it was killed."""
    done = in_own_process(KILL + how, "calibrate", "-b", str(bundle), "--data", str(data), *arguments)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stderr


def test_resumed(bundle: Path, talk: Talk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    whole = copy(bundle, "whole")
    assert calibrate(whole, talk.folder, *ASKED, "-q") == 0
    assert beside(whole) == []

    killed(SAVES.format(2), bundle, talk.folder, *ASKED)
    assert beside(bundle) == [".bundle.calibration-all.npz"]
    said = killed(SAVES.format(7), bundle, talk.folder, *ASKED)  # 4 more and the last; 2 of the second pass
    assert "going on after 2 batches of an interrupted calibration" in said
    assert beside(bundle) == [".bundle.calibration-all.npz", ".bundle.calibration-unimodal-int8.npz"]
    said = killed(WRITING, bundle, talk.folder, *ASKED)
    assert "going on after 6 batches" in said
    assert "going on after 2 batches" in said
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]
    assert len(beside(bundle)) == 3  # and the bundle that was being written

    monkeypatch.setattr(collection, "SAVE_SECONDS", 0)
    capsys.readouterr()
    assert calibrate(bundle, talk.folder, *ASKED) == 0
    assert capsys.readouterr().err.count("going on after 6 batches") == 2
    assert graph_bytes(bundle, "int8") == graph_bytes(whole, "int8")
    assert beside(bundle) == []


def test_killed_while_saving(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a file is not taken for a whole one, and other calibrations' are not taken up; nothing is left of either."""
    killed(HALF_A_SAVE, bundle, talk.folder, *ASKED)
    (half,) = beside(bundle)
    assert (bundle.parent / half).read_bytes() == b"PK"
    killed(SAVES.format(2), bundle, talk.folder, *ASKED, "--seed", "1")
    capsys.readouterr()
    assert calibrate(bundle, talk.folder, *ASKED, "--dialogues", "8") == 0
    assert "going on" not in capsys.readouterr().err
    assert beside(bundle) == []


def test_a_search_goes_on(
    bundle: Path, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which int8 fails, for a column that is all that there is; fp8 is what is found."""
    monkeypatch.setattr(calibrate_auto, "ALLOWED", {"gpu": ("int8", "fp8")})
    with_outliers(bundle, (0, 1))
    whole = copy(bundle, "whole")
    assert calibrate(whole, talk.folder, *AUTO, "--write-recipe", str(tmp_path / "whole.toml"), "-q") == 0
    recipe = tmp_path / "recipe.toml"
    asked = (*AUTO, "--write-recipe", str(recipe))
    killed(MAKING, bundle, talk.folder, *asked)
    killed(SEARCHING, bundle, talk.folder, *asked)
    assert not recipe.exists()
    assert ".bundle.search-gpu.jsonl" in beside(bundle)
    capsys.readouterr()
    assert calibrate(bundle, talk.folder, *asked) == 0
    assert "going on after 1 judgements of an interrupted search" in capsys.readouterr().err
    found, expected = read_recipe(recipe), read_recipe(tmp_path / "whole.toml")
    assert found.precision == {"unimodal": "fp8"}
    assert (found.precision, found.keep) == (expected.precision, expected.keep)
    assert found.evidence is not None
    assert expected.evidence is not None
    assert found.evidence.tried == expected.evidence.tried
    assert len(found.evidence.tried) > 1
    assert graph_bytes(bundle, "fp8") == graph_bytes(whole, "fp8")
    assert beside(bundle) == []
