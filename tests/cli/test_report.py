"""`fmmt report`, as it is run."""

import base64
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.fingerprint import fingerprint
from tests.bundle.samples import make_bundle
from tests.cli.running import FMMT, REPOSITORY, exit_code
from tests.cli.test_verdict import dialogue_line
from tests.pipeline.conversations import conversations
from tests.report.samples import evaluated, judged_bundle, leave_receipts

PICTURE = re.compile(r'<li class="(\w+)"><img src="data:image/jpeg;base64,([^"]+)"[^>]*>([^<]*)</li>')


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    judged_bundle(tmp_path / "my-bundle")
    return tmp_path / "my-bundle"


def report(bundle: Path, *arguments: str) -> int:
    return exit_code("report", "-b", str(bundle), *arguments)


def test_it_writes_the_page_and_the_card(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, card = tmp_path / "report.html", tmp_path / "card.md"
    assert report(bundle, "-o", str(page), "--card", str(card)) == 0
    assert capsys.readouterr().out == (
        "✓ Yes. The engine trt in fp16 may replace the model, if 0.5 points of F1 do not matter.\n"
        f"wrote {page} and {card}\n"
    )
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert card.read_text(encoding="utf-8").startswith("# Deployment card: my-bundle")
    assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_it_says_the_same_as_json(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(bundle, "-o", str(tmp_path / "r.html"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "fmmt.report/1"
    assert (found["receipts"], found["damaged"], found["card"]) == (5, [], None)
    assert found["findings"][0]["engine"] == "trt, fp16"
    assert found["findings"][0]["finding"]["level"] == "good"


def test_a_negative_finding_is_written_and_is_no_failure_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_bundle(tmp_path / "b", verdict="DIFFERENT", difference=-0.03)
    assert report(tmp_path / "b", "-o", str(tmp_path / "r.html")) == 0
    assert capsys.readouterr().out.startswith("✗ No. The engine trt in fp16 must not replace the model.")


def test_a_bundle_that_nobody_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(tmp_path / "b")
    assert report(tmp_path / "b", "-o", str(tmp_path / "r.html")) == 0
    assert capsys.readouterr().out.startswith("◌ No engine was judged.")


@pytest.mark.parametrize("option", ["-o", "--card"])
def test_it_replaces_nothing_unless_told(bundle: Path, tmp_path: Path, option: str) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    arguments = ["-o", str(tmp_path / "r.html"), option, str(there)]
    assert report(bundle, *arguments) == 2
    assert there.read_text() == "mine"
    assert not (tmp_path / "r.html").exists()
    assert report(bundle, *arguments, "--force") == 0
    assert there.read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "no/such/folder/r.html"], 2, "There is no folder"),
        (["-o", "r.html", "--data", "no-data"], 2, "no-data"),
        (["-o", "r.html", "--faces-dir", "faces"], 2, "--faces-dir is about a data set"),
    ],
)
def test_what_can_not_be_is_refused(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report(bundle, *arguments) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert report(tmp_path, "-o", str(tmp_path / "r.html")) == 8


def test_it_takes_less_than_five_seconds(bundle: Path, tmp_path: Path) -> None:
    """CPU time of the whole process, because a loaded machine has its own clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*FMMT, "report", "-b", str(bundle), "-o", str(tmp_path / "r.html"), "--card", str(tmp_path / "c.md")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 5


def with_faces(document: dict[str, Any], changed: list[str], kept: dict[str, Any]) -> dict[str, Any]:
    """An evaluation in which those utterances changed, with the faces that each side kept."""
    (mode,) = document["modes"]
    one = mode["equivalence"]["changed_decisions"][0]
    mode["equivalence"]["changed_decisions"] = [one | {"utterance": name} for name in changed]
    mode["audit"]["faces"] = kept
    return document


def on(bundle: Bundle, data: Path, document: dict[str, Any]) -> dict[str, Any]:
    """An evaluation of those data."""
    digest = fingerprint(read_data(data, "test", bundle.architecture))
    return document | {"data": {"source": "talks", "split": "test", "sha256": digest}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "talks"
    folder.mkdir()
    lines = [dialogue_line(dialogue, folder) for dialogue in conversations(folder)[:3]]
    (folder / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "talks.jsonl"


@pytest.fixture
def spoken(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_bundle("roberta").path, tmp_path / "spoken")
    return Bundle.open(tmp_path / "spoken", verify=False)


def test_pictures_of_faces_say_which_were_kept(spoken: Bundle, data: Path, tmp_path: Path) -> None:
    kept = {"faces_3": {"reference": [0, 1], "engine": [0, 2]}}
    leave_receipts(
        spoken, evaluation_document=with_faces(on(spoken, data, evaluated()), ["faces_3", "faces_3", "gone_0"], kept)
    )
    assert report(spoken.path, "-o", str(tmp_path / "r.html"), "--data", str(data)) == 0
    found = PICTURE.findall((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [(state, words) for state, _, words in found] == [
        ("kept", "0: kept"),
        ("turned", "1: kept → dropped"),
        ("turned", "2: dropped → kept"),
        ("dropped", "3: dropped"),
        ("dropped", "4: dropped"),
        ("dropped", "5: dropped"),
    ]
    for _, encoded, _ in found:
        content = base64.b64decode(encoded)
        assert len(content) < 20_000
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (144, 144, 3)


def test_data_that_were_not_judged_are_refused(
    spoken: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though they have an utterance of that name."""
    leave_receipts(spoken, evaluation_document=with_faces(on(spoken, data, evaluated()), ["faces_3"], {}))
    options = ["-o", str(tmp_path / "r.html"), "--data", str(data)]
    assert report(spoken.path, *options, "--force") == 0
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    lines[0]["utterances"][0]["text"] += " indeed"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "r.html").unlink()
    assert report(spoken.path, *options) == 2
    assert "is not what an engine was judged on" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_data_that_are_not_there_are_refused_also_if_nothing_changed(spoken: Bundle, tmp_path: Path) -> None:
    leave_receipts(spoken, evaluation_document=with_faces(evaluated(), [], {}))
    assert report(spoken.path, "-o", str(tmp_path / "r.html"), "--data", str(tmp_path / "nope")) == 2


@pytest.mark.parametrize("option", ["--out", "--card"])
def test_what_is_no_file_is_never_replaced(bundle: Path, tmp_path: Path, option: str) -> None:
    """A page on `/dev/null` would take away the machine's."""
    os.mkfifo(tmp_path / "pipe")
    other = {"--out": "--card", "--card": "--out"}[option]
    assert report(bundle, option, str(tmp_path / "pipe"), other, str(tmp_path / "other"), "--force") == 2
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_is_followed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("")
    (tmp_path / "link.html").symlink_to("real.html")
    assert report(bundle, "-o", str(tmp_path / "link.html"), "--force") == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").stat().st_size > 1000


def test_page_and_card_are_two_files(bundle: Path, tmp_path: Path) -> None:
    same = str(tmp_path / "x")
    assert report(bundle, "-o", same, "--card", same) == 2
    assert not Path(same).exists()


def test_faces_without_a_word_on_the_gate_are_only_shown(spoken: Bundle, data: Path, tmp_path: Path) -> None:
    leave_receipts(spoken, evaluation_document=with_faces(on(spoken, data, evaluated()), ["faces_3"], {}))
    assert report(spoken.path, "-o", str(tmp_path / "r.html"), "--data", str(data)) == 0
    found = PICTURE.findall((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert {(state, words) for state, _, words in found} == {("shown", str(number)) for number in range(6)}
