"""A stranger's receipts are data: they neither steer a terminal nor read like a line, or a command, of ours."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.record import Receipt, Setting, bytes_from_receipt
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.receipts.subjects import graph_subjects
from tests.bundle.samples import make_bundle
from tests.cli.running import exit_code

TRICK = "x\n  touch gotcha\n  fix: touch gotcha\x1b[2J\x9b2J\u202e"


def judge(bundle: Path, settings: dict[str, object], verdict: str) -> None:
    """Leaves a receipt of a bundle's F1."""
    opened = Bundle.open(bundle)
    given = {name: Setting(value, "command line") for name, value in settings.items()}
    receipt = Receipt(command="eval", seconds=1.0, exit_code=5, verdict=verdict, settings=given)
    append_receipt(opened, replace(receipt, subjects=graph_subjects(opened, {"unimodal": "fp32"})))


def judged(path: Path, settings: dict[str, object], verdict: str = "") -> Path:
    """A bundle with such a receipt."""
    judge(make_bundle(path).path, settings, verdict)
    return path


def assert_harmless(text: str) -> None:
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)
    assert not re.search("^ {,4}(fix: )?touch", text, re.MULTILINE)


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = judged(tmp_path / "b", {"engine": "ort", "data": TRICK, "split": TRICK}, TRICK)
    assert exit_code("status", "-b", str(bundle)) == 8
    shown = capsys.readouterr()
    assert_harmless(shown.out + shown.err)
    commands = shown.out.partition("next:\n")[2].splitlines()
    assert commands
    assert all(line.startswith("  fmmt ") for line in commands)
    assert len([line for line in shown.err.splitlines() if line.startswith("  fix: ")]) == 1


def test_json_says_it_all_and_steers_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = judged(tmp_path / "b", {"engine": "ort", "data": TRICK})
    assert exit_code("status", "-b", str(bundle), "--json") == 8
    text = capsys.readouterr().out
    assert_harmless(text)
    [step] = [step for step in json.loads(text)["steps"] if step["kind"] == "F1"]
    assert shlex.split(step["next"])[-2:] == ["--data", TRICK]


@pytest.mark.parametrize("engine", ["ort; touch gotcha", "$(touch gotcha)", "ort --force", "--help"])
def test_no_command_of_ours_holds_one_of_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    def commands(bundle: Path) -> list[str]:
        exit_code("status", "-b", str(bundle), "--json")
        return [step["next"] for step in json.loads(capsys.readouterr().out)["steps"]]

    bundle = make_bundle(tmp_path / "b").path
    before = commands(bundle)
    judge(bundle, {"engine": engine}, "")
    assert commands(bundle) == before


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = judged(tmp_path / "b", {})
    forged = Receipt(number=2, command=TRICK, seconds=1.0, previous=hash_file(bundle / "receipts/0001-eval.json"))
    (bundle / "receipts/0002-eval.json").write_bytes(bytes_from_receipt(forged))
    (bundle / TRICK).write_text("")
    assert exit_code("verify", "-b", str(bundle), "--no-replay") == 8
    shown = capsys.readouterr()
    assert shown.out.count("touch gotcha") == 4
    assert_harmless(shown.out + shown.err)
