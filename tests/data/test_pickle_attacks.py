"""Pickles that try to run code, or exhaust the machine. Every payload is shown to work on the ordinary reader."""

import collections
import contextlib
import functools
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fmmt_deploy.data.pickles import read_arrays, read_pickle
from fmmt_deploy.errors import CheckpointError, DataError


class Reduce:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *args: object, state: object = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def creates(path: Path) -> Reduce:
    return Reduce(os.system, f"touch {path}")


def payloads(path: Path) -> dict[str, object]:
    evil = creates(path)
    return {
        "system": evil,
        "nested": [{"a": (1, {"b": [evil]})}],
        "eval": Reduce(eval, f"__import__('os').mkdir({str(path)!r})"),
        "exec": Reduce(exec, f"__import__('os').mkdir({str(path)!r})"),
        "mkdir": Reduce(os.mkdir, str(path)),
        "getattr": Reduce(functools.partial(os.system, f"touch {path}")),
        "in state": Reduce(torch.nn.Linear, 1, 1, state={"_parameters": {"weight": evil}}),
        "in arguments": Reduce(torch.nn.Linear, evil, 1),
        "in a dict's items": collections.OrderedDict(a=evil),
        "in an object array": np.array([evil, 1], object),
        "a pickle in a pickle": Reduce(torch.storage._load_from_bytes, pickle.dumps(evil)),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", list(payloads(Path("x"))))
def test_code_is_never_run(tmp_path: Path, kind: str, protocol: int) -> None:
    target, path = tmp_path / "pwned", tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(payloads(target)[kind], protocol=protocol))
    for read in (lambda: read_pickle(path, CheckpointError), lambda: read_arrays(path)):
        with pytest.raises((CheckpointError, DataError), match=r"refused to|calls something"):
            read()
        assert not target.exists()


@pytest.mark.parametrize("kind", ["system", "nested", "eval", "mkdir", "in state", "in an object array"])
def test_the_payloads_do_work_elsewhere(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "pwned"
    blob = pickle.dumps(payloads(target)[kind])
    with contextlib.suppress(AttributeError, TypeError):  # "in state": the layer is unusable, but the payload ran
        pickle.loads(blob)
    assert target.exists()


def hostile_zip(path: Path, data: bytes, storage: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", storage)


def test_code_in_a_torch_file(tmp_path: Path) -> None:
    target, path = tmp_path / "pwned", tmp_path / "x.pt"
    for name, payload in payloads(target).items():
        hostile_zip(path, pickle.dumps(payload, protocol=2))
        with pytest.raises(CheckpointError, match=r"refused to|calls something"):
            read_pickle(path, CheckpointError)
        assert not target.exists(), name


def test_a_pickle_as_the_bytes_of_a_storage_is_only_bytes(tmp_path: Path) -> None:
    target, path = tmp_path / "pwned", tmp_path / "x.pt"
    blob = pickle.dumps(creates(target))
    torch.save({"a": torch.frombuffer(bytearray(blob), dtype=torch.uint8)}, path)
    assert read_pickle(path)["a"].tobytes() == blob
    assert not target.exists()


@pytest.mark.parametrize(
    "blob",
    [
        b"(S'touch {}'\nios\nsystem\n.",
        b"(cos\nsystem\nX{}o.",
        b"cos\nsystem\n(X{}\x81.",
        b"cos\nsystem\n(X{}t}\x92.",
        b"\x82\x01.",
        b"\x83\x01\x00.",
        b"\x84\x01\x00\x00\x00.",
        b"Pos.system\n.",
        b"K\x01Q.",
        b"\x97.",
    ],
    ids=["inst", "obj", "newobj", "newobj_ex", "ext1", "ext2", "ext4", "persid", "binpersid", "buffer"],
)
def test_every_opcode_that_makes_or_finds_objects(tmp_path: Path, blob: bytes) -> None:
    target, path = tmp_path / "pwned", tmp_path / "x.pkl"
    command = f"touch {target}".encode()
    blob = blob.replace(b"S'touch {}'", b"S'" + command + b"'")
    path.write_bytes(blob.replace(b"{}", struct.pack("<I", len(command)) + command))
    with pytest.raises(DataError, match="can't be read"):
        read_pickle(path)
    assert not target.exists()


def test_attributes_of_classes_can_not_be_set(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cfmmt_deploy.errors\nDataError\n}X\x09\x00\x00\x00exit_codeK\x07sb.")
    with pytest.raises(DataError, match="sets attributes of a Global"):
        read_pickle(path)
    assert DataError.exit_code == 2


def memory_bombs() -> dict[str, bytes]:
    shared = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(80))
    return {
        "bytes": b"B\xff\xff\xff\xffx.",
        "bytes8": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "bytearray8": b"\x96" + struct.pack("<Q", 1 << 62) + b"x.",
        "text8": b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        "long": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "a key of shared tuples": b"}Nq\x00" + shared + b"Ns.",
        "a set of shared tuples": b"\x8f(Nq\x00" + shared + b"\x90.",
        "a list as key": b"}]Ns.",
        "a key without value": b"}(K\x01u.",
        "stack underflow": b"0000.",
        "no mark": b"t.",
        "no end": b"N",
        "nothing": b".",
        "memo": b"h\x07.",
        "decimal digits": b"I" + b"9" * 100_000 + b"\n.",
    }


@pytest.mark.parametrize("name", list(memory_bombs()))
def test_absurd_pickles_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(memory_bombs()[name])
    start = time.monotonic()
    with pytest.raises(DataError, match="can't be read"):
        read_pickle(path)
    assert time.monotonic() - start < 5


def test_huge_memo_indices_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"Nr\xff\xff\xff\xff.")
    assert read_pickle(path) is None


def test_deep_nesting_and_sharing_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    depth = 100_000
    path.write_bytes(b"]" * depth + b"a" * (depth - 1) + b".")
    assert isinstance(read_arrays(path), list)
    shared = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(80))
    path.write_bytes(b"Nq\x00" + shared + b".")
    assert len(read_arrays(path)) == 2
    path.write_bytes(b"]q\x00h\x00a.")
    itself = read_arrays(path)
    assert itself[0] is itself


def test_pickles_in_pickles_end(tmp_path: Path) -> None:
    blob = pickle.dumps(1)
    for _ in range(8):
        blob = pickle.dumps(Reduce(torch.storage._load_from_bytes, blob))
    (tmp_path / "x.pkl").write_bytes(blob)
    with pytest.raises(DataError, match="pickles in pickles"):
        read_pickle(tmp_path / "x.pkl")


def test_bytes_after_the_end_are_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(1) + pickle.dumps(2))
    with pytest.raises(DataError, match="follow its end"):
        read_pickle(tmp_path / "x.pkl")


def test_arrays_of_objects_and_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for array in (np.array([[1], {}], object), np.zeros(2, "i4,f4"), np.zeros(2, "M8[s]")):
        path.write_bytes(pickle.dumps(array))
        with pytest.raises(DataError, match="refused"):
            read_pickle(path)
