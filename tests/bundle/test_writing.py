"""All or nothing: what a kill, Ctrl-C and other writers leave behind."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fmmt_deploy.bundle import writing
from fmmt_deploy.bundle.atomic import create_sibling, locked, remove_stale
from fmmt_deploy.bundle.manifest import Manifest
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import write_bundle
from fmmt_deploy.errors import BundleError, UsageError
from tests.bundle.samples import leftovers, make_bundle, value_of
from tests.killing import REPOSITORY, count_calls, kill


def test_existing_bundle_needs_force(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", 1)
    with pytest.raises(UsageError, match=r"The bundle .* exists\.") as caught:
        make_bundle(tmp_path / "b", 2)
    assert "--force" in caught.value.fix
    assert value_of(tmp_path / "b") == 1
    make_bundle(tmp_path / "b", 2, force=True)
    assert value_of(tmp_path / "b") == 2
    assert leftovers(tmp_path / "b") == []


def test_nothing_but_a_bundle_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "manifest.json").write_text('{"name": "an extension"}')
    (tmp_path / "file").write_text("precious")
    for name in ("home", "file"):
        with pytest.raises(UsageError, match="is not a bundle, so it is never replaced"):
            make_bundle(tmp_path / name, force=True)
    assert (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    make_bundle(tmp_path / "empty" / "deeper" / "b")
    make_bundle(tmp_path / "unused")


def test_an_empty_directory_and_a_damaged_bundle_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    make_bundle(tmp_path / "b", 1)
    (tmp_path / "b" / "unimodal.onnx").unlink()
    make_bundle(tmp_path / "b", 2, force=True)
    assert value_of(tmp_path / "b") == 2


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    make_bundle(tmp_path / "v1", 1)
    (tmp_path / "current").symlink_to("v1")
    make_bundle(tmp_path / "current", 2, force=True)
    assert (tmp_path / "current").is_symlink()
    assert value_of(tmp_path / "v1") == 2


def test_without_commit_nothing_is_written(tmp_path: Path) -> None:
    with write_bundle(tmp_path / "b") as writer:
        writer.add_bytes("x", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError, SystemExit])
def test_ctrl_c_and_errors_remove_what_was_begun(tmp_path: Path, problem: type[BaseException]) -> None:
    def begin() -> None:
        with write_bundle(tmp_path / "b", force=True) as writer:
            writer.add_bytes("x", b"x")
            raise problem

    make_bundle(tmp_path / "b", 1)
    with pytest.raises(problem):
        begin()
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


def write_files(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    with write_bundle(path) as writer:
        for name, content in files.items():
            writer.add_bytes(name, content)
        writer.commit(manifest)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": b"{}"}, r"graphs\.unimodal\.fp32 should be a file listed"),
        ({"tokenizer.json": b"{}", "unimodal.onnx": b"?"}, "is not an ONNX graph"),
        ({"../x": b""}, "stay inside the bundle"),
    ],
)
def test_commit_refuses_what_would_not_open(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    manifest = make_bundle(tmp_path / "a").manifest
    with pytest.raises(BundleError, match=message):
        write_files(tmp_path / "b", manifest, files)
    assert leftovers(tmp_path / "a") == []


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = writing.sync_tree

    def overtaken(_: Path) -> None:
        monkeypatch.setattr(writing, "sync_tree", sync)
        make_bundle(tmp_path / "b", 3)

    monkeypatch.setattr(writing, "sync_tree", overtaken)
    with pytest.raises(UsageError, match="exists"):
        make_bundle(tmp_path / "b", 1)
    assert value_of(tmp_path / "b") == 3
    assert leftovers(tmp_path / "b") == []


WRITER = """
import sys
from pathlib import Path
from tests.bundle.samples import make_bundle
from tests.killing import deadly
with deadly(int(sys.argv[2]), "os.rename", "os.mkdir", "os.fsync", "os.unlink", "os.rmdir"):
    make_bundle(Path(sys.argv[1]), 2.0, force=True)
"""


def test_kill_at_every_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    make_bundle(tmp_path / "count" / "b", 1)
    steps = count_calls(WRITER, tmp_path / "count" / "b")
    assert steps > 10
    values = []
    for call in range(1, steps + 1):
        target = tmp_path / str(call) / "b"
        make_bundle(target, 1)
        kill(WRITER, target, call)
        values.append(value_of(target))
        make_bundle(target, 3, force=True)
        assert value_of(target) == 3
        assert leftovers(target) == []
    assert values == sorted(values), "the old one up to some instant, the new one from then on"
    assert {1.0, 2.0} == set(values)


def test_a_half_made_swap_is_put_back_by_the_next_reader(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", 1).path.rename(tmp_path / ".b.old")
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


def test_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", 1)
    code = """
import sys, time
from pathlib import Path
from fmmt_deploy.bundle.writing import write_bundle
with write_bundle(Path(sys.argv[1]), force=True) as writer:
    writer.add_bytes("graph.onnx", bytes(10**6))
    print("writing", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "b")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        make_bundle(tmp_path / "b", 2, force=True)
        assert len(leftovers(tmp_path / "b")) == 1, "a living writer's directory is left alone"
        process.kill()
    make_bundle(tmp_path / "b", 3, force=True)
    assert value_of(tmp_path / "b") == 3
    assert leftovers(tmp_path / "b") == []


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in (".b.tmp-notes", ".c.tmp-1-0123abcd", "b.tmp-1-0123abcd"):
        (tmp_path / name).mkdir()
    (tmp_path / ".b.tmp-1-0123abcd").mkdir()
    with locked(tmp_path):
        remove_stale(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.tmp-notes", ".c.tmp-1-0123abcd", "b.tmp-1-0123abcd"]


def test_many_writers_and_readers_at_once(tmp_path: Path) -> None:
    target = tmp_path / "b"
    make_bundle(target, 0)
    problems: list[BaseException] = []

    def write(value: int) -> None:
        try:
            for _ in range(5):
                make_bundle(target, value, force=True)
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, 2, 3)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        Bundle.open(target)
        reads += 1
    for writer in writers:
        writer.join()
    assert problems == []
    assert reads > 0
    assert value_of(target) in (1, 2, 3)
    assert leftovers(target) == []


def test_a_lock_waits_for_another_process(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from fmmt_deploy.bundle.atomic import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(0.5)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        with locked(tmp_path):
            assert time.monotonic() - started > 0.3


def test_the_lock_of_a_living_sibling(tmp_path: Path) -> None:
    with create_sibling(tmp_path / "b") as directory, locked(tmp_path):
        remove_stale(tmp_path / "b")
        assert directory.is_dir()
