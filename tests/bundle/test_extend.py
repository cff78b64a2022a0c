"""Adding to a bundle shares its files, changes none of them, and is all or nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle import atomic, writing
from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.integrity import hash_file
from fmmt_deploy.bundle.manifest import Manifest
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import Finish
from fmmt_deploy.errors import BundleError, UsageError
from tests.bundle.samples import FULL, make_bundle, save_graph

NEW = "graphs/fp16/swin.onnx"


def with_new(bundle: Bundle) -> Manifest:
    graphs = {graph: dict(files) for graph, files in bundle.manifest.graphs.items()}
    graphs["swin"]["fp16"] = NEW
    return replace(bundle.manifest, graphs=graphs)


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def extend(
    bundle: Bundle, out: Path | None = None, force: bool = False, content: bytes = b"", finish: Finish | None = None
) -> Bundle:
    with extend_bundle(bundle, out, force, without=[NEW]) as writer:
        original = bundle.graph("swin").read_bytes()
        writer.place(NEW).write_bytes(original + content)
        return writer.commit(with_new(bundle), finish)


def test_in_place(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    before, nodes = contents(tmp_path / "b"), {n: (tmp_path / "b" / n).stat().st_ino for n in bundle.manifest.files}
    for folder in ("engines", "receipts"):
        (tmp_path / "b" / folder / "deep").mkdir(parents=True)
        (tmp_path / "b" / folder / "deep" / "file").write_text(folder)
    extend(bundle)
    again = Bundle.open(tmp_path / "b")
    assert again.manifest.graphs["swin"]["fp16"] == NEW
    assert again.manifest.files.keys() == {*before, NEW} - {"manifest.json"}
    for name, inode in nodes.items():
        assert (tmp_path / "b" / name).stat().st_ino == inode  # no byte was copied
    assert [(tmp_path / "b" / f / "deep" / "file").read_text() for f in ("engines", "receipts")] == [
        "engines",
        "receipts",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_beside_it_and_the_old_one_is_untouched(tmp_path: Path) -> None:
    bundle = extend(make_bundle(tmp_path / "b", architecture=FULL))
    before = contents(tmp_path / "b")
    extend(bundle, tmp_path / "c", content=b"")
    with pytest.raises(UsageError, match="exists"):
        extend(bundle, tmp_path / "c")
    extend(bundle, tmp_path / "c", force=True)
    assert contents(tmp_path / "b") == before
    Bundle.open(tmp_path / "c")
    # onnx refuses weights in a file with several names; in its own place, a bundle's old names are gone
    assert {(bundle.path / name).stat().st_nlink for name in bundle.manifest.files} == {1}
    extend(Bundle.open(tmp_path / "b"))
    assert {(bundle.path / name).stat().st_nlink for name in bundle.manifest.files} == {1}


def test_a_shared_file_is_never_written_through(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    before = contents(tmp_path / "b")
    with extend_bundle(bundle, tmp_path / "c") as writer:
        save_graph(writer.place("swin.onnx"), 2.0)
        made = writer.commit(bundle.manifest)
    assert contents(tmp_path / "b") == before
    assert hash_file(made.graph("swin")) != hash_file(bundle.graph("swin"))
    Bundle.open(tmp_path / "c")


def test_without_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    monkeypatch.setattr(atomic.os, "link", refuse)
    name = next(iter(bundle.manifest.files))
    node = (tmp_path / "b" / name).stat().st_ino
    extend(bundle)
    Bundle.open(tmp_path / "b")
    assert (tmp_path / "b" / name).stat().st_ino != node


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    before = contents(tmp_path / "b")
    with pytest.raises(BundleError), extend_bundle(bundle) as writer:
        writer.commit(with_new(bundle))  # which is not there
    assert contents(tmp_path / "b") == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    with extend_bundle(bundle) as late:
        extend(bundle)
        with pytest.raises(UsageError, match="was changed meanwhile"):
            late.commit(bundle.manifest)
    assert "fp16" in Bundle.open(tmp_path / "b").manifest.graphs["swin"]


@pytest.mark.parametrize("inside", ["c", "graphs/fp32/c"])
def test_nothing_is_written_inside_of_what_it_is_made_from(tmp_path: Path, inside: str) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    before = contents(tmp_path / "b")
    with pytest.raises(UsageError, match="is inside the bundle"):
        extend(bundle, tmp_path / "b" / inside, force=True)
    assert contents(tmp_path / "b") == before


@pytest.mark.parametrize("links", [True, False])
def test_what_comes_meanwhile_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """A receipt or an engine that another process writes while the new bundle is hashed and brought to the disk."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(atomic.os, "link", refuse)
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    engines, receipts = bundle.path / "engines", bundle.path / "receipts"
    engines.mkdir()
    receipts.mkdir()
    (engines / "kept").write_text("kept")
    (engines / "built again").write_text("old")
    (receipts / "calibration").write_text("old")
    sync = writing.sync_tree

    def meanwhile(folder: Path) -> None:
        monkeypatch.setattr(writing, "sync_tree", sync)
        sync(folder)
        (receipts / "0001-parity.json").write_text("late")
        (engines / "built again.tmp").write_text("new")
        (engines / "built again.tmp").replace(engines / "built again")

    monkeypatch.setattr(writing, "sync_tree", meanwhile)
    seen = []
    with extend_bundle(bundle) as writer:
        writer.place(NEW).write_bytes(bundle.graph("swin").read_bytes())
        writer.place("receipts/calibration").write_text("new")
        writer.commit(with_new(bundle), lambda directory, made: seen.append((directory, made.path)))
    ((directory, path),) = seen
    assert directory != path == bundle.path.resolve()
    found = {p.relative_to(path).as_posix(): p.read_text() for p in (*engines.iterdir(), *receipts.iterdir())}
    assert found == {
        "engines/kept": "kept",
        "engines/built again": "new",
        "receipts/0001-parity.json": "late",
        "receipts/calibration": "new",
    }
    Bundle.open(tmp_path / "b")


def test_nothing_is_replaced_when_the_last_step_fails(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    before = contents(tmp_path / "b")

    def fail(directory: Path, made: Bundle) -> None:
        assert (directory / "manifest.json").is_file()
        assert made.manifest.graphs["swin"]["fp16"] == NEW
        raise ValueError("no receipt")

    with pytest.raises(ValueError, match="no receipt"):
        extend(bundle, finish=fail)
    assert contents(tmp_path / "b") == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
