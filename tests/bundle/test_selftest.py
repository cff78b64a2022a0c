import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmmt_deploy.bundle.selftest import Stage, read_self_test, self_test_of, write_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import BundleError
from fmmt_deploy.types import GraphName

STAGES: dict[GraphName, Stage] = {
    "swin": Stage({"faces": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)}, {"face_logits": np.ones((2, 7), "<f4")}),
    "fusion": Stage({"length": np.array(3), "mask": np.array([True, False])}, {"logits": np.zeros((0, 7), np.float32)}),
}


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    write_self_test(tmp_path / "a.npz", STAGES)
    write_self_test(tmp_path / "b.npz", STAGES)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = read_self_test(tmp_path / "a.npz")
    assert set(read) == set(STAGES)
    for graph, stage in STAGES.items():
        for expected, found in ((stage.inputs, read[graph].inputs), (stage.outputs, read[graph].outputs)):
            assert set(found) == set(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array, strict=True)


def test_numpy_reads_it_too(tmp_path: Path) -> None:
    write_self_test(tmp_path / "a.npz", STAGES)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["swin/inputs/faces"], STAGES["swin"].inputs["faces"])


def test_objects_are_refused_both_ways(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="swin/inputs/x should hold numbers"):
        write_self_test(tmp_path / "a.npz", {"swin": Stage({"x": np.array([None])}, {})})
    np.savez(tmp_path / "a.npz", **{"swin/inputs/x": np.array([None])})
    with pytest.raises(BundleError, match="not a readable self-test"):
        read_self_test(tmp_path / "a.npz")


def test_other_members_are_refused(tmp_path: Path) -> None:
    for name in ("x", "swin/x", "swin/middle/x", "vit/inputs/x"):
        np.savez(tmp_path / "a.npz", **{name: np.zeros(1)})
        with pytest.raises(BundleError, match="is not a readable self-test") as caught:
            read_self_test(tmp_path / "a.npz")
        assert "is not named" in caught.value.why


def test_compressed_and_lying_headers_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{"swin/inputs/x": np.zeros(1)})
    with pytest.raises(BundleError):
        read_self_test(tmp_path / "a.npz")
    np.save(tmp_path / "x.npy", np.zeros(10))
    lying = (tmp_path / "x.npy").read_bytes().replace(b"'shape': (10,", b"'shape': (99,")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("swin/inputs/x.npy", lying)
    with pytest.raises(BundleError) as caught:
        read_self_test(tmp_path / "a.npz")
    assert "should have 792 bytes, found 80" in caught.value.why


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), patch=st.binary(max_size=8), cut=st.booleans())
def test_fuzzed_archives_are_read_or_refused(tmp_path: Path, at: int, patch: bytes, cut: bool) -> None:
    path = tmp_path / "a.npz"
    write_self_test(path, STAGES)
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] + patch + (b"" if cut else content[at + len(patch) :]))
    with suppress(BundleError):
        read_self_test(path)


def test_a_bundle_without_a_self_test(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = Bundle.open(tiny_bundle("unimodal").path)
    assert set(self_test_of(bundle)) == {"unimodal"}
    object.__setattr__(bundle.manifest, "self_test", None)
    with pytest.raises(BundleError, match="holds no self-test") as caught:
        self_test_of(bundle)
    assert caught.value.fix == "Export it again."
