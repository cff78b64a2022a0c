"""`fmmt calibrate --auto`: what it finds and writes, and that its recipe makes the same graphs again."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.recipes import read_recipe
from fmmt_deploy.cli import calibrate_auto
from tests.calibration.talk import Talk, write_talk
from tests.cli.calibrating import Bundles, beside, calibrate, calibrated, graph_bytes, state_of, with_outliers

AUTO = ("--auto", "--split", "train", "--judge-split", "train", "--dialogues", "5", "--allow-small", "--threads", "1")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    """With a layer that int8 can't compute."""
    path = Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "here" / "bundle"))
    return with_outliers(path, (0,)).path


def test_its_recipe_makes_the_same_graphs(
    bundle: Path, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was kept back; a layer of two is much, so that more is allowed to be."""
    monkeypatch.setattr(calibrate_auto, "ALLOWED", {"gpu": ("int8",)})
    monkeypatch.setattr(calibrate_auto, "find_precisions", partial(calibrate_auto.find_precisions, max_kept_share=0.6))
    copy = Path(shutil.copytree(bundle, tmp_path / "copy" / "bundle"))
    recipe = tmp_path / "recipes" / "found.toml"
    shown = calibrated(bundle, talk.folder, *AUTO, "--write-recipe", str(recipe))
    written = read_recipe(recipe)
    assert written.precision == shown["auto"]["precision"] == {"unimodal": "int8"}
    assert [list(patterns) for patterns in written.keep.values()] == list(shown["auto"]["keep"].values())
    assert written.keep["unimodal"]
    assert written.evidence is not None
    assert written.evidence.agreement >= 0.98
    assert written.evidence.tried[0].problems  # all of it in int8, which is why something was kept back
    assert beside(bundle) == []
    again = calibrated(
        copy, talk.folder, "--recipe", str(recipe), "--split", "train", "--allow-small", "--threads", "1"
    )
    assert graph_bytes(copy, "int8") == graph_bytes(bundle, "int8")
    assert again["graphs"] == shown["graphs"]
    assert again["settings"] == shown["settings"] | {"smooth": []}  # there is no text here


def test_a_dry_run_writes_neither_graph_nor_recipe(
    bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    before, recipe = state_of(bundle), bundle.parent / "recipe.toml"
    assert calibrate(bundle, talk.folder, *AUTO, "--for", "cpu", "--write-recipe", str(recipe), "--dry-run") == 0
    shown = capsys.readouterr()
    for words in ("tried on", "found", "would write the recipe", "of float32's time"):
        assert words in shown.out
    assert "judging unimodal int8-fp32" in shown.err
    assert state_of(bundle) == before
    assert beside(bundle) == []


def test_where_nothing_holds_nothing_is_made(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the model would have to be kept back, for which no rule asks; the recipe says so, and is a recipe."""
    recipe = bundle.parent / "recipe.toml"
    assert calibrate(bundle, talk.folder, *AUTO, "--for", "cpu", "--write-recipe", str(recipe), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["graphs"] == []
    assert shown["auto"]["precision"] == {"unimodal": "fp32"}
    assert list(Bundle.open(bundle).manifest.graphs["unimodal"]) == ["fp32"]
    assert read_recipe(recipe).precision == {"unimodal": "fp32"}
    assert calibrate(bundle, talk.folder, "--recipe", str(recipe), "--split", "train") == 2
    assert "nothing to calibrate" in capsys.readouterr().err


def test_the_default_place_is_taken_once(
    bundle: Path, talk: Talk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bundle.parent)
    assert calibrate(Path("bundle"), talk.folder, *AUTO, "--for", "cpu", "-q") == 0
    assert read_recipe(Path("calibration/bundle-cpu.toml")).evidence is not None
    assert calibrate(Path("bundle"), talk.folder, *AUTO, "--for", "cpu") == 2
    assert "calibration/bundle-cpu.toml is there already" in capsys.readouterr().err
    assert calibrate(Path("bundle"), talk.folder, *AUTO, "--for", "cpu", "--force", "-q") == 0
