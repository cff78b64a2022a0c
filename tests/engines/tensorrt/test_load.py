"""A bundle's engines are found, trusted, deserialised and closed; and what is said where they are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.tensorrt import cuda, load
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.engines.tensorrt.load import engines_from_bundle, engines_from_plans
from fmmt_deploy.engines.tensorrt.runtime_cache import runtime_cache_path
from fmmt_deploy.engines.tensorrt.target import Target
from fmmt_deploy.engines.tensorrt.trust import verdict_path, write_verdict
from fmmt_deploy.errors import ArtefactError, BundleError, EnvironmentProblem, UsageError
from tests.cli.running import exit_code
from tests.engines.tensorrt.simulated import (
    VERSION,
    SimulatedRuntime,
    SimulatedTensorRT,
    use_simulated,
    write_simulated_engines,
)
from tests.engines.tensorrt.simulated_device import SimulatedDevice
from tests.golden import GOLDEN

FP32 = {"unimodal": "fp32"}


@pytest.fixture
def bundle(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Bundle:
    """A copy, because engines are written into it."""
    shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRT:
    return use_simulated(monkeypatch)


@pytest.mark.parametrize("kind", ["trt", "trt-rtx"])
def test_a_bundle_on_the_simulated_gpu(bundle: Bundle, trt: SimulatedTensorRT, kind: str) -> None:
    trt.rtx = kind == "trt-rtx"
    files = write_simulated_engines(bundle, flavour=kind)  # type: ignore[arg-type]
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    with open_engines(bundle, kind) as engines:  # type: ignore[arg-type]
        assert (engines.kind, engines.face_batch, engines.precisions) == (kind, None, FP32)
        assert isinstance(engines["unimodal"], TensorRTEngine)
        found = engines["unimodal"].run(stage.inputs)
    np.testing.assert_allclose(found["logits"], stage.outputs["logits"], rtol=0, atol=1e-5)
    assert runtime_cache_path(files["unimodal"].path).exists() == (kind == "trt-rtx")
    assert trt.device.leaks() == []
    assert trt.device.is_closed
    Bundle.open(bundle.path)


def test_the_command_line(
    tiny_bundle: Callable[[str], Bundle], trt: SimulatedTensorRT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fmmt run` answers the golden data as it does in ONNX Runtime."""
    shutil.copytree(tiny_bundle("roberta").path, path := tmp_path / "bundle")
    write_simulated_engines(Bundle.open(path))
    answers = []
    for engine in ("ort", "trt-rtx"):
        out = tmp_path / f"{engine}.jsonl"
        arguments = ("-b", str(path), "--data", str(GOLDEN / "roberta"), "--engine", engine, "-o", str(out), "-q")
        assert exit_code("run", *arguments) == 0
        answers.append([json.loads(line) for line in out.read_text().splitlines()])
    ort, simulated = answers
    assert capsys.readouterr().err == ""
    assert len(ort) == len(simulated) > 10
    for expected, found in zip(ort, simulated, strict=True):
        np.testing.assert_allclose(numbers(found), numbers(expected), rtol=0, atol=1e-5)
    assert trt.executed > len(ort) / 8
    assert trt.device.leaks() == []


def test_engines_that_are_kept_elsewhere(bundle: Bundle, trt: SimulatedTensorRT, tmp_path: Path) -> None:
    write_simulated_engines(bundle)
    (bundle.path / "engines").rename(tmp_path / "kept")
    with pytest.raises(BundleError, match="no fp32 engine"):
        open_engines(bundle, "trt-rtx")
    with pytest.raises(BundleError, match=f"fmmt build .* --cache {tmp_path}$"):
        open_engines(bundle, "trt-rtx", cache=tmp_path)
    arguments = ("parity", "-b", str(bundle.path), "--engine", "trt-rtx", "--reference", "recorded", "--cache")
    assert exit_code(*arguments, str(tmp_path)) == 8
    assert exit_code(*arguments, str(tmp_path / "kept")) == 0
    assert trt.executed > 0


def numbers(value: object) -> list[float]:
    """All numbers in an answer, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def test_without_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any engine is looked at: there is none, and that is not what is said."""
    monkeypatch.setattr(cuda, "current_gpu", lambda: None)
    with pytest.raises(EnvironmentProblem, match="No NVIDIA GPU was found") as caught:
        open_engines(bundle, "trt-rtx")
    assert caught.value.exit_code == 3
    assert "--engine ort" in caught.value.fix


def test_nothing_built(bundle: Bundle, trt: SimulatedTensorRT) -> None:
    with pytest.raises(BundleError, match="has no fp32 engine of unimodal that runs here") as caught:
        open_engines(bundle, "trt-rtx")
    assert caught.value.why == "Nothing was built for TensorRT-RTX yet."
    assert caught.value.fix == f"fmmt build -b {bundle.path} --engine trt-rtx --precision fp32"
    assert not trt.device.streams


MISFITS = {
    "version": ({"version": "1.0.0.0"}, "built by TensorRT-RTX 1.0.0.0, this is 1.7.1.116"),
    "gpu": ({"target": Target("NVIDIA L4", ("8.9",))}, "built for NVIDIA L4 (8.9), this is Simulated GPU (8.9)"),
    "graph": ({"graph_sha256": "0" * 64}, "built from another fp32 graph of unimodal"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_was_built_for_something_else(bundle: Bundle, trt: SimulatedTensorRT, misfit: str) -> None:
    del trt
    changes, reason = MISFITS[misfit]
    write_simulated_engines(bundle, **changes)
    with pytest.raises(BundleError, match="no fp32 engine of unimodal") as caught:
        open_engines(bundle, "trt-rtx")
    assert reason in caught.value.why


def test_only_engines_that_passed_the_gate(bundle: Bundle, trt: SimulatedTensorRT) -> None:
    del trt
    file = write_simulated_engines(bundle, trusted=False)["unimodal"]
    with pytest.raises(ArtefactError, match="not been held against itself") as caught:
        open_engines(bundle, "trt-rtx")
    assert "fmmt parity --self" in caught.value.fix
    assert not verdict_path(file.path).exists()
    with engines_from_bundle(bundle, "trt-rtx", FP32, trusted_only=False) as engines:  # type: ignore[arg-type]
        assert "unimodal" in engines


def test_a_verdict_from_another_gpu(bundle: Bundle, trt: SimulatedTensorRT) -> None:
    """A portable engine may have been held against itself elsewhere, in other kernels."""
    file = write_simulated_engines(bundle, trusted=False)["unimodal"]
    write_verdict(file.path, checks=("repeat",), failed=(), gpu="NVIDIA L4", version=VERSION)
    with pytest.raises(ArtefactError, match=f"on NVIDIA L4, not on {trt.device.gpu.name}"):
        open_engines(bundle, "trt-rtx")


def test_a_plan_that_tensorrt_refuses(trt: SimulatedTensorRT) -> None:
    with pytest.raises(BundleError, match="TensorRT-RTX refuses the engine of unimodal") as caught:
        engines_from_plans("trt-rtx", trt, trt.device, {"unimodal": (memoryview(b"no plan"), None)})
    assert "magic tag does not match" in caught.value.why
    assert trt.device.leaks() == []
    assert trt.device.is_closed


def test_a_gpu_that_tensorrt_refuses(trt: SimulatedTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorRT-RTX 1.7 has to say of an H200, by its library."""
    said = "The engine cannot run on this GPU, which has compute capability 9.0. "
    said += "TensorRT-RTX does not support this compute capability, so the engine cannot be rebuilt for it."

    def refuse(runtime: SimulatedRuntime, _: memoryview) -> None:
        runtime._logger.log(trt.ILogger.ERROR, said)

    monkeypatch.setattr(SimulatedRuntime, "deserialize_cuda_engine", refuse)
    with pytest.raises(EnvironmentProblem, match="does not support this GPU") as caught:
        engines_from_plans("trt-rtx", trt, trt.device, {"unimodal": (memoryview(b"vtrt"), None)})
    assert caught.value.why == said
    assert trt.device.leaks() == []


def test_a_plan_that_the_real_tensorrt_refuses() -> None:
    """Its own calls, as far as they go without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx")
    device = SimulatedDevice()
    with pytest.raises(BundleError, match="TensorRT-RTX refuses the engine of swin") as caught:
        engines_from_plans("trt-rtx", trt, device, {"swin": (memoryview(b"no plan" * 100), None)})
    assert caught.value.why
    assert caught.value.exit_code == 8
    assert device.leaks() == []


def test_what_is_no_tensorrt(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="ort is no TensorRT"):
        load.engines_from_bundle(bundle, "ort", FP32)  # type: ignore[arg-type]


def test_compiled_kernels_are_kept(bundle: Bundle, trt: SimulatedTensorRT, caplog: pytest.LogCaptureFixture) -> None:
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    kernels = runtime_cache_path(write_simulated_engines(bundle)["unimodal"].path)

    def run() -> None:
        trt.device.is_closed = False
        with open_engines(bundle, "trt-rtx") as engines:
            engines["unimodal"].run(stage.inputs)

    run()
    written = kernels.stat().st_mtime_ns
    assert b"kernels unimodal" in kernels.read_bytes()
    run()
    assert kernels.stat().st_mtime_ns == written  # nothing new was compiled
    kernels.write_bytes(kernels.read_bytes()[:-1])
    run()
    assert "are not used: corrupt" in caplog.text
    assert kernels.stat().st_mtime_ns != written
    assert b"kernels unimodal" in kernels.read_bytes()
