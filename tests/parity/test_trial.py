"""TensorRT's engines are tried before they are trusted; on a simulated GPU."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmmt_deploy.bundle.precisions import float32
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt import gpu
from fmmt_deploy.engines.tensorrt.cache import write_engine
from fmmt_deploy.engines.tensorrt.trust import read_verdict, verdict_path
from fmmt_deploy.errors import ArtefactError, BundleError
from fmmt_deploy.parity import trial
from fmmt_deploy.parity.trial import try_engine_files, try_engines
from tests.cli.running import exit_code
from tests.engines.tensorrt.simulated import SimulatedTensorRT, use_simulated, write_simulated_engines
from tests.parity.misconduct import behaving, rows_leak

Bundles = Callable[[str], Bundle]


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRT:
    return fresh(monkeypatch)


def fresh(monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRT:
    """A GPU that nobody has used: whoever tries engines closes theirs."""
    trt = use_simulated(monkeypatch)
    monkeypatch.setattr(trial, "open_device", lambda: trt.device)
    monkeypatch.setattr(trial, "import_flavour", lambda _: trt)
    return trt


@pytest.mark.usefixtures("simulated")
def test_engines_are_trusted_once_they_passed(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = write_simulated_engines(bundle, trusted=False).values()
    with pytest.raises(ArtefactError, match="has not been held against itself yet"):
        open_engines(bundle, "trt-rtx")
    assert exit_code("parity", "-b", str(bundle.path), "--engine", "trt-rtx", "--reference", "recorded") == 0
    assert read_verdict(file.path) is None  # agreeing with PyTorch at one size is not agreeing with itself at all
    assert exit_code("parity", "--self", "-b", str(bundle.path), "--engine", "trt-rtx") == 0
    assert "self-consistency of trt-rtx fp32: passed" in capsys.readouterr().out
    verdict = read_verdict(file.path)
    assert verdict is not None
    assert verdict.passed
    assert (verdict.gpu, verdict.version) == ("Simulated GPU", "1.7.1.116")
    assert {"identical rows", "profile corners", "finite"} <= set(verdict.checks)
    open_engines(bundle, "trt-rtx").__exit__(None, None, None)


@pytest.mark.usefixtures("simulated")
def test_engines_that_fail_are_not_trusted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where they were before."""
    (file,) = write_simulated_engines(bundle).values()
    right = trial.engines_from_plans

    def wrong(*arguments: object) -> Engines:
        return behaving(right(*arguments), ("unimodal",), "unimodal", rows_leak)  # type: ignore[arg-type]

    monkeypatch.setattr(trial, "engines_from_plans", wrong)
    report = try_engines(bundle, "trt-rtx", float32(["unimodal"]))
    assert not report.passed
    verdict = read_verdict(file.path)
    assert verdict is not None
    assert "company" in verdict.failed
    with pytest.raises(ArtefactError, match="failed the self-consistency gate"):
        open_engines(bundle, "trt-rtx")
    assert exit_code("parity", "--self", "-b", str(bundle.path), "--engine", "trt-rtx", "--json") == 4


def test_a_build_ends_with_the_trial_where_a_gpu_is(
    bundle: Bundle,
    simulated: SimulatedTensorRT,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (file,) = write_simulated_engines(bundle, trusted=False).values()
    monkeypatch.setattr(gpu, "current_gpu", lambda: simulated.device.gpu)
    arguments = ("build", "-b", str(bundle.path), "--engine", "trt-rtx", "-q")
    assert exit_code(*arguments) == 0
    assert "self-consistency of trt-rtx fp32: passed" in capsys.readouterr().out
    assert read_verdict(file.path) is not None
    right = trial.engines_from_plans
    monkeypatch.setattr(
        trial, "engines_from_plans", lambda *a: behaving(right(*a), ("unimodal",), "unimodal", rows_leak)
    )
    fresh(monkeypatch)
    assert exit_code(*arguments) == 4
    with pytest.raises(ArtefactError, match="failed the self-consistency gate"):
        open_engines(bundle, "trt-rtx")


@pytest.mark.usefixtures("simulated")
def test_without_engines(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"(?s)no fp32 engine of unimodal that runs here.*fmmt build"):
        try_engines(bundle, "trt-rtx", float32(["unimodal"]))


@pytest.mark.usefixtures("simulated")
def test_an_engine_built_again_is_tried_again(bundle: Bundle) -> None:
    (file,) = write_simulated_engines(bundle).values()
    verdict_path(file.path).write_bytes(b"")
    with pytest.raises(ArtefactError, match="has not been held against itself yet"):
        open_engines(bundle, "trt-rtx")


def test_an_engine_built_again_meanwhile_was_not_tried(bundle: Bundle, simulated: SimulatedTensorRT) -> None:
    """Another process puts another plan in its place, between its being opened and its verdict."""
    files = write_simulated_engines(bundle, trusted=False)
    (file,) = files.values()
    write_engine(bundle.path / "engines", file.about, memoryview(b"another plan"))
    assert try_engine_files(bundle, files, simulated.device).passed
    assert verdict_path(file.path).exists()
    assert read_verdict(file.path) is None
