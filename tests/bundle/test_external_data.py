from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import _get_all_tensors, set_external_data, uses_external_data

from fmmt_deploy.bundle.external_data import external_data_locations
from fmmt_deploy.errors import BundleError
from tests.bundle.samples import save_graph


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), location)
    set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def test_finds_what_onnx_finds(tmp_path: Path) -> None:
    inside = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=external("deep/c.bin"))], "branch", [], []
    )
    nodes = [
        helper.make_node("If", ["cond"], ["r"], then_branch=inside, else_branch=inside),
        helper.make_node("Constant", [], ["v"], value=external("b.bin")),
    ]
    initializers = [external("a.bin"), numpy_helper.from_array(np.zeros(9, np.float32), "inline")]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], initializers))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    expected = {t.name for t in _get_all_tensors(onnx.load(path, load_external_data=False)) if uses_external_data(t)}
    assert expected == {"a.bin", "b.bin", "deep/c.bin"}
    assert external_data_locations(path) == expected


def test_none_when_weights_are_inside(tmp_path: Path) -> None:
    save_graph(tmp_path / "m.onnx", 1.0)
    assert external_data_locations(tmp_path / "m.onnx") == frozenset()


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01"])
def test_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        external_data_locations(tmp_path / "m.onnx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 200), patch=st.binary(min_size=1, max_size=8))
def test_fuzzed_graphs_are_read_or_refused(tmp_path: Path, at: int, patch: bytes) -> None:
    path = tmp_path / "m.onnx"
    save_graph(path, 1.0, "w.bin")
    content = path.read_bytes()
    path.write_bytes(content[:at] + patch + content[at + len(patch) :])
    with suppress(BundleError):
        external_data_locations(path)
