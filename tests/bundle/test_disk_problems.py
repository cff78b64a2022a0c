"""What a full disk, missing rights and a mount point leave of a bundle: what was there, and a reason."""

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle import atomic
from fmmt_deploy.bundle.disk import check_room
from fmmt_deploy.bundle.writing import write_bundle
from fmmt_deploy.errors import EnvironmentProblem
from tests.bundle.samples import leftovers, make_bundle, value_of


def test_room_is_known_in_the_middle_of_a_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b"
    target.mkdir()
    usage = shutil.disk_usage

    def swapped(path: Path) -> Any:
        if target.exists():
            target.rmdir()  # as another writer does between "it exists" and "how much is free"
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", swapped)
    check_room(target, 1)


def test_no_room_is_said_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentProblem, match="no room") as caught,
        write_bundle(tmp_path / "b", needed_bytes=10**18),
    ):
        pass
    assert str(10**18) in caught.value.why
    assert "bytes are free" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_the_middle(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        with write_bundle(tmp_path / "b", force=True, needed_bytes=500) as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            writer.add_bytes("graph.onnx", bytes(200_000))

    try:
        with pytest.raises(EnvironmentProblem, match="no room") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "500 bytes" in caught.value.why
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_when_it_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    make_bundle(tmp_path / "b", 1)

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="no room"):
        make_bundle(tmp_path / "b", 2, force=True)
    monkeypatch.undo()
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


def test_a_failed_second_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "b", 1)
    rename = os.rename

    def failing(source: object, target: object, **_: object) -> None:
        if ".tmp-" in str(source) and str(target).endswith("b"):
            raise OSError(errno.EIO, "Input/output error")
        rename(str(source), str(target))

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        make_bundle(tmp_path / "b", 2, force=True)
    monkeypatch.undo()
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        make_bundle(tmp_path / "b")


def test_a_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the work is done; and a mount that Python does not recognise, at the latest when it is replaced."""
    make_bundle(tmp_path / "b", 1)
    with monkeypatch.context() as mounted:
        mounted.setattr(os.path, "ismount", lambda path: path == tmp_path / "b")
        with pytest.raises(EnvironmentProblem, match="is a mount point"), write_bundle(tmp_path / "b", force=True):
            pytest.fail("no work is begun")
    rename = Path.rename

    def busy(self: Path, target: Path) -> Path:
        if self == tmp_path / "b":
            raise OSError(errno.EBUSY, "Device or resource busy", str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        make_bundle(tmp_path / "b", 2, force=True)
    assert value_of(tmp_path / "b") == 1
    assert leftovers(tmp_path / "b") == []


def test_another_file_s_permission_error_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), write_bundle(tmp_path / "b"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/checkpoint.pt")
