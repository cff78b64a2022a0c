"""Writing sealed files: whole or not at all, by one process at a time."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmmt_deploy.bundle.sealed import BrokenSealError, only_builder, read_sealed, write_sealed
from fmmt_deploy.engines.tensorrt.cache import (
    EngineFile,
    engine_path,
    find_engine,
)
from fmmt_deploy.errors import EnvironmentProblem
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt.engine_files import KEY, written
from tests.killing import count_calls, kill

WRITER = """
import sys
from pathlib import Path
from tests.engines.tensorrt.engine_files import written
from tests.killing import deadly
calls = [f"os.{name}" for name in ("open", "rename", "replace", "mkdir", "fsync", "unlink")]
with deadly(int(sys.argv[2]), "fmmt_deploy.bundle.sealed._write_all", *calls):
    written(Path(sys.argv[1]), plan=b"new")
"""


def test_kill_at_every_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    steps = count_calls(WRITER, tmp_path / "count")
    assert steps >= 8
    values = []
    for call in range(1, steps + 1):
        folder = tmp_path / str(call)
        written(folder, plan=b"old")
        kill(WRITER, folder, call)
        found = find_engine(folder, KEY)
        assert isinstance(found, EngineFile)
        values.append(bytes(found.plan))
        written(folder, plan=b"next")
        assert [entry.name for entry in folder.iterdir()] == [engine_path(folder, KEY).name], "stale files are removed"
    assert values == sorted(values, reverse=True), "the old one up to some instant, the new one from then on"
    assert set(values) == {b"old", b"new"}


def test_a_living_writer_s_file_is_left_alone(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from fmmt_deploy.bundle.sealed import _temporary
with _temporary(Path(sys.argv[1])) as (file, commit):
    print("writing", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.engine")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        written(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
    written(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_full_disk(tmp_path: Path) -> None:
    written(tmp_path, plan=b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        with pytest.raises(EnvironmentProblem, match="no room for"):
            written(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = find_engine(tmp_path, KEY)
    assert isinstance(found, EngineFile)
    assert bytes(found.plan) == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_room_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(EnvironmentProblem, match="no room for"):
        written(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_builder_waits(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from fmmt_deploy.bundle.sealed import only_builder
with only_builder(Path(sys.argv[1])):
    print("building", flush=True)
    time.sleep(0.5)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.engine")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        with only_builder(tmp_path / "a.engine"):
            assert time.monotonic() - started > 0.3
        with only_builder(tmp_path / "b.engine"):
            pass
    assert list(tmp_path.iterdir()) == [], "locks are removed"


def test_many_builders_of_one_file(tmp_path: Path) -> None:
    """Whoever has the right is alone, though the lock's file comes and goes."""
    code = """
import sys, time
from pathlib import Path
from fmmt_deploy.bundle.sealed import only_builder
path = Path(sys.argv[1])
alone = path.with_name("alone")
for _ in range(50):
    with only_builder(path):
        alone.mkdir()
        alone.rmdir()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.engine")]
    writers = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_sealed_round_trip(tmp_path: Path) -> None:
    write_sealed(tmp_path / "f", {"ä": [1, None]}, memoryview(b""))
    values, content = read_sealed(tmp_path / "f")
    assert (values, bytes(content)) == ({"ä": [1, None]}, b"")
    with pytest.raises(BrokenSealError):
        read_sealed(REPOSITORY / "README.md")
