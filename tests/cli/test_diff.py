"""`fmmt diff`: what it says, what its page shows, and what it refuses."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli.app import main
from fmmt_deploy.data.faces import read_face
from fmmt_deploy.types import EMOTIONS
from tests.cli.running import exit_code
from tests.cli.test_verdict import dialogue_line
from tests.pipeline.conversations import conversations
from tests.selection.lowered import lowered_bundle

MANY = "faces_3"
"""Has six faces, as many as the model has places for."""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lowered") / "my-bundle"
    return lowered_bundle(tiny_bundle("roberta"), folder, {"plm": ("bf16",)}).path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = [dialogue_line(dialogue, folder) for dialogue in conversations(folder)[:3]]
    (folder / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "talks.jsonl"


@pytest.fixture
def arguments(bundle: Path, data: Path) -> list[str]:
    """Of a run that differs in `plm` only."""
    precision = ("--engine", "emulated", "--precision", "plm=bf16", "--threads", "1", "-q")
    return ["-b", str(bundle), "--data", str(data), "--reference", "ort", *precision]


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_what_it_says(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("diff", MANY, *arguments) == 0
    shown = capsys.readouterr()
    titles = ("THE ANSWER", "FACES", "ERRORS STAGE BY STAGE", "WHICH GRAPH IS TO BLAME")
    assert [line for line in shown.out.splitlines() if line in titles] == list(titles)
    assert "ort fp32" in shown.out
    assert "emulated plm=bf16" in shown.out
    assert "Of 6 faces the reference keeps " in shown.out
    assert "squared error comes from plm" in shown.out
    assert shown.err == ""


def test_the_document(arguments: list[str], bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.relative_to(bundle) for path in bundle.rglob("*"))
    assert exit_code("diff", MANY, *arguments, "--noise", "gumbel", "--seed", "3", "--json") == 0
    found = document(capsys)
    assert (found["schema"], found["utterance"], found["reference"]["decision"]) == (
        "fmmt.diff/1",
        MANY,
        EMOTIONS[int(np.argmax(found["reference"]["logits"]))],
    )
    assert (found["noise"], found["seed"], found["html"]) == ("gumbel", 3, None)
    assert found["precisions"] == {"swin": "fp32", "plm": "bf16", "fusion": "fp32"}
    blame = {each["graph"]: each["error_share"] for each in found["blame"]}
    assert blame["plm"] > 0.99
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert stages["token states"]["largest"] > 1e-3 > 1e-5 > stages["face logits"]["largest"]
    assert len(found["faces"]) == 6
    assert sorted(path.relative_to(bundle) for path in bundle.rglob("*")) == before  # no receipt, for it judges nothing


def test_noise_is_that_of_the_whole_data_set(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded draws are one table for all utterances, of which this one's rows are taken."""
    faces = {
        "faces_0": 0,
        "faces_1": 1,
        "faces_2": 6,
        MANY: 6,
        "faces_4": 3,
        "alone_0": 4,
        "silent_0": 2,
        "silent_3": 1,
    }
    draws = np.zeros((sum(faces.values()), 7), np.float32)
    draws[7 + 2, 4] = 30.0  # the third face of `MANY`
    np.savez(tmp_path / "draws.npz", gumbel_noise=draws)
    assert exit_code("diff", MANY, *arguments, "--noise", str(tmp_path / "draws.npz"), "--json") == 0
    found = document(capsys)
    assert found["faces"][2]["reference_confidence"] == pytest.approx(1)
    assert found["faces"][2]["emotion"] == "joy"
    assert all(face["reference_confidence"] < 0.999 for face in found["faces"] if face["face"] != 2)
    assert found["seed"] is None


def test_the_page_holds_the_faces(
    arguments: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert exit_code("diff", MANY, *arguments, "--html", str(page)) == 0
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 6
    (line,) = (x for x in map(json.loads, data.read_text().splitlines()) if x["id"] == "faces")
    for picture, name in zip(pictures, line["utterances"][3]["faces"], strict=False):
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        expected = cv2.resize(read_face(data.parent / name), (144, 144), interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(int) - expected).mean() < 4  # a JPEG of the same face, red still red
    assert len(text) < 200_000
    assert "<code>my-bundle</code>" in text
    assert str(data.parent) not in text  # a page may be passed on
    assert "<script" not in text
    assert exit_code("diff", "nobody", *arguments, "--html", str(page)) == 2
    assert f"{page} exists" in capsys.readouterr().err  # said first, before any work is done
    assert exit_code("diff", MANY, *arguments, "--html", str(page), "--force", "--json") == 0
    assert document(capsys)["html"] == str(page)


def test_an_unknown_utterance(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("diff", "faces_33", *arguments, "--html", str(tmp_path / "page.html")) == 2
    said = capsys.readouterr().err
    assert "There is no utterance 'faces_33'" in said
    assert "Did you mean: faces_3" in said
    assert list(tmp_path.iterdir()) == []


def test_the_utterance_is_needed(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diff", *arguments])
    assert caught.value.code == 2
