"""`fmmt profile-data`: writes a profile that `fmmt build` reads, and refuses what would change answers."""

import json
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.engines.tensorrt.profiles import read_profiles
from tests.cli.running import exit_code
from tests.models import Golden


def arguments(golden: Golden, *more: str) -> tuple[str, ...]:
    return ("profile-data", "-b", str(golden.bundle), "--data", str(golden.data), *more)


def test_a_profile_from_data(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "profile.toml"
    assert exit_code(*arguments(golden, "-o", str(out), "--buckets", "2", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    architecture = Bundle.open(golden.bundle).manifest.architecture
    dataset = read_data(golden.data, "test", architecture)
    profiles = read_profiles(out, architecture)
    assert document["schema"] == "fmmt.profile-data/1"
    assert document["profiles"].keys() == profiles.graphs.keys()
    counts = {row["what"]: row["count"] for row in document["lengths"]}
    assert counts["faces of an utterance"] == len(dataset.order)
    assert f"{len(dataset.dialogues)} dialogues, {len(dataset.order)} utterances" in out.read_text()
    assert all(0 < choice["ratio"] <= 1 for choices in document["padding"].values() for choice in choices)
    assert [path.name for path in tmp_path.iterdir()] == ["profile.toml"]


def test_nothing_is_overwritten(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "profile.toml"
    out.write_text("mine")
    assert exit_code(*arguments(golden, "-o", str(out))) == 2
    assert "Add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert exit_code(*arguments(golden, "-o", str(out), "--force", "-q")) == 0
    assert "[[plm]]" in out.read_text()
    assert exit_code(*arguments(golden, "-o", str(tmp_path / "none" / "profile.toml"))) == 2


def test_a_dry_run_and_tables_write_nothing(golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments(golden, "-o", str(tmp_path / "profile.toml"), "--dry-run")) == 0
    assert f"would write {tmp_path}" in capsys.readouterr().out
    assert exit_code(*arguments(golden)) == 0
    text = capsys.readouterr().out
    assert "tokens: real ÷ computed" in text
    assert "sorted, 8 at a time" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axis", ["audio", "vision", "text"])
def test_axes_whose_padding_counts_are_refused(
    golden: Golden, axis: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments(golden, f"--{axis}", "3", "-o", str(tmp_path / "profile.toml"))) == 2
    assert "attend to" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_data_set(golden: Golden, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text(content)
    assert exit_code("profile-data", "-b", str(golden.bundle), "--data", str(data)) == 2
    assert "error: " in capsys.readouterr().err
