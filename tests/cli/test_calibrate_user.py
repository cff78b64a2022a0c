"""`fmmt calibrate` as somebody uses it for the first time: slips, strange numbers, and what the answers say."""

import shutil
from pathlib import Path

import pytest

from tests.calibration.talk import Talk, write_talk
from tests.cli.calibrating import SMALL, Bundles, beside, calibrate, state_of


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"))


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--keep-back *", "Nothing of unimodal would be in int8: all its products are kept back"),
        ("--keep-back nothing*", "patterns are like 'utt_transformer.layer.0"),
        ("--keep-back *.classifier/*", "fits no product"),
        ("--precision fp16", "Use `fmmt cast -b "),
        ("--min-sqnr nan", "a number of dB is needed"),
        ("--method max --percentile 50", "--percentile is not about the method max"),
        ("--split test", "nothing is chosen on test data"),
        ("--seed 99999999999999999999", "--seed"),
    ],
)
def test_slips_are_refused_before_any_work(
    bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    before = state_of(bundle)
    small = SMALL[2:] if "--split" in arguments else SMALL
    assert calibrate(bundle, talk.folder, "--precision", "int8", *small, *arguments.split()) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
    assert (state_of(bundle), beside(bundle)) == (before, [])


def test_a_recipe_that_keeps_everything_back(
    bundle: Path, talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "all.toml"
    recipe.write_text('[precision]\nunimodal = "fp8"\n[keep]\nunimodal = ["*"]\n')
    assert calibrate(bundle, talk.folder, "--recipe", str(recipe), *SMALL) == 2
    assert "leave unimodal in fp16" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp8", "fp16"])
def test_a_recipe_s_patterns_are_checked_before_any_work(
    bundle: Path, talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    recipe = tmp_path / "typo.toml"
    recipe.write_text(f'[precision]\nunimodal = "{precision}"\n[keep]\nunimodal = ["zzz"]\n')
    assert calibrate(bundle, talk.folder, "--recipe", str(recipe), *SMALL) == 2
    shown = capsys.readouterr().err
    assert "'zzz', which fits nothing of unimodal" in shown
    assert "collecting" not in shown


def test_nothing_is_chosen_on_test_data(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, talk.folder, "--auto", "--judge-split", "test", *SMALL) == 2
    assert "--judge-split test: nothing is chosen on test data" in capsys.readouterr().err


def test_a_recipe_s_seed_has_an_end(
    bundle: Path, talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "seed.toml"
    recipe.write_text(f'[precision]\nunimodal = "fp8"\n[calibration]\nseed = {10**20}\n')
    assert calibrate(bundle, talk.folder, "--recipe", str(recipe), *SMALL) == 2
    assert "calibration.seed" in capsys.readouterr().err


def test_what_is_said_to_people(bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, talk.folder, "--precision", "int8", *SMALL, "--method", "max", "-q") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith(f"calibrated on {talk.folder} (train)\n")
    assert f"none of it is in that of {talk.folder}\n" in shown.out
    warnings = shown.out.split("\n\n")[-1].splitlines()  # together, and last
    assert len(warnings) > 1
    assert all(line.startswith("warning: ") for line in warnings)


def test_a_test_split_that_is_not_there_is_told_in_three_lines(
    bundle: Path, talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, talk.folder, "--precision", "int8", *SMALL, "-q", "--test-data", "nowhere") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith("warning")] == ["error", "  why", "  fix"]
