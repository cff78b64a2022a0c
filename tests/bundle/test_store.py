import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fmmt_deploy.bundle import integrity, store
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.replacing import is_bundle
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from tests.bundle.samples import FULL, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "b", external=True).path


def edit_manifest(bundle: Path, old: str, new: str) -> None:
    text = (bundle / MANIFEST_NAME).read_text()
    assert old in text
    (bundle / MANIFEST_NAME).write_text(text.replace(old, new))


def test_opens_with_hashes_of_hashlib(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert set(opened.manifest.files) == {"unimodal.onnx", "unimodal.onnx.data", "tokenizer.json"}
    for relative, entry in opened.manifest.files.items():
        content = (bundle / relative).read_bytes()
        assert (entry.sha256, entry.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert opened.file(relative) == bundle / relative
    session = onnxruntime.InferenceSession(opened.graph("unimodal"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": np.zeros(1024, np.float32)})[0], np.ones(1024))


def test_hash_of_several_blocks(tmp_path: Path) -> None:
    content = os.urandom(9 * 2**20 + 5)
    (tmp_path / "f").write_bytes(content)
    assert hash_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["unimodal.onnx", "unimodal.onnx.data", "tokenizer.json"])
def test_flipped_byte(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} in .* was altered: expected SHA-256") as caught:
        Bundle.open(bundle)
    assert "export it again" in caught.value.fix
    assert Bundle.open(bundle, verify=False).path == bundle


def test_wrong_size_is_seen_without_hashing(bundle: Path) -> None:
    with (bundle / "unimodal.onnx.data").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="expected 4096 bytes, found 4097 bytes"):
        Bundle.open(bundle, verify=False)


def test_missing_file(bundle: Path) -> None:
    (bundle / "unimodal.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"unimodal\.onnx\.data is missing"):
        Bundle.open(bundle, verify=False)


def test_links_out_of_the_bundle(bundle: Path) -> None:
    outside = bundle.parent / "outside.json"
    (bundle / "tokenizer.json").rename(outside)
    (bundle / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundleError, match="leads out of it"):
        Bundle.open(bundle)


def test_links_within_the_bundle_and_to_it(bundle: Path) -> None:
    (bundle / "tokenizer.json").rename(bundle / "t.json")
    (bundle / "tokenizer.json").symlink_to("t.json")
    (bundle.parent / "link").symlink_to(bundle)
    assert Bundle.open(bundle.parent / "link").file("tokenizer.json").read_bytes() == b"{}"


def test_directory_in_place_of_a_file(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").mkdir()
    with pytest.raises(BundleError, match="is not a file"):
        Bundle.open(bundle)


def test_external_data_must_be_listed(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    del manifest["files"]["unimodal.onnx.data"]
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"keeps weights in unimodal\.onnx\.data, which the manifest does not list"):
        Bundle.open(bundle)


def test_external_data_must_stay_inside(bundle: Path) -> None:
    model = onnx.load(bundle / "unimodal.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret"
    content = model.SerializeToString()
    (bundle / "unimodal.onnx").write_bytes(content)
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    manifest["files"]["unimodal.onnx"] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"stay inside the bundle, found '\.\./secret'"):
        Bundle.open(bundle)


def test_paths_in_the_manifest_must_stay_inside(bundle: Path) -> None:
    edit_manifest(bundle, '"tokenizer.json"', '"../tokenizer.json"')
    with pytest.raises(BundleError, match="stay inside the bundle"):
        Bundle.open(bundle)


def test_other_schema(bundle: Path) -> None:
    edit_manifest(bundle, '"schema": 1', '"schema": 2')
    with pytest.raises(BundleError, match="has schema 2, written by fmmt-deploy"):
        Bundle.open(bundle)
    assert is_bundle(bundle)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="is not UTF-8"):
        Bundle.open(tmp_path)
    assert not is_bundle(tmp_path)


def test_unknown_graph_precision_and_file(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    assert bundle.graph("swin").name == "swin.onnx"
    with pytest.raises(BundleError, match="has no fp16 graph of swin; it has fp32"):
        bundle.graph("swin", "fp16")
    with pytest.raises(BundleError, match=r"add it: fmmt calibrate -b .*/b --precision swin=int8 --data DIR"):
        bundle.graph("swin", "int8")  # `fmmt cast` refuses it
    with pytest.raises(BundleError, match="has no graph unimodal; it has swin, plm, fusion"):
        bundle.graph("unimodal")
    with pytest.raises(BundleError, match=r"lists no file \.\./x"):
        bundle.file("../x")


def test_unreadable_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(paths: list[Path]) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(paths[0]))

    monkeypatch.setattr(integrity, "hash_files", refused)
    with pytest.raises(EnvironmentProblem, match="can't be read"):
        Bundle.open(bundle)


def test_a_reader_that_meets_a_replacement_reads_the_new_one(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, seen = store.check_files, []

    def replaced_meanwhile(*args: object, **kwargs: object) -> None:
        if not seen:
            seen.append(True)
            monkeypatch.setattr(store, "check_files", check)
            shutil.rmtree(bundle)
            make_bundle(bundle, 2.0)
        check(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "check_files", replaced_meanwhile)
    assert "unimodal.onnx.data" not in Bundle.open(bundle).manifest.files


def test_a_peek_reads_the_manifest_only(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (tmp_path / "b" / "unimodal.onnx").unlink()
    assert Bundle.peek(tmp_path / "b").manifest == bundle.manifest
    (tmp_path / "b" / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):
        Bundle.peek(tmp_path / "b")
