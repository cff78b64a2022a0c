"""The inert reader against what torch and NumPy themselves read (expected values: `torch`, `numpy`)."""

import collections
import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fmmt_deploy.data.pickles import Global, Node, read_arrays, read_pickle
from fmmt_deploy.errors import CheckpointError, DataError
from tests.golden import GOLDEN

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {str(dtype): (torch.randn(5, 7) * 10).to(dtype) for dtype in DTYPES}
    made["transposed"] = torch.randn(6, 5).t()
    made["slice"] = made["transposed"][1:3]
    made["expanded"] = torch.ones(1).expand(3, 4)
    made["scalar"] = torch.tensor(3.0)
    made["empty"] = torch.zeros(0, 3)
    made["parameter"] = torch.nn.Parameter(torch.randn(3))
    made["large"] = torch.randn(300, 300)
    return made


def assert_same(found: object, expected: dict[str, torch.Tensor]) -> None:
    assert isinstance(found, dict)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        wanted = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        assert found[name].shape == wanted.shape
        assert found[name].dtype == wanted.dtype
        assert not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], wanted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_tensors_of_every_type_form_and_protocol(tmp_path: Path, form: str, protocol: int) -> None:
    path, expected = tmp_path / "x.pt", tensors()
    if form == "plain":
        path.write_bytes(pickle.dumps(expected, protocol=protocol))
    else:
        torch.save(expected, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip")
    assert_same(read_pickle(path), expected)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_state_dict_and_a_whole_module(tmp_path: Path, legacy: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    path = tmp_path / "x.pt"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert_same(read_pickle(path, CheckpointError), dict(module.state_dict()))
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    root = read_pickle(path, CheckpointError)
    assert isinstance(root, Node)
    assert root.name == "torch.nn.modules.container.Sequential"
    linear, norm = root.state["_modules"].values()
    assert linear.state["in_features"] == 3
    assert_same(linear.state["_parameters"], dict(module[0].named_parameters()))
    assert_same(norm.state["_buffers"], dict(module[1].named_buffers()))


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    draw = np.random.default_rng(0)
    expected = {
        "c": draw.standard_normal((3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(draw.standard_normal((3, 4))),
        "bool": np.arange(5) > 2,
        "text": np.array(["ab", "c"]),
        "bytes": np.array([b"a", b"bcd"]),
        "objects": np.array(["x", 1, None], object),
        "big endian": np.arange(4, dtype=">i4"),
        "empty": np.zeros((0, 3)),
        "scalar": np.float32(2.5),
        "no dimension": np.array(3.0),
        "large": draw.standard_normal((200, 200)),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(expected, protocol=protocol))
    found = read_arrays(path)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        assert not isinstance(found[name], np.ndarray) or not found[name].flags.writeable


def test_the_names_of_older_numpy(tmp_path: Path) -> None:
    blob = pickle.dumps({"a": np.arange(3.0)}, protocol=2)
    assert b"numpy._core" in blob
    (tmp_path / "x.pkl").write_bytes(blob.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(read_arrays(tmp_path / "x.pkl")["a"], np.arange(3.0))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values(tmp_path: Path, protocol: int) -> None:
    expected = {
        "set": {1, 2},
        "frozen": frozenset({1}),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"a": [1]}),
        "slice": slice(1, 2),
        "range": range(3),
        "complex": 1j,
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "long": 1 << 70,
        "text": "’ü",
        "tuple": (1, (2, 3), [None, True, 1.5]),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(expected, protocol=protocol))
    assert read_pickle(path) == expected


def test_types_and_devices_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([torch.float32, torch.device("cuda", 0)]))
    dtype, device = read_pickle(path)
    assert dtype == Global("torch.float32")
    assert (device.name, device.args) == ("torch.device", ("cuda", 0))


def test_a_name_may_be_referred_to_but_is_never_data(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": [len]}))
    assert read_pickle(path) == {"a": [Global("builtins.len")]}
    with pytest.raises(DataError, match=r"holds an object of class builtins\.len"):
        read_arrays(path)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_large_arrays_are_mapped_not_read(tmp_path: Path, form: str) -> None:
    array = np.arange(8 << 20, dtype=np.uint8)
    path = tmp_path / "x"
    if form == "zip":
        torch.save({"a": torch.from_numpy(array)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": array}, protocol=4))
    tracemalloc.start()
    found = read_pickle(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20
    np.testing.assert_array_equal(found["a"], array)


def parameters(node: object) -> list[np.ndarray]:
    """Walk a module's stand-ins and collect its tensors."""
    if not isinstance(node, Node) or not isinstance(node.state, dict):
        return []
    own = [*node.state.get("_parameters", {}).values(), *node.state.get("_buffers", {}).values()]
    children = [tensor for child in node.state.get("_modules", {}).values() for tensor in parameters(child)]
    return [tensor for tensor in own if tensor is not None] + children


@pytest.mark.parametrize("name", ["multimodal_T+A+V_RoBERTa.pt", "best_swin_RoBERTa_structure.pt"])
def test_published_checkpoints_hold_every_tensor_of_their_archive(name: str) -> None:
    path = GOLDEN / "roberta/pretrained_model/FacialMMT-RoBERTa" / name
    found = parameters(read_pickle(path, CheckpointError))
    with zipfile.ZipFile(path) as archive:
        stored = sum("/data/" in entry for entry in archive.namelist())
    assert len({array.__array_interface__["data"][0] for array in found}) == stored


def rewrite(path: Path, change: dict[str, bytes | None], extra: list[tuple[str, bytes]] = []) -> None:  # noqa: B006
    """Write an archive again with entries replaced (None: left out) and added, checksums right."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            new = change.get(name.partition("/")[2], content)
            if new is not None:
                archive.writestr(name, new)
        for name, content in extra:
            archive.writestr(name, content)


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6.0)}, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_pickle(path, CheckpointError)
    assert caught.value.path == str(path)
    return str(caught.value)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "can't be read" in refusal(path)
    path.unlink()
    assert "does not exist" in refusal(path)


def test_a_flipped_bit_in_a_tensor_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    blob = bytearray(path.read_bytes())
    blob[blob.index(np.arange(6, dtype=np.float32).tobytes()) + 5] ^= 1
    path.write_bytes(blob)
    assert "checksum does not match" in refusal(path)


def test_archives_that_torch_never_writes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    rewrite(path, {"byteorder": b"big"})
    assert "little-endian" in refusal(path)
    rewrite(saved(tmp_path), {"data/0": None})
    assert "no entry data/0" in refusal(path)
    rewrite(saved(tmp_path), {"data/0": bytes(20)})
    assert "6 × 4 bytes has 20" in refusal(path)
    rewrite(saved(tmp_path), {"data.pkl": None})
    assert "no single data.pkl" in refusal(path)
    rewrite(saved(tmp_path), {}, [("x/constants.pkl", b"")])
    assert "TorchScript" in refusal(path)
    for name in ("../up", "/root", "x/../../up"):
        rewrite(saved(tmp_path), {}, [(name, b"")])
        assert "leaves the archive" in refusal(path)


def test_duplicate_encrypted_and_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewrite(path, {}, [("x/data/0", bytes(24))])
    assert "twice" in refusal(path)
    blob = bytearray(saved(tmp_path).read_bytes())
    blob[blob.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(blob)
    assert "encrypted" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 24))
    assert path.stat().st_size < 1 << 16
    assert "compressed" in refusal(path)


def rebuilt(tmp_path: Path, offset: object, size: object, stride: object) -> Path:
    """A checkpoint whose one tensor claims these; the storage has six elements."""
    out = io.BytesIO()
    pickler = pickle._Pickler(out, 2)
    pickler.save_reduce(
        torch._utils._rebuild_tensor_v2, (torch.arange(6.0).untyped_storage(), offset, size, stride, False, {})
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + out.getvalue() + b".")
    return path


def test_tensors_may_not_reach_outside_their_storage(tmp_path: Path) -> None:
    assert "a storage of 24" in refusal(rebuilt(tmp_path, 0, (25,), (1,)))
    assert "a storage of 24" in refusal(rebuilt(tmp_path, 20, (5,), (1,)))
    assert "a storage of 24" in refusal(rebuilt(tmp_path, 0, (2, 2), (1 << 60, 1)))
    assert "impossible" in refusal(rebuilt(tmp_path, -1, (2,), (1,)))
    assert "impossible" in refusal(rebuilt(tmp_path, 0, (2,), (-1,)))
    assert "impossible" in refusal(rebuilt(tmp_path, 0, (2,), (1, 1)))
    assert "impossible" in refusal(rebuilt(tmp_path, 0, (1,) * 200, (1,) * 200))
    assert "repeats a storage" in refusal(rebuilt(tmp_path, 0, (1 << 40,), (0,)))
    assert read_pickle(rebuilt(tmp_path, 0, (4, 6), (6, 1))).shape == (4, 6)
