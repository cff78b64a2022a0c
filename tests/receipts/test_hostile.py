"""What somebody puts among the receipts: nothing outside the bundle is read, nothing hangs, each is named."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import ArtefactError
from fmmt_deploy.receipts.chain import chain_of
from fmmt_deploy.receipts.check import check_bundle
from fmmt_deploy.receipts.kept import kept_receipts
from fmmt_deploy.receipts.record import DamagedReceiptError, Receipt, bytes_from_receipt, receipt_from_bytes
from fmmt_deploy.receipts.store import append_receipt, check_appendable
from tests.bundle.samples import make_bundle

PARITY = Receipt(command="parity", seconds=1.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = make_bundle(tmp_path / "b")
    append_receipt(made, PARITY)
    return made


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        Path.mkdir,
        sparse,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.with_name("0001-parity.json")),
    ],
    ids=["pipe", "folder", "huge", "device", "loop", "dangling", "another"],
)
def test_what_is_no_plain_file_is_named_and_not_read(bundle: Bundle, put: Callable[[Path], None]) -> None:
    put(bundle.path / "receipts/0002-parity.json")
    [first, second] = kept_receipts(bundle.path)
    assert first.problem == ""
    assert "is " in second.problem
    assert [found.path for found in check_bundle(bundle.path).problems] == ["receipts/0002-parity.json"]
    for refused in (lambda: check_appendable(bundle.path), lambda: append_receipt(bundle, PARITY)):
        with pytest.raises(ArtefactError, match="0002-parity"):
            refused()


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda folder, out: folder.symlink_to(out), "leads out of the bundle"),
        (lambda folder, _: folder.write_text(""), "is no folder"),
    ],
    ids=["link", "file"],
)
def test_a_folder_that_is_none(bundle: Bundle, tmp_path: Path, put: Callable[[Path, Path], None], said: str) -> None:
    folder = (bundle.path / "receipts").rename(tmp_path / "out")
    put(bundle.path / "receipts", folder)
    assert [(kept.path, kept.problem) for kept in kept_receipts(bundle.path)] == [("receipts", said)]
    assert ("receipts", said) in {(found.path, found.what) for found in check_bundle(bundle.path).problems}
    with pytest.raises(ArtefactError, match=said):
        check_appendable(bundle.path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("field", ["subjects", "outputs"])
@pytest.mark.parametrize("name", ["../../../../../../dev/zero", "/dev/zero", "a\0b", "a" * 5000, "", "a/../b"])
def test_files_that_are_in_no_bundle_are_not_looked_for(bundle: Bundle, field: str, name: str) -> None:
    path = bundle.path / "receipts/0001-parity.json"
    receipt = receipt_from_bytes(path.read_bytes())
    path.write_bytes(bytes_from_receipt(replace(receipt, **{field: {name: "ab" * 32}})))
    [found] = check_bundle(bundle.path).problems
    assert found.path == "receipts/0001-parity.json"
    assert "can't be in a bundle" in found.what
    with pytest.raises(ArtefactError, match="can't be in a bundle"):
        chain_of(bundle)


@pytest.mark.timeout(20)
def test_subjects_that_are_pipes_or_lead_out_are_stale(bundle: Bundle) -> None:
    os.mkfifo(bundle.path / "pipe")
    (bundle.path / "zero").symlink_to("/dev/zero")
    append_receipt(bundle, replace(PARITY, subjects={"pipe": "ab" * 32, "zero": "ab" * 32}))
    stale = [step for step in chain_of(bundle).steps if step.receipt == "receipts/0002-parity.json"]
    assert [(step.state, step.why) for step in stale] == [("stale", "pipe and 1 more changed since")]
    notes = {note.path for note in check_bundle(bundle.path).notes}
    assert {"pipe", "zero"} <= notes


def test_a_weight_file_that_leads_out_is_not_ok(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", external=True)
    weights = bundle.path / "unimodal.onnx.data"
    digest = bundle.manifest.files["unimodal.onnx.data"].sha256
    append_receipt(bundle, replace(PARITY, subjects={"unimodal.onnx.data": digest}))
    weights.symlink_to(weights.rename(tmp_path / "elsewhere"))
    [step] = [step for step in chain_of(bundle).steps if step.kind == "parity"]
    assert step.state == "stale"


@pytest.mark.parametrize("created", ["", "yesterday", "2026-01-01T00:00:00", "\x1b[31m"])
def test_a_time_that_is_none(created: str) -> None:
    with pytest.raises(DamagedReceiptError, match="created"):
        receipt_from_bytes(bytes_from_receipt(replace(PARITY, created=created)))


def test_a_clock_that_went_back_is_said(bundle: Bundle) -> None:
    append_receipt(bundle, replace(PARITY, created="1999-12-31T23:59:59+00:00"))
    append_receipt(bundle, PARITY)
    [note] = [note for note in check_bundle(bundle.path).notes if note.path.startswith("receipts/")]
    assert note.path == "receipts/0002-parity.json"
    assert "is dated before receipts/0001-parity.json" in note.what


def test_names_that_are_not_utf8_do_not_cost_the_receipt(bundle: Bundle) -> None:
    append_receipt(bundle, replace(PARITY, result={"data": os.fsdecode(b"caf\xe9")}))
    [_, kept] = kept_receipts(bundle.path)
    assert kept.problem == ""
    assert kept.receipt is not None
    assert kept.receipt.result == {"data": "caf\\udce9"}


def test_numbers_are_plain(bundle: Bundle) -> None:
    """Names that `int` reads too, or of a number that nobody counts to, are of other files."""
    first = (bundle.path / "receipts/0001-parity.json").read_bytes()
    for name in ("٠٠٠٢-parity.json", "9" * 200 + "-parity.json"):
        (bundle.path / "receipts" / name).write_bytes(first)
    assert [kept.path for kept in kept_receipts(bundle.path)] == ["receipts/0001-parity.json"]


def test_why_nobody_vouches_for_the_manifest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")

    def why() -> str:
        [note] = [note.what for note in check_bundle(bundle.path).notes if note.path == "manifest.json"]
        return note

    assert "the bundle has no receipts" in why()
    append_receipt(bundle, PARITY)  # as an old bundle gets them
    assert "no receipt tells of it" in why()
    (bundle.path / "receipts/0001-parity.json").write_text("")
    assert "is damaged" in why()
