"""Checkpoints that try to run code run nothing, and end in exit code 8, through every door."""

import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.checkpoints import read_checkpoint
from tests.cli.running import exit_code
from tests.reference.samples import multimodal, vision_only


class Call:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


class Reduced:
    """Pickles as whatever parts it is given."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def at_the_top(call: Call, _: Path) -> object:
    return call


def in_nested_containers(call: Call, _: Path) -> object:
    return {"state_dict": {"modality_linear.weight": [({"a": [call]},)]}}


def in_a_modules_state(call: Call, _: Path) -> object:
    module = nn.Linear(2, 2)
    module.__dict__["config"] = {"heads": [call]}
    return module


def as_a_modules_state(call: Call, _: Path) -> object:
    return Reduced(nn.Linear, (2, 2), call)


def in_a_storage(call: Call, folder: Path) -> object:
    inner = folder / "inner.pt"
    torch.save(call, inner, _use_new_zipfile_serialization=False)
    return {"modality_linear.weight": Reduced(torch.storage._load_from_bytes, (inner.read_bytes(),))}


def as_arguments_of_a_tensor(call: Call, _: Path) -> object:
    return {"modality_linear.weight": Reduced(torch._utils._rebuild_tensor_v2, (call, 0, (1,), (1,), False, {}))}


PAYLOADS: tuple[Callable[[Call, Path], object], ...] = (
    at_the_top,
    in_nested_containers,
    in_a_modules_state,
    as_a_modules_state,
    in_a_storage,
    as_arguments_of_a_tensor,
)


def pickled(payload: Callable[[Call, Path], object], target: Path, folder: Path, form: str) -> Path:
    path = folder / "evil.pt"
    content = payload(Call(f"touch {target}"), folder)
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["zip", "older", "plain"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], payload: Callable[[Call, Path], object], form: str
) -> None:
    target = tmp_path / "was-run"
    path = pickled(payload, target, tmp_path, form)
    with pytest.raises(CheckpointError, match=r"refused to make or call: posix\.system"):
        read_checkpoint(path)
    assert exit_code("inspect", str(path)) == 8
    assert exit_code("export", "--ckpt", str(path), "-o", str(tmp_path / "b")) == 8
    assert (
        exit_code("export", "--ckpt", str(multimodal("bert")), "--swin-ckpt", str(path), "-o", str(tmp_path / "b")) == 8
    )
    assert "Nothing in it was run" in capsys.readouterr().err
    assert not target.exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("form", ["zip", "older"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_are_live(tmp_path: Path, payload: Callable[[Call, Path], object], form: str) -> None:
    """PyTorch's own reader, told to trust the file, runs each of them; so the test above tests something."""
    path = pickled(payload, tmp_path / "was-run", tmp_path, form)
    with contextlib.suppress(AttributeError, TypeError, RuntimeError):  # unusable objects, but the code has run
        torch.load(path, weights_only=False)
    assert (tmp_path / "was-run").exists()


def module(children: dict[str, Any]) -> Any:
    node = nn.Module()
    node._modules.update(children)
    return node


def test_modules_without_end(tmp_path: Path) -> None:
    """Each level holds the next one twice: forty modules in the file, a million million to walk."""
    inner = module({})
    for _ in range(40):
        inner = module({"a": inner, "b": inner})
    circle = module({})
    circle._modules["again"] = circle
    wrapped = module({})
    wrapped._modules["module"] = wrapped
    for hostile in (inner, circle, wrapped):
        torch.save(hostile, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=r"without end|holds no tensors"):
            read_checkpoint(tmp_path / "x.pt")


def test_a_state_dict_in_itself(tmp_path: Path) -> None:
    circle: dict[str, Any] = {}
    circle["state_dict"] = circle
    (tmp_path / "x.pt").write_bytes(pickle.dumps(circle))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path / "x.pt")


def test_compressed_archive(tmp_path: Path) -> None:
    """What would be a zip bomb."""
    with zipfile.ZipFile(vision_only("bert")) as source, zipfile.ZipFile(tmp_path / "x.pt", "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(tmp_path / "x.pt")
