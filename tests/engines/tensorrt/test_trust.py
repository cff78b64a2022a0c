"""Verdicts beside engines: about one plan only, and nothing else is taken for one."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.sealed import BrokenSealError, write_sealed
from fmmt_deploy.engines.tensorrt.trust import Verdict, check_trusted, read_verdict, verdict_path, write_verdict
from fmmt_deploy.errors import ArtefactError

CHECKS = ("plm: repeat", "plm: permuted rows")


def judge(path: Path, failed: tuple[str, ...] = (), gpu: str = "", checks: tuple[str, ...] = CHECKS) -> Verdict:
    """Writes a verdict on the plan that is in a file now."""
    return write_verdict(path, checks=checks, failed=failed, gpu=gpu, version="10.14.1")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "plm.engine"
    write_sealed(path, {}, memoryview(b"a plan"))
    return path


def test_a_verdict_is_read_back(engine: Path) -> None:
    written = judge(engine, gpu="NVIDIA L4")
    assert written.passed
    assert read_verdict(engine) == written
    check_trusted(engine, "NVIDIA L4")
    check_trusted(engine)
    assert [path.name for path in engine.parent.glob("*.engine")] == ["plm.engine"]


def test_without_a_verdict(engine: Path) -> None:
    assert read_verdict(engine) is None
    with pytest.raises(ArtefactError, match=r"(?s)not been held against itself yet.*fmmt parity --self") as caught:
        check_trusted(engine)
    assert caught.value.exit_code == 8


def test_a_negative_verdict(engine: Path) -> None:
    judge(engine, CHECKS[1:])
    with pytest.raises(ArtefactError, match=r"(?s)failed the self-consistency gate.*build it anew"):
        check_trusted(engine)


def test_nothing_checked_is_no_trust(engine: Path) -> None:
    assert not judge(engine, checks=()).passed
    with pytest.raises(ArtefactError):
        check_trusted(engine)


def test_another_gpu(engine: Path) -> None:
    judge(engine, gpu="NVIDIA L4")
    with pytest.raises(ArtefactError, match="held against itself on NVIDIA L4, not on NVIDIA H200"):
        check_trusted(engine, "NVIDIA H200")


def test_another_plan_in_the_same_place(engine: Path) -> None:
    judge(engine)
    write_sealed(engine, {}, memoryview(b"b plan"))
    assert read_verdict(engine) is None


def test_a_verdict_is_on_the_plan_that_was_tried(engine: Path) -> None:
    write_verdict(engine, checks=CHECKS, failed=(), engine_sha256="0" * 64)
    assert read_verdict(engine) is None


def test_every_bit_of_a_verdict_counts(engine: Path) -> None:
    judge(engine)
    path = verdict_path(engine)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert read_verdict(engine) is None, position
    path.write_bytes(whole[:-1])
    assert read_verdict(engine) is None


def test_a_verdict_of_another_version(engine: Path) -> None:
    write_sealed(verdict_path(engine), {"schema": 2, "passed": "yes"}, memoryview(b""))
    assert read_verdict(engine) is None
    later = asdict(replace(judge(engine), schema=2))  # like ours in all else
    write_sealed(verdict_path(engine), later, memoryview(b""))
    assert read_verdict(engine) is None


def test_a_broken_engine_has_none(engine: Path) -> None:
    judge(engine)
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(BrokenSealError):
        read_verdict(engine)
