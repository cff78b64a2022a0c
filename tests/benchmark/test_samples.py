"""Raw samples: what is written is what is read, and whatever is damaged is refused with its line."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.benchmark.blocks import Block
from fmmt_deploy.benchmark.samples import Sample, read_samples, samples_from_blocks, write_samples
from fmmt_deploy.errors import ArtefactError, EnvironmentProblem, UsageError

SAMPLES = st.builds(
    Sample,
    contender=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    boundary=st.sampled_from(["device", "engine", "files"]),
    scenario=st.sampled_from(["single-stream", "server", "offline"]),
    block=st.integers(0, 10**6),
    index=st.integers(0, 10**6),
    ms=st.floats(1e-6, 1e9),
    start_s=st.floats(0, 1e9),
)
ONE = Sample("ort", "files", "single-stream", 0, 0, 1.5, 0.25)


def written(path: Path, *samples: Sample) -> Path:
    write_samples(path, samples, machine={"cpu": "one"}, about={"model": "tiny"})
    return path


@given(samples=st.lists(SAMPLES, max_size=20))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    machine, about = {"cpu": "EPYC\u2028", "cores": 2}, {"model": "tiny", "faces": [1, 2]}
    write_samples(path, samples, machine=machine, about=about)
    found = read_samples(path)
    assert found.samples == tuple(samples)
    assert (found.machine, found.about) == (machine, about)


def test_arrays_are_those_of_one_contender_boundary_and_scenario(tmp_path: Path) -> None:
    samples = [
        Sample(name, boundary, "single-stream", 0, i, 10.0 * i + 1, float(i))
        for i in range(3)
        for name in ("a", "b")
        for boundary in ("engine", "files")
    ]
    found = read_samples(written(tmp_path / "s.jsonl", *samples))
    assert found.keys() == (
        ("a", "engine", "single-stream"),
        ("a", "files", "single-stream"),
        ("b", "engine", "single-stream"),
        ("b", "files", "single-stream"),
    )
    np.testing.assert_array_equal(found.times_ms("a", "files", "single-stream"), [1, 11, 21])
    np.testing.assert_array_equal(found.starts_s("b", "engine", "single-stream"), [0, 1, 2])
    assert not found.times_ms("c", "files", "single-stream").size


def test_samples_of_blocks_follow_each_other() -> None:
    block = Block("ort", 4, 2.0, ((100.0, 200.0), (300.0, 400.0)), 1, 0.0)
    samples = samples_from_blocks([block], "files")
    assert [s.ms for s in samples] == [100, 200, 300, 400]
    assert [s.start_s for s in samples] == pytest.approx([2.0, 2.1, 2.3, 2.6])
    assert [(s.block, s.index) for s in samples] == [(4, 0), (4, 1), (4, 2), (4, 3)]


def test_the_file_is_a_header_and_a_line_a_sample(tmp_path: Path) -> None:
    head, line = written(tmp_path / "s.jsonl", ONE).read_text().splitlines()
    expected = {"schema": "fmmt.samples/1", "samples": 1, "machine": {"cpu": "one"}, "about": {"model": "tiny"}}
    assert json.loads(head) == expected
    assert json.loads(line) == {
        "contender": "ort",
        "boundary": "files",
        "scenario": "single-stream",
        "block": 0,
        "index": 0,
        "ms": 1.5,
        "start_s": 0.25,
    }


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('"samples": 1', '"samples": 2', "says 2 samples, there are 1"),
        ("fmmt.samples/1", "fmmt.samples/2", "should be that of fmmt.samples/1, found fmmt.samples/2"),
        ('"machine": {"cpu": "one"}', '"machine": 3', "first line"),
        ('"ms": 1.5', '"ms": -1.5', "line 2: ms should be above 0"),
        ('"ms": 1.5', '"ms": "fast"', "line 2: ms should be a finite number"),
        ('"files"', '"moon"', "line 2: boundary should be one of"),
        ('"block": 0, ', "", "line 2: block should be present"),
        ("{", "", "line 1"),
        ('0.25}\n', '0.25}', "says 1 samples"),
        ('0.25}\n', '0.2', "says 1 samples"),
        ('0.25}\n', '0.25}\n{"contender', "says 1 samples"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_with_its_line(tmp_path: Path, before: str, after: str, why: str) -> None:
    path = written(tmp_path / "s.jsonl", ONE)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ArtefactError) as raised:
        read_samples(path)
    assert why in raised.value.why
    assert raised.value.path == str(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n"])
def test_what_is_no_text_of_samples_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        read_samples(path)
    with pytest.raises(ArtefactError, match="can't be read"):
        read_samples(tmp_path / "absent.jsonl")


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", ONE)
    with pytest.raises(UsageError, match="exists"):
        written(path)
    assert read_samples(path).samples == (ONE,)
    write_samples(path, [], machine={}, about={}, force=True)
    assert read_samples(path).samples == ()


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentProblem):
        written(tmp_path / "s.jsonl", ONE)
    assert list(tmp_path.iterdir()) == []
