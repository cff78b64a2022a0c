"""Engine files: the right one is found, every other is told apart, and writing is all or nothing."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.sealed import write_sealed
from fmmt_deploy.engines.tensorrt.cache import (
    SCHEMA,
    EngineAbout,
    EngineFile,
    Miss,
    engine_path,
    find_engine,
    find_runnable,
    list_engines,
)
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Range
from fmmt_deploy.engines.tensorrt.target import PORTABLE, PORTABLE_FP8, Target, check_has_fp8, target_of
from fmmt_deploy.errors import EnvironmentProblem, PrecisionError
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt.engine_files import KEY, L4, PLAN, written


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


@pytest.mark.parametrize(("capability", "runs"), [("8.6", False), ("8.9", True), ("12.0", True), ("12.1", True)])
def test_what_a_portable_engine_in_fp8_runs_on(tmp_path: Path, capability: str, runs: bool) -> None:
    written(tmp_path, replace(KEY, precision="fp8", target=PORTABLE_FP8))
    found = find_runnable(tmp_path, replace(KEY, precision="fp8", target=Target("some GPU", (capability,))))
    assert isinstance(found, EngineFile) is runs


def test_int8_is_not_int8_fp32(tmp_path: Path) -> None:
    """Though the name of the one begins like that of the other."""
    wide = replace(KEY, precision="int8-fp32")
    path = written(tmp_path, wide)
    assert path.name.startswith("swin-int8-fp32-")
    assert find_runnable(tmp_path, replace(KEY, precision="int8")) == Miss(())
    assert find_engine(tmp_path, replace(KEY, precision="int8")) == Miss(())
    found = find_runnable(tmp_path, wide)
    assert isinstance(found, EngineFile)
    assert found.path == path


def test_targets_of_fp8() -> None:
    """Ada, Hopper, Blackwell have it; Turing and Ampere are refused before anything is built."""
    assert target_of("trt-rtx", None, "fp8") == PORTABLE_FP8
    assert target_of("trt-rtx", None, "int8") == PORTABLE
    for capability in ("8.9", "9.0", "10.0", "12.0"):
        target_of("trt", Gpu("new", capability, 0, "13.0"), "fp8")
    for capability in ("7.5", "8.0", "8.6", "8.7"):
        gpu = Gpu("NVIDIA A10", capability, 0, "13.0")
        assert target_of("trt", gpu, "int8").gpu == gpu.name
        with pytest.raises(PrecisionError, match=rf"NVIDIA A10 \({capability}\) has no FP8") as caught:
            target_of("trt", gpu, "fp8")
        assert caught.value.exit_code == 9
        assert "L4" in caught.value.why
        assert "int8" in caught.value.fix
    with pytest.raises(PrecisionError, match=r"Compute capability 8\.0, 8\.6 has no FP8"):
        check_has_fp8(PORTABLE)


def test_targets() -> None:
    gpu = Gpu("NVIDIA L4", "8.9", 24 * 10**9, "13.0")
    assert target_of("trt", gpu) == target_of("trt-rtx", gpu) == L4
    assert target_of("trt-rtx", None) == PORTABLE
    with pytest.raises(EnvironmentProblem, match="builds an engine on the GPU that it is for, and none is found"):
        target_of("trt", None)
    assert not L4.runs_on(PORTABLE)
    assert not L4.runs_on(Target("NVIDIA L40S", ("8.9",)))
