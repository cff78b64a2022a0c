"""Importing TensorRT: what is said where it is missing, half there, or too old; loggers and recorders that keep all."""

import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import tensorrt_rtx

from fmmt_deploy.engines.tensorrt.flavour import (
    collected,
    create_network,
    error_recorder,
    import_flavour,
    logger,
    title,
)
from fmmt_deploy.errors import EnvironmentProblem


class Broken:
    """An import of `tensorrt` fails as it does where the bindings find no libraries."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        del path, target
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file: No such file or directory")
        return None


def installed(monkeypatch: pytest.MonkeyPatch, version: str, **attributes: object) -> ModuleType:
    """Pretends that TensorRT is there."""
    module = ModuleType("tensorrt")
    for name, value in {"__version__": version, **attributes}.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def test_rtx_is_here() -> None:
    assert import_flavour("trt-rtx") is tensorrt_rtx
    assert (title("trt"), title("trt-rtx")) == ("TensorRT", "TensorRT-RTX")


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EnvironmentProblem, match=r"^TensorRT is not installed\.") as caught:
        import_flavour("trt")
    assert "pip install tensorrt" in caught.value.fix
    assert "NVIDIA's own package index" in caught.value.fix
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EnvironmentProblem, match=r"^TensorRT-RTX is not installed\.") as caught:
        import_flavour("trt-rtx")
    assert caught.value.fix == "pip install 'fmmt-deploy[trt-rtx]'."
    assert len(caught.value.what.splitlines()) == 1


def test_bindings_without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(EnvironmentProblem, match="not its libraries") as caught:
        import_flavour("trt")
    assert "libnvinfer" in caught.value.why


def test_an_empty_module(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.13.0")
    with pytest.raises(EnvironmentProblem, match="not its libraries"):
        import_flavour("trt")


@pytest.mark.parametrize(
    ("version", "taken"), [("8.6.1", False), ("10.11.0.33", False), ("10.12.0.36", True), ("11.4.0", True)]
)
def test_versions(monkeypatch: pytest.MonkeyPatch, version: str, taken: bool) -> None:
    module = installed(monkeypatch, version, Builder=object)
    if taken:
        assert import_flavour("trt") is module
        return
    with pytest.raises(EnvironmentProblem, match=rf"TensorRT 10\.12 or later is needed, found {version}"):
        import_flavour("trt")


def test_logger(caplog: pytest.LogCaptureFixture) -> None:
    log = logger(tensorrt_rtx)
    assert logger(tensorrt_rtx) is log, "TensorRT keeps the first of a process"
    with caplog.at_level(logging.WARNING), collected(tensorrt_rtx) as messages, collected(tensorrt_rtx) as inner:
        log.log(tensorrt_rtx.ILogger.ERROR, "bad")
        log.log(tensorrt_rtx.ILogger.WARNING, "odd")
        log.log(tensorrt_rtx.ILogger.WARNING, "ModelImporter.cpp:1071: Make sure input input_ids has Int64 binding.")
        log.log(tensorrt_rtx.ILogger.INFO, "fine")
    log.log(tensorrt_rtx.ILogger.ERROR, "later")
    assert [(message.is_error, message.text) for message in messages] == [(True, "bad"), (False, "odd")]
    assert inner == messages
    assert caplog.messages == ["odd"]


def test_recorder_hears_the_builder() -> None:
    builder, errors = tensorrt_rtx.Builder(logger(tensorrt_rtx)), error_recorder(tensorrt_rtx)
    builder.error_recorder = errors
    try:
        network = create_network(tensorrt_rtx, builder)
        assert builder.build_serialized_network(network, builder.create_builder_config()) is None
    finally:
        builder.error_recorder = None
    assert errors.num_errors() > 0
    assert "buildSerializedNetwork" in errors.descriptions[0]
    assert errors.get_error_desc(0) == errors.descriptions[0]


class Flags:
    """TensorRT 11 has no flag for it."""


class Builder:
    def create_network(self, flags: int) -> int:
        return flags


def test_strongly_typed_with_and_without_the_flag() -> None:
    flag = tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert create_network(tensorrt_rtx, Builder()) == 1 << int(flag)
    eleven = ModuleType("tensorrt")
    eleven.NetworkDefinitionCreationFlag = Flags  # type: ignore[attr-defined]
    assert create_network(eleven, Builder()) == 0
