"""Engine files: the right one is found, every other is told apart, and writing is all or nothing."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import obtain
from fmmt_deploy.engines.tensorrt.cache import (
    SCHEMA,
    EngineAbout,
    EngineFile,
    EngineKey,
    Miss,
    engine_folder,
    engine_path,
    find_engine,
    find_runnable,
    graph_sha256,
    list_engines,
    write_engine,
)
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.engines.tensorrt.obtain import engine_key, obtain_engine
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profiles, Range, default_profiles
from fmmt_deploy.engines.tensorrt.sealed import BrokenSealError, only_builder, read_sealed, write_sealed
from fmmt_deploy.engines.tensorrt.target import PORTABLE, Target, target_of
from fmmt_deploy.engines.tensorrt.timing import read_timings, timings_path, write_timings
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt.engine_files import KEY, L4, PLAN, about, written


def test_found_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path.name == f"swin-fp16-{KEY.digest[:16]}.engine"
    found = find_engine(tmp_path, KEY)
    assert isinstance(found, EngineFile)
    assert (bytes(found.plan), found.plan_bytes, found.path) == (PLAN, len(PLAN), path)
    assert found.about.key == KEY
    assert found.about.flops_share == {"fp16": 0.9, "fp32": 0.1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name], "no temporary file, no lock"


def test_nothing_there(tmp_path: Path) -> None:
    assert find_engine(tmp_path / "none", KEY) == Miss(())
    assert list(list_engines(tmp_path / "none")) == []


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"version": "1.6.0.0"}, r"built by TensorRT-RTX 1\.6\.0\.0, this is 1\.7\.1\.116"),
    ({"flavour": "trt"}, "built by TensorRT, this is TensorRT-RTX"),
    ({"target": Target("NVIDIA H200", ("9.0",))}, r"built for NVIDIA H200 \(9\.0\), this is NVIDIA L4 \(8\.9\)"),
    ({"target": PORTABLE}, r"built for compute capability 8\.0, 8\.6, 8\.9, 12\.0\+, wanted for NVIDIA L4"),
    ({"profiles": ({"faces": Range(1, 8, 32)},)}, "built with another profile"),
    ({"options": BuildOptions(optimization_level=5)}, "optimisation level 5, wanted optimisation level 3"),
    ({"graph_sha256": "1" * 64}, "built from another fp16 graph of swin"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_another_engine_is_told_apart(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    other = replace(KEY, **change)
    assert other.digest != KEY.digest
    path = written(tmp_path, other)
    missed = find_engine(tmp_path, KEY)
    assert isinstance(missed, Miss)
    (said,) = missed.reasons
    assert said.startswith(f"{path.name} is ")
    assert re.search(reason, said), said
    assert isinstance(find_engine(tmp_path, other), EngineFile)


def test_a_file_under_a_false_name_is_told_apart(tmp_path: Path) -> None:
    """The name is a convenience: what counts is inside."""
    path = written(tmp_path, replace(KEY, version="1.6.0.0"))
    path.rename(engine_path(tmp_path, KEY))
    missed = find_engine(tmp_path, KEY)
    assert isinstance(missed, Miss)
    assert "1.6.0.0, this is 1.7.1.116" in missed.reasons[0]


def test_the_same_engine_under_another_name(tmp_path: Path) -> None:
    written(tmp_path).rename(tmp_path / "swin-fp16-mine.engine")
    assert find_engine(tmp_path, KEY) == Miss(("swin-fp16-mine.engine is under another name",))
    assert isinstance(find_runnable(tmp_path, KEY), EngineFile)


def test_the_same_graph_only(tmp_path: Path) -> None:
    written(tmp_path, replace(KEY, graph="plm"))
    written(tmp_path, replace(KEY, precision="bf16"))
    assert find_engine(tmp_path, KEY) == Miss(())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_goes_unseen(tmp_path: Path, data: st.DataObject) -> None:
    path = written(tmp_path, plan=PLAN[:500])
    whole = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    if damage == "flip":
        whole[where] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole)
    else:
        path.write_bytes(whole[:where] if damage == "cut" else bytes(whole) + b"\0")
    missed = find_engine(tmp_path, KEY)
    assert isinstance(missed, Miss)
    assert len(missed.reasons) == 1
    assert "corrupt" in missed.reasons[0] or "not a file of ours" in missed.reasons[0]


def test_foreign_files(tmp_path: Path) -> None:
    path = engine_path(tmp_path, KEY)
    path.write_bytes(b"vtrt" + bytes(1000))
    assert "not a file of ours" in str(find_engine(tmp_path, KEY))
    write_sealed(path, {"schema": 1}, memoryview(PLAN))
    assert "of another version of fmmt-deploy" in str(find_engine(tmp_path, KEY))
    written(tmp_path, schema=1)  # like ours in all else
    assert "of another version of fmmt-deploy" in str(find_engine(tmp_path, KEY))
    write_sealed(path, {"schema": SCHEMA, "key": {}}, memoryview(PLAN))
    assert "of another version of fmmt-deploy" in str(find_engine(tmp_path, KEY))
    ((listed, wrong),) = list_engines(tmp_path)
    assert listed == path
    assert isinstance(wrong, str)


def test_listed(tmp_path: Path) -> None:
    written(tmp_path)
    ((_, found),) = list_engines(tmp_path)
    assert isinstance(found, EngineAbout)
    assert found.key == KEY


def test_a_file_that_is_cut_short_is_listed_as_such(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    ((_, wrong),) = list_engines(tmp_path)
    assert "bytes are recorded" in str(wrong)


def test_who_has_opened_an_engine_keeps_it(tmp_path: Path) -> None:
    """A plan is mapped, not copied: a new one must come in a new file, never in the old one's bytes."""
    written(tmp_path, plan=b"old" * 2000)
    opened = find_engine(tmp_path, KEY)
    assert isinstance(opened, EngineFile)
    written(tmp_path, plan=b"new" * 2000)
    assert bytes(opened.plan) == b"old" * 2000


def test_the_cache_needs_no_tensorrt() -> None:
    """So nothing that is found or refused was shown to it."""
    code = (
        "import sys, fmmt_deploy.engines.tensorrt.cache; sys.exit(any('tensorrt_rtx' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_the_best_that_runs_here(tmp_path: Path) -> None:
    other = {"profiles": ({"faces": Range(1, 1, 8)},)}
    written(tmp_path, replace(KEY, **other), b"old", created="2026-01-01T00:00:00+00:00")
    written(tmp_path, KEY, b"new", created="2026-06-01T00:00:00+00:00")
    wanted = replace(KEY, profiles=())
    found = find_runnable(tmp_path, wanted)
    assert isinstance(found, EngineFile)
    assert bytes(found.plan) == b"new"
    written(tmp_path, replace(KEY, options=BuildOptions(optimization_level=5)), b"best", created="2026-01-01T00:00:00")
    best = find_runnable(tmp_path, wanted)
    assert isinstance(best, EngineFile)
    assert bytes(best.plan) == b"best"
    best.path.write_bytes(best.path.read_bytes()[:-1])
    after = find_runnable(tmp_path, wanted)
    assert isinstance(after, EngineFile)
    assert bytes(after.plan) == b"new", "a damaged one is passed over"
    missed = find_runnable(tmp_path, replace(wanted, version="2.0"))
    assert isinstance(missed, Miss)
    assert len(missed.reasons) == 3


def test_of_equals_the_newest(tmp_path: Path) -> None:
    keys = [replace(KEY, profiles=({"faces": Range(1, 1, most)},)) for most in (8, 16, 32)]
    keys.sort(key=lambda key: engine_path(tmp_path, key).name)
    for month, key in zip((4, 6, 5), keys, strict=True):  # neither the first nor the last by name
        written(tmp_path, key, str(month).encode(), created=f"2026-0{month}-01T00:00:00+00:00")
    found = find_runnable(tmp_path, replace(KEY, profiles=()))
    assert isinstance(found, EngineFile)
    assert bytes(found.plan) == b"6"


@pytest.mark.parametrize(
    ("capability", "runs"),
    [("8.0", True), ("8.9", True), ("12.0", True), ("12.1", True), ("9.0", False), ("7.5", False)],
)
def test_what_a_portable_engine_runs_on(tmp_path: Path, capability: str, runs: bool) -> None:
    written(tmp_path, replace(KEY, target=PORTABLE))
    found = find_runnable(tmp_path, replace(KEY, target=Target("some GPU", (capability,))))
    assert isinstance(found, EngineFile) is runs


def test_targets() -> None:
    gpu = Gpu("NVIDIA L4", "8.9", 24 * 10**9, "13.0")
    assert target_of("trt", gpu) == target_of("trt-rtx", gpu) == L4
    assert target_of("trt-rtx", None) == PORTABLE
    with pytest.raises(EnvironmentProblem, match="builds an engine on the GPU that it is for, and none is found"):
        target_of("trt", None)
    assert not L4.runs_on(PORTABLE)
    assert not L4.runs_on(Target("NVIDIA L40S", ("8.9",)))


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
from fmmt_deploy.engines.tensorrt import sealed
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
from fmmt_deploy.engines.tensorrt.sealed import _temporary
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
from fmmt_deploy.engines.tensorrt.sealed import only_builder
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
from fmmt_deploy.engines.tensorrt.sealed import only_builder
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


def test_the_key_of_a_bundle(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    digests = {graph: graph_sha256(bundle, graph, "fp32") for graph in bundle.manifest.graphs}
    assert len(set(digests.values())) == 3
    files = dict(bundle.manifest.files)
    weights = "graphs/fp32/swin.safetensors"
    changed = Bundle(
        bundle.path,
        replace(bundle.manifest, files={**files, weights: replace(files[weights], sha256="f" * 64)}),
    )
    assert graph_sha256(changed, "swin", "fp32") != digests["swin"], "weights in another file count"
    assert graph_sha256(changed, "plm", "fp32") == digests["plm"]
    assert engine_folder(bundle) == bundle.path / "engines"
    assert engine_folder(bundle, tmp_path) == tmp_path


def key_of(bundle: Bundle, gpu: Gpu | None = None, profiles: Profiles | None = None) -> EngineKey:
    profiles = profiles or default_profiles(bundle.manifest.architecture)
    return engine_key(bundle, "unimodal", "fp32", profiles, BuildOptions(), "trt-rtx", gpu)


@pytest.fixture
def bundle(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Bundle:
    """A bundle of its own: engines are put into it."""
    return Bundle.open(Path(shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")))


def test_built_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, key = engine_folder(bundle), key_of(bundle)
    first = obtain_engine(bundle, key, folder)
    assert first.plan is not None
    assert bytes(first.file.plan[:4]) == b"vtrt"
    plan_from_onnx, builds = obtain.plan_from_onnx, []
    monkeypatch.setattr(obtain, "plan_from_onnx", lambda *a: builds.append(a) or plan_from_onnx(*a))
    second = obtain_engine(bundle, key, folder)
    assert (second.plan, builds) == (None, [])
    assert second.file.path == first.file.path
    assert obtain_engine(bundle, key, folder, force=True).plan is not None
    assert len(builds) == 1
    Bundle.open(bundle.path)  # what is in engines/ is no business of the manifest


@pytest.mark.parametrize("damage", ["corrupt", "cut", "foreign"])
def test_what_is_damaged_is_built_again_unseen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    import tensorrt_rtx

    folder, key = engine_folder(bundle), key_of(bundle)
    path = obtain_engine(bundle, key, folder).file.path
    whole = path.read_bytes()
    content = {"corrupt": whole[:-1] + bytes([whole[-1] ^ 1]), "cut": whole[:1000], "foreign": b"vtrt" + whole[-1000:]}
    path.write_bytes(content[damage])

    class Untouched:
        def __init__(self, *_: object) -> None:
            raise AssertionError("TensorRT was shown a file that is not whole")

    monkeypatch.setattr(tensorrt_rtx, "Runtime", Untouched)
    again = obtain_engine(bundle, key, folder)
    assert again.plan is not None
    assert path.name in again.instead_of[0]
    assert isinstance(find_engine(folder, key), EngineFile)


def test_another_gpu_s_is_left_and_said(bundle: Bundle) -> None:
    folder, key = engine_folder(bundle), key_of(bundle)
    foreign = replace(key, target=L4)
    write_engine(folder, about(foreign), memoryview(PLAN))
    obtained = obtain_engine(bundle, key, folder)
    assert "built for NVIDIA L4 (8.9)" in obtained.instead_of[0]
    assert engine_path(folder, foreign).exists()


def test_a_failed_build_leaves_nothing(bundle: Bundle) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = engine_folder(bundle)
    with pytest.raises(KeyboardInterrupt):
        obtain_engine(bundle, key_of(bundle), folder, progress=stop)
    assert list(folder.iterdir()) == []


def test_a_bundle_that_is_replaced_meanwhile(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_from_onnx = obtain.plan_from_onnx

    def replaced(*arguments: Any) -> Any:
        plan = plan_from_onnx(*arguments)
        entry = bundle.manifest.files["graphs/fp32/unimodal.onnx"]
        files = {**bundle.manifest.files, "graphs/fp32/unimodal.onnx": replace(entry, sha256="e" * 64)}
        changed = Bundle(bundle.path, replace(bundle.manifest, files=files))
        monkeypatch.setattr(obtain.Bundle, "open", lambda *_, **__: changed)
        return plan

    monkeypatch.setattr(obtain, "plan_from_onnx", replaced)
    with pytest.raises(BundleError, match="was replaced while unimodal was being built"):
        obtain_engine(bundle, key_of(bundle), engine_folder(bundle))
    assert list(engine_folder(bundle).iterdir()) == []


def test_two_processes_build_once(bundle: Bundle) -> None:
    code = """
import sys
from pathlib import Path
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.cache import engine_folder
from fmmt_deploy.engines.tensorrt.obtain import obtain_engine
from tests.engines.tensorrt.test_cache import key_of
bundle = Bundle.open(Path(sys.argv[1]))
print("built" if obtain_engine(bundle, key_of(bundle), engine_folder(bundle)).plan else "found")
"""
    command = [sys.executable, "-c", code, str(bundle.path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == ["built", "found"]
    assert isinstance(find_engine(engine_folder(bundle), key_of(bundle)), EngineFile)


def test_a_bundle_that_is_read_only(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is found all the same; only building needs to write."""
    folder, key = engine_folder(bundle), key_of(bundle)
    obtain_engine(bundle, key, folder)
    opened = os.open

    def refused(path: Any, flags: int, *arguments: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *arguments)

    monkeypatch.setattr(os, "open", refused)
    assert obtain_engine(bundle, key, folder).plan is None
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        obtain_engine(bundle, key, folder, force=True)


def test_timings(tmp_path: Path) -> None:
    key = replace(KEY, flavour="trt", version="11.4.0")
    assert read_timings(tmp_path, key) is None
    write_timings(tmp_path, key, b"timings")
    assert timings_path(tmp_path, key).name == "timing-trt-11.4.0-NVIDIA-L4-8.9.cache"
    assert read_timings(tmp_path, key) == b"timings"
    other = replace(key, version="11.5.0")
    timings_path(tmp_path, key).rename(timings_path(tmp_path, other))
    assert read_timings(tmp_path, other) is None, "the name is a convenience"
    path = timings_path(tmp_path, key)
    path.write_bytes(b"not ours")
    assert read_timings(tmp_path, key) is None


def test_sealed_round_trip(tmp_path: Path) -> None:
    write_sealed(tmp_path / "f", {"ä": [1, None]}, memoryview(b""))
    values, content = read_sealed(tmp_path / "f")
    assert (values, bytes(content)) == ({"ä": [1, None]}, b"")
    with pytest.raises(BrokenSealError):
        read_sealed(REPOSITORY / "README.md")
