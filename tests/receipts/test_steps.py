"""Steps of a chain, on small bundles and receipts that are made up: each reason for which one is not `ok`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.manifest import MANIFEST_NAME, Manifest, SourceEntry
from fmmt_deploy.bundle.sealed import write_sealed
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import write_bundle
from fmmt_deploy.receipts.chain import chain_of
from fmmt_deploy.receipts.check import check_bundle
from fmmt_deploy.receipts.record import Hashed, Receipt, Setting, bytes_from_receipt
from fmmt_deploy.receipts.step import Step
from fmmt_deploy.receipts.store import append_receipt
from tests.bundle.samples import FULL, UNIMODAL, make_bundle, save_graph

GRAPHS = ("swin", "plm", "fusion")
SOURCE = "ab" * 32
"""What `make_bundle` says that a bundle was made from."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def step(bundle: Bundle, kind: str, name: str = "") -> Step:
    (found,) = (s for s in chain_of(bundle).steps if s.kind == kind and s.name.startswith(name))
    return found


def exported(bundle: Bundle, source: str = SOURCE, outputs: Mapping[str, str] | None = None) -> Receipt:
    made = {name: entry.sha256 for name, entry in bundle.manifest.files.items()} if outputs is None else outputs
    return Receipt(
        command="export",
        seconds=1.0,
        inputs={"multimodal.pt": Hashed(source)},
        outputs={**made, MANIFEST_NAME: sha256(bundle.path / MANIFEST_NAME)},
    )


@pytest.mark.parametrize(("source", "state"), [(SOURCE, "ok"), ("cd" * 32, "stale")])
def test_the_checkpoint_is_the_one_that_was_exported(tmp_path: Path, source: str, state: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle, source))
    assert step(bundle, "checkpoint").state == state


def test_a_graph_that_no_receipt_made_is_not_vouched_for(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle, outputs={}))
    assert step(bundle, "graph").state == "stale"
    append_receipt(bundle, exported(bundle))
    assert step(bundle, "graph").state == "ok"


def test_a_graph_that_was_cut_short_is_not_what_was_exported(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle))
    graph = bundle.path / "unimodal.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "unimodal.onnx is not what was exported" in step(bundle, "graph").why


@pytest.mark.parametrize(("source", "state"), [("", "ok"), ("00" * 32, "stale")])
def test_a_typed_graph_is_made_of_the_graphs_that_are_there(tmp_path: Path, source: str, state: str) -> None:
    with write_bundle(tmp_path / "b") as writer:
        for name in ("whole.onnx", "half.onnx"):
            save_graph(writer.place(name), 1.0)
        graphs = {"unimodal": {"fp32": "whole.onnx", "fp16": "half.onnx"}}
        source_entry = SourceEntry({"multimodal.pt": SOURCE})
        bundle = writer.commit(Manifest(architecture=UNIMODAL, graphs=graphs, source=source_entry, tools={}))
    files = bundle.manifest.files
    made, subject = {"half.onnx": files["half.onnx"].sha256}, source or files["whole.onnx"].sha256
    append_receipt(bundle, Receipt(command="cast", seconds=1.0, subjects={"whole.onnx": subject}, outputs=made))
    found = step(bundle, "typed graph")
    assert found.state == state
    assert ("whole.onnx changed since" in found.why) == (state == "stale")


def built(bundle: Bundle) -> dict[str, str]:
    """An engine of each graph, and the receipt that says so."""
    plans = {f"engines/{graph}-fp32-{'0' * 16}.engine": f"plan of {graph}".encode() for graph in GRAPHS}
    for name, plan in plans.items():
        write_sealed(bundle.path / name, {}, memoryview(plan))
    outputs = {name: hashlib.sha256(plan).hexdigest() for name, plan in plans.items()}
    settings = {"engine": Setting("trt", "command line"), "precision": Setting("fp32", "default")}
    append_receipt(bundle, Receipt(command="build", seconds=1.0, settings=settings, outputs=outputs))
    return outputs


def tried(engines: Mapping[str, str]) -> Receipt:
    settings = {"engine": "trt", "precision": "fp32", "self": True}
    given = {name: Setting(value, "command line") for name, value in settings.items()}
    return Receipt(command="parity", seconds=1.0, verdict="passed", settings=given, subjects=engines)


def test_of_several_engines_the_worst_tells(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    engines = built(bundle)
    assert step(bundle, "engine").state == "unknown", "none was tried"
    append_receipt(bundle, tried(engines))
    assert step(bundle, "engine").state == "ok"
    middle = bundle.path / list(engines)[1]
    plan = middle.read_bytes()
    write_sealed(middle, {}, memoryview(b"another plan"))
    assert step(bundle, "engine").state == "stale"
    middle.unlink()
    assert (step(bundle, "engine").state, step(bundle, "engine").why) == ("missing", f"engines/{middle.name} is gone")
    middle.write_bytes(plan)
    assert step(bundle, "engine").state == "ok"


def test_what_another_engine_was_tried_with_tells_nothing_of_this_one(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    engines = built(bundle)
    append_receipt(bundle, tried(dict.fromkeys(engines, "00" * 32)))
    assert step(bundle, "engine").state == "unknown"


def test_what_was_scored_alone_is_asked_for_with_a_reference(tmp_path: Path) -> None:
    """The same command again would score it alone again."""
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle))
    typed = {"engine": "ort", "data": "meld", "noise": "gumbel", "seeds": 5}
    settings = {name: Setting(value, "command line") for name, value in typed.items()}
    settings |= {"precision": Setting("fp32", "default"), "margin": Setting(0.5, "default")}
    append_receipt(bundle, Receipt(command="eval", seconds=1.0, settings=settings, subjects=exported(bundle).outputs))
    found = step(bundle, "F1")
    assert (found.state, found.why) == ("unknown", "scored, but not held against a reference")
    asked = "--engine ort --data meld --noise gumbel --seeds 5 --reference torch"
    assert found.next == f"fmmt eval -b {bundle.path} {asked}"


@pytest.mark.parametrize(("warnings", "state"), [([], "ok"), (["9 of 9 utterances were calibrated on"], "unknown")])
def test_a_verdict_on_what_was_calibrated_on_is_not_ok(tmp_path: Path, warnings: list[str], state: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle))
    settings = {name: Setting(value, "default") for name, value in {"engine": "ort", "precision": "fp32"}.items()}
    append_receipt(
        bundle,
        Receipt(
            command="eval",
            seconds=1.0,
            verdict="EQUIVALENT",
            settings=settings,
            subjects=exported(bundle).outputs,
            result={"warnings": warnings},
        ),
    )
    assert step(bundle, "F1").state == state


def test_a_negative_verdict_is_not_hidden_by_a_wider_margin_after_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle))
    outputs = exported(bundle).outputs
    for margin, verdict, of in ((0.1, "DIFFERENT", {"gone": SOURCE}), (0.5, "DIFFERENT", {}), (1, "EQUIVALENT", {})):
        typed = {"engine": "ort", "precision": "fp32", "margin": margin}
        settings = {name: Setting(value, "command line") for name, value in typed.items()}
        judged = Receipt(command="eval", seconds=1.0, verdict=verdict, settings=settings, subjects=of or outputs)
        append_receipt(bundle, replace(judged, exit_code=5 * (verdict == "DIFFERENT")))
    found = step(bundle, "F1")
    assert (found.state, found.why) == ("ok", "EQUIVALENT at 1 point, after DIFFERENT at 0.5 points")


def test_the_first_receipt_follows_none(tmp_path: Path) -> None:
    """As where a chain's beginning was cut off, and the rest was numbered anew."""
    bundle = make_bundle(tmp_path / "b")
    name = append_receipt(bundle, exported(bundle))
    assert not check_bundle(bundle.path).problems
    cut = replace(exported(bundle), number=1, previous="00" * 32)
    (bundle.path / name).write_bytes(bytes_from_receipt(cut))
    (problem,) = check_bundle(bundle.path).problems
    assert (problem.path, "is not of this chain" in problem.what) == (name, True)


def test_a_receipt_of_another_schema_is_not_guessed_at(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    name = append_receipt(bundle, exported(bundle))
    (bundle.path / name).write_bytes(bytes_from_receipt(replace(exported(bundle), number=1, schema=2)))
    (problem,) = check_bundle(bundle.path).problems
    assert (problem.path, "of another version" in problem.what) == (name, True)


def test_a_link_out_of_the_bundle_is_found_though_its_content_is_right(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    append_receipt(bundle, exported(bundle))
    graph, outside = bundle.path / "unimodal.onnx", tmp_path / "outside.onnx"
    graph.rename(outside)
    graph.symlink_to(outside)
    found = {problem.path: problem.what for problem in check_bundle(bundle.path).problems}
    assert "leads out of the bundle" in found["unimodal.onnx"]


def test_weights_that_nobody_lists_are_found(tmp_path: Path) -> None:
    """A manifest that was made again without them agrees with every file, and without receipts nobody objects."""
    bundle = make_bundle(tmp_path / "b", external=True)
    assert not check_bundle(bundle.path).problems
    weights = "unimodal.onnx.data"
    entry = bundle.manifest.files[weights]
    text = (bundle.path / MANIFEST_NAME).read_text()
    manifest = json.loads(text)
    assert manifest["files"].pop(weights)["sha256"] == entry.sha256
    (bundle.path / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert [weights in problem.what for problem in check_bundle(bundle.path).problems] == [True]


def test_a_receipt_goes_into_a_bundle_that_was_being_replaced(tmp_path: Path) -> None:
    """Its writer died between the two renames: the bundle is put back first."""
    bundle = make_bundle(tmp_path / "b")
    receipt = exported(bundle)
    bundle.path.rename(tmp_path / ".b.old")
    name = append_receipt(bundle, receipt)
    assert (bundle.path / name).is_file()
    assert not check_bundle(bundle.path).problems
