"""Engines of a bundle: built once, found again, built anew where what is there does not fit."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import obtain
from fmmt_deploy.engines.tensorrt.cache import (
    EngineFile,
    EngineKey,
    engine_folder,
    engine_path,
    find_engine,
    graph_sha256,
    write_engine,
)
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.engines.tensorrt.obtain import engine_key, obtain_engine
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profiles, default_profiles
from fmmt_deploy.engines.tensorrt.timing import read_timings, timings_path, write_timings
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from tests.cli.running import REPOSITORY
from tests.engines.tensorrt.engine_files import KEY, L4, PLAN, about


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
from tests.engines.tensorrt.test_obtain import key_of
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
