"""Writing sealed files: whole or not at all, by one process at a time."""

import resource
import signal
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

WRITER = """
import os, signal, sys
from pathlib import Path
from tests.engines.tensorrt.engine_files import written
folder, deadly = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def counted(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
from fmmt_deploy.bundle import sealed
sealed._write_all = counted(sealed._write_all)
for name in ("open", "rename", "replace", "mkdir", "fsync", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
written(folder, plan=b"new")
print(calls)
"""
"""Kills itself at the n-th call that changes the file system."""


def run_writer(folder: Path, deadly: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(deadly)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_kill_at_every_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    steps = int(run_writer(tmp_path / "count", -1).stdout)
    assert steps >= 8
    values = []
    for deadly in range(1, steps + 1):
        folder = tmp_path / str(deadly)
        written(folder, plan=b"old")
        assert run_writer(folder, deadly).returncode == -signal.SIGKILL
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
