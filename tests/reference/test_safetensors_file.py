"""Our mapped reader against the format's own library."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.safetensors_file import read_safetensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=5))
def test_same_tensors_as_the_library(tmp_path: Path, wanted: dict[str, tuple[list[int], torch.dtype]]) -> None:
    wanted.pop("__metadata__", None)
    tensors = {name: (torch.randn(shape) * 3).to(dtype) for name, (shape, dtype) in wanted.items()}
    save_file(tensors, tmp_path / "x.safetensors", {"made": "here"})
    found, library = read_safetensors(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")
    assert found.keys() == library.keys()
    for name, tensor in library.items():
        values = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        assert found[name].shape == tuple(values.shape)
        np.testing.assert_array_equal(found[name], values.numpy(), strict=True)


def written(path: Path, header: object, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: object, begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": entry([2], 0, 8)}, 7, "bytes"),
        ({"a": entry([2], 0, 8)}, 9, "its tensors have 8 bytes, the file has 9"),
        ({"a": entry([2], 0, 4)}, 4, "other bytes than its shape says"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, 4, "overlap"),
        ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12, "gaps"),
        ({"a": entry([-1, -1], 0, 4)}, 4, "impossible shape"),
        ({"a": entry([1 << 62], 0, 4)}, 4, "impossible shape"),
        ({"a": entry([0, 1 << 61, 1 << 61], 0, 0)}, 0, "safetensors file"),
        ({"a": entry([1.0], 0, 4)}, 4, "impossible shape"),
        ({"a": entry([1], 0, 4, "F8_E4M3")}, 4, "unknown type"),
        ({"a": entry([1], 0, 4, ["F32"])}, 4, "damaged"),
        ({"a": entry([1], "0", 4)}, 4, "damaged"),
        ({"a": {"dtype": "F32"}}, 4, "damaged"),
        ({"a": None}, 4, "damaged"),
        ([1], 0, "its header is damaged"),
        (b"{", 0, "its header is damaged"),
        (b"\xff", 0, "its header is damaged"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}', 4, "without repeated names"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: object, size: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(written(tmp_path / "x.safetensors", header, bytes(size)))


@pytest.mark.parametrize("content", [b"", b"\x01", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 3) + b"{}"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
        read_safetensors(path)
