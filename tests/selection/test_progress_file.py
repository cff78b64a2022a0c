"""The file that a search goes on from: what it keeps, and what it does not believe."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import UsageError
from fmmt_deploy.selection.progress_file import Candidate, Candidates, ProgressFile, Verdict, inputs_digest
from tests.selection.stand_ins import planted_judgement

ONE: Candidates = {"plm": Candidate("int8", ("plm.encoder.layer.0/*",))}
OTHER: Candidates = {"plm": Candidate("int8")}


def filled(path: Path, inputs: str = "a") -> ProgressFile:
    progress = ProgressFile(path, inputs)
    progress.add(ONE, Verdict(planted_judgement(("plm",), 0.01)))
    progress.add(OTHER, Verdict(None, "The weight w overflows fp16."))
    return progress


@pytest.mark.parametrize("noise", [0.0, 0.0123456789, math.inf])
def test_round_trip(tmp_path: Path, noise: float) -> None:
    path = tmp_path / "new folder" / "state.jsonl"
    verdict = Verdict(planted_judgement(("plm", "fusion"), noise))
    ProgressFile(path, "a").add(ONE, verdict)
    found = ProgressFile(path, "a").find(ONE)
    assert repr(found) == repr(verdict)  # to the last digit, also infinite or NaN
    assert ProgressFile(path, "a").find(OTHER) is None


def test_what_is_of_other_inputs_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    filled(path, "a")
    progress = ProgressFile(path, "b")
    assert (len(progress), progress.passed_over, progress.find(ONE)) == (0, 2, None)
    filled(path, "b")
    assert [(len(p), p.passed_over) for p in (ProgressFile(path, "a"), ProgressFile(path, "b"))] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "state.jsonl"
    filled(path)
    path.write_text(path.read_text()[:-cut])
    progress = ProgressFile(path, "a")
    assert (len(progress), progress.passed_over) == ((2, 0) if cut == 1 else (1, 1))  # only the line's end is missing
    progress.add({"swin": Candidate("fp16")}, Verdict(None, "no"))
    assert len(ProgressFile(path, "a")) == len(progress)
    path.write_text(path.read_text()[:15])
    assert (len(ProgressFile(path, "a")), ProgressFile(path, "a").passed_over) == (0, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"utterances": 1000', '"utterances": "many"'),
        ('"sqnr_db": "20.0"', '"sqnr_db": "twenty"'),
        ('"sqnr_db": "20.0"', '"sqnr_db": 20.0'),
        ('"precision": "int8"', '"precision": "int4"'),
        ('"failure": ""', '"failure": "both"'),
    ],
)
def test_lines_that_make_no_sense_don_t_count(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "state.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    assert old in lines[0]
    path.write_text("\n".join([lines[1], lines[0].replace(old, new)]) + "\n")
    progress = ProgressFile(path, "a")
    assert (len(progress), progress.passed_over, progress.find(ONE)) == (1, 1, None)


@pytest.mark.parametrize("content", ["precious notes\n", '{"schema": "fmmt.run/1"}\n', "[]\n"])
def test_another_s_file_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="is not a search's progress"):
        ProgressFile(path, "a")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not a search's progress"):
        ProgressFile(path, "a")


def test_inputs_digest(tiny_bundle: Callable[[str], Bundle]) -> None:
    one, other = tiny_bundle("roberta"), tiny_bundle("unimodal")
    digests = {
        inputs_digest(one, "d", {"seed": 0}),
        inputs_digest(other, "d", {"seed": 0}),
        inputs_digest(one, "e", {"seed": 0}),
        inputs_digest(one, "d", {"seed": 1}),
    }
    assert len(digests) == 4
    assert inputs_digest(one, "d", {"a": 1, "b": 2}) == inputs_digest(one, "d", {"b": 2, "a": 1})
