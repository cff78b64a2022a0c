"""Receipts: what is written is read, in order, and whatever is changed afterwards is found."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.disk import check_room
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import ArtefactError, BundleError, EnvironmentProblem
from fmmt_deploy.receipts.kept import kept_receipts, read_receipts
from fmmt_deploy.receipts.record import (
    DamagedReceiptError,
    Hashed,
    Receipt,
    Setting,
    bytes_from_receipt,
    receipt_from_bytes,
)
from fmmt_deploy.receipts.store import append_receipt, check_appendable
from tests.bundle.samples import make_bundle
from tests.killing import REPOSITORY, count_calls, kill

RECEIPT = Receipt(
    command="parity",
    seconds=1.25,
    exit_code=4,
    verdict="failed",
    settings={"engine": Setting("ort", "command line"), "limit": Setting(None, "default")},
    inputs={"data": Hashed("ab" * 32, "meld-data (test)")},
    subjects={"unimodal.onnx": "cd" * 32},
    tools={"python": "3.11.2"},
    device={"cores": 2, "gpus": [{"name": "NVIDIA L4"}]},
    seeds={"noise": (0, 1)},
    result={"schema": "fmmt.parity/1", "text": "Ünï", "number": 0.1, "list": [1, None, True]},
)


def append(bundle: Bundle, count: int = 1, command: str = "parity") -> list[str]:
    return [append_receipt(bundle, Receipt(command=command, seconds=float(n))) for n in range(count)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aß\n"\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc"), json_values, max_size=4))
def test_round_trip(result: dict[str, object]) -> None:
    receipt = Receipt(command="eval", seconds=0.5, result=result)
    assert receipt_from_bytes(bytes_from_receipt(receipt)) == receipt


def test_the_file_is_json_whose_seal_is_the_hash_of_the_rest() -> None:
    """By `hashlib` and `json` alone."""
    content = bytes_from_receipt(RECEIPT)
    values = json.loads(content)
    assert list(values)[:3] == ["seal", "schema", "number"]
    rest = content[content.index(b"\n", 2) + 1 :]
    assert values["seal"] == hashlib.sha256(rest).hexdigest()
    assert values["result"] == RECEIPT.result


@given(st.data())
@settings(max_examples=300)
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    content = bytearray(bytes_from_receipt(RECEIPT))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedReceiptError):
        receipt_from_bytes(bytes(content))


def test_any_byte_more_or_less_is_found() -> None:
    content = bytes_from_receipt(RECEIPT)
    for place in (0, 1, 5, 80, len(content) // 2, len(content)):
        with pytest.raises(DamagedReceiptError):
            receipt_from_bytes(content[:place] + b" " + content[place:])
        with pytest.raises(DamagedReceiptError):
            receipt_from_bytes(content[:place] + content[place + 1 :] if place < len(content) else content[:-1])


def test_chained(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    assert read_receipts(bundle.path) == ()
    names = append(bundle, 3)
    assert names == [f"receipts/000{n}-parity.json" for n in (1, 2, 3)]
    receipts = read_receipts(bundle.path)
    assert [receipt.number for receipt in receipts] == [1, 2, 3]
    hashes = [hashlib.sha256((bundle.path / name).read_bytes()).hexdigest() for name in names]
    assert [receipt.previous for receipt in receipts] == [None, *hashes[:2]]
    Bundle.open(bundle.path)  # the manifest does not mind


def test_what_is_not_of_the_chain_is_left_alone(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    append(bundle)
    (bundle.path / "receipts/calibration-swin-int8.json").write_text("{}")
    (bundle.path / "receipts/.0002-parity.json.tmp-12345").write_text("half a rec")  # of a writer that was killed
    append(bundle)
    assert [receipt.number for receipt in read_receipts(bundle.path)] == [1, 2]
    assert sorted(path.name for path in (bundle.path / "receipts").iterdir()) == [
        "0001-parity.json",
        "0002-parity.json",
        "calibration-swin-int8.json",
    ]


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        ("flip", {"0002-parity.json": "was altered"}),
        ("remove", {"0003-parity.json": "number 2 is missing"}),
        ("remove two", {"0004-parity.json": "numbers 2 to 3 are missing"}),
        ("rename", {"0002-eval.json": "was renamed"}),
        ("double", {"0002-zeal.json": "is a second number 2"}),
        ("another", {"0002-parity.json": "", "0003-parity.json": "is not of this chain"}),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: str, problems: dict[str, str]) -> None:
    bundle, other = make_bundle(tmp_path / "b"), make_bundle(tmp_path / "other")
    append(bundle, 4)
    append(other)
    folder = bundle.path / "receipts"
    second = folder / "0002-parity.json"
    match damage:
        case "flip":
            second.write_bytes(second.read_bytes().replace(b'"seconds": 1.0', b'"seconds": 1.1'))
        case "remove" | "remove two":
            second.unlink()
            if damage == "remove two":
                (folder / "0003-parity.json").unlink()
        case "rename":
            second.rename(folder / "0002-eval.json")
        case "double":
            (folder / "0002-zeal.json").write_bytes(second.read_bytes())
        case "another":  # whole, and a second one of the same first: but not the one that the third follows
            last = receipt_from_bytes(second.read_bytes())
            from dataclasses import replace

            second.write_bytes(bytes_from_receipt(replace(last, verdict="passed")))
    found = {Path(kept.path).name: kept.problem for kept in kept_receipts(bundle.path) if kept.problem}
    expected = {name: text for name, text in problems.items() if text}
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert text in found[name]
    with pytest.raises(ArtefactError, match=next(iter(expected))):
        read_receipts(bundle.path)
    assert len(append(bundle)) == 1, "what is damaged does not keep the next from being written"


APPENDER = """
import sys
from pathlib import Path
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.store import append_receipt
bundle = Bundle.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    append_receipt(bundle, Receipt(command="parity", seconds=float(number)))
"""


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    command = [sys.executable, "-c", APPENDER, str(bundle.path), "8"]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    receipts = read_receipts(bundle.path)
    assert [receipt.number for receipt in receipts] == list(range(1, 33))
    assert sorted(receipt.seconds for receipt in receipts) == sorted(float(n) for n in range(8) for _ in range(4))


KILLED = """
import sys
from pathlib import Path
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.store import append_receipt
from tests.killing import deadly
bundle = Bundle.open(Path(sys.argv[1]))
with deadly(int(sys.argv[2]), *(f"os.{name}" for name in ("open", "rename", "replace", "mkdir", "fsync", "unlink"))):
    append_receipt(bundle, Receipt(command="parity", seconds=1.0))
"""


def test_kill_at_every_step_leaves_a_whole_chain(tmp_path: Path) -> None:
    steps = count_calls(KILLED, make_bundle(tmp_path / "count").path)
    assert steps >= 6
    counts = []
    for call in range(1, steps + 1):
        bundle = make_bundle(tmp_path / str(call))
        kill(KILLED, bundle.path, call)
        counts.append(len(read_receipts(bundle.path)))
        append(bundle)
        assert len(read_receipts(bundle.path)) == counts[-1] + 1
        assert not [path for path in (bundle.path / "receipts").iterdir() if path.name.startswith(".")]
    assert counts == sorted(counts)
    assert set(counts) == {0, 1}


def test_what_was_made_must_be_there(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match=r"engines/a\.engine is gone"):
        append_receipt(bundle, Receipt(command="build", seconds=1.0, outputs={"engines/a.engine": "0" * 64}))
    assert not (bundle.path / "receipts").exists()


def test_read_only_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "b")
    check_appendable(bundle.path)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != bundle.path and access(path, mode)
    )  # root may anything
    with pytest.raises(EnvironmentProblem) as caught:
        check_appendable(bundle.path)
    assert "--no-receipt" in caught.value.fix


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "b")
    append(bundle)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", full)
        with pytest.raises(EnvironmentProblem, match="no room"):
            append(bundle)
    assert len(read_receipts(bundle.path)) == 1
    with pytest.raises(EnvironmentProblem, match="no room"):
        check_room(bundle.path, 2**62)
