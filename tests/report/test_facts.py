"""What a bundle's receipts say, and whether it still holds."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import BundleError
from fmmt_deploy.receipts import lanes
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.facts import facts_from_bundle
from tests.bundle.samples import FULL, make_bundle
from tests.report.samples import evaluated, judged_bundle, parity, receipt, settings


def hashes(bundle: Bundle) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in bundle.manifest.files.items()}


def test_evidence_is_found_for_the_engine_it_is_about(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "bundle")
    facts = facts_from_bundle(tmp_path / "bundle")
    (candidate,) = facts.candidates
    assert (candidate.engine, candidate.precision, candidate.label) == ("trt", "fp16", "trt, fp16")
    assert [one.path for one in candidate.parity] == ["receipts/0003-parity.json"]
    assert [one.path for one in candidate.f1] == ["receipts/0004-eval.json"]
    assert facts.bench is not None
    assert facts.bench.path == "receipts/0005-bench.json"
    assert {one.state for one in (*candidate.parity, *candidate.f1, facts.bench)} == {"ok"}
    assert [(s.graph, s.precision) for s in facts.shares] == [("swin", "fp16"), ("plm", "fp16"), ("fusion", "fp16")]
    assert facts.chain is not None


def test_precisions_are_the_same_however_they_were_typed(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    of = settings(engine="trt", precision="swin=fp16,plm=fp16,fusion=fp16")
    append_receipt(bundle, receipt("parity", parity(), settings=of, subjects=hashes(bundle)))
    (candidate,) = facts_from_bundle(tmp_path / "bundle").candidates
    assert [one.path for one in candidate.parity] == ["receipts/0006-parity.json"]


def test_the_latest_on_each_data_counts(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    other = settings(engine="trt", precision="fp16", data="other", split="val")
    append_receipt(bundle, receipt("eval", evaluated("DIFFERENT"), settings=other, exit_code=5))
    append_receipt(bundle, receipt("eval", evaluated(), settings=settings(engine="trt", precision="fp16")))
    (candidate,) = facts_from_bundle(tmp_path / "bundle").candidates
    assert {one.path: one.state for one in candidate.f1} == {
        "receipts/0006-eval.json": "failed",
        "receipts/0007-eval.json": "ok",
    }


def test_the_engine_judged_last_comes_first(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    append_receipt(bundle, receipt("parity", parity(), settings=settings(engine="ort", precision="fp32")))
    assert [c.label for c in facts_from_bundle(tmp_path / "bundle").candidates] == ["ort, fp32", "trt, fp16"]


def test_what_was_judged_of_other_graphs_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    bundle = judged_bundle(path)
    append_receipt(bundle, receipt("verdict", {"rows": []}, subjects=hashes(bundle)))
    kept = tmp_path / "kept"
    shutil.copytree(path / "receipts", kept)
    shutil.rmtree(path)
    make_bundle(path, value=2.0, architecture=FULL)
    shutil.copytree(kept, path / "receipts")
    facts = facts_from_bundle(path)
    (candidate,) = facts.candidates
    assert [one.state for one in (*candidate.parity, *candidate.f1)] == ["stale", "stale"]
    assert "changed since" in candidate.f1[0].why
    assert facts.shares == ()  # of graphs that are gone
    assert facts.verdict is not None
    assert facts.verdict.state == "stale"  # no step of the chain is about it


def test_evidence_is_stale_where_the_chain_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another TensorRT, another manifest: `fmmt status` and the report have one rule."""
    bundle = make_bundle(tmp_path / "bundle", architecture=FULL)
    of = settings(engine="trt", precision="fp32")
    made = receipt("eval", evaluated(), settings=of, subjects=hashes(bundle))
    append_receipt(bundle, replace(made, verdict="EQUIVALENT", tools={"tensorrt": "1.0"}))

    def state() -> tuple[str, str]:
        facts = facts_from_bundle(bundle.path)
        assert facts.chain is not None
        (judged,) = (step for step in facts.chain.steps if step.kind == "F1")
        (found,) = facts.candidates[0].f1
        assert (found.state, found.why or "EQUIVALENT") == (judged.state, judged.why)
        return found.state, found.why

    monkeypatch.setattr(lanes, "version", lambda _: "1.0")
    assert state() == ("ok", "")
    monkeypatch.setattr(lanes, "version", lambda _: "2.0")
    assert state() == ("stale", "it was with tensorrt 1.0, here is 2.0")
    outputs = {"manifest.json": "00" * 32}
    append_receipt(bundle, replace(receipt("export", {}), outputs=outputs))
    assert state()[1].startswith("manifest.json is not that of receipts/0002-export.json")


def test_a_damaged_receipt_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "bundle")
    file = tmp_path / "bundle" / "receipts" / "0002-cast.json"
    file.write_bytes(file.read_bytes().replace(b"fp16", b"fp32", 1))
    facts = facts_from_bundle(tmp_path / "bundle")
    assert "receipts/0002-cast.json" in [kept.path for kept in facts.damaged]
    assert facts.chain is None
    assert facts.candidates


def test_a_receipt_that_is_not_of_the_chain_proves_nothing(tmp_path: Path) -> None:
    """Whole in itself, but put there: from another bundle, or from before others were taken away."""
    judged_bundle(tmp_path / "other")
    (verdict,) = (tmp_path / "other" / "receipts").glob("*-eval.json")
    bundle = make_bundle(tmp_path / "bundle", architecture=FULL)
    append_receipt(bundle, receipt("parity", parity(), settings=settings(engine="trt", precision="fp16")))
    shutil.copy(verdict, bundle.path / "receipts" / verdict.name)
    facts = facts_from_bundle(bundle.path)
    assert [kept.path for kept in facts.damaged] == [f"receipts/{verdict.name}"]
    (candidate,) = facts.candidates
    assert (len(candidate.parity), candidate.f1) == (1, ())


def test_a_bundle_without_receipts_has_nothing_to_say(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    facts = facts_from_bundle(tmp_path / "bundle")
    assert (facts.candidates, facts.bench, facts.receipts, facts.shares) == ((), None, (), ())


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        facts_from_bundle(tmp_path)


def test_facts_come_with_nothing_heavy(tmp_path: Path) -> None:
    """A report of a bundle on a machine without PyTorch and ONNX Runtime."""
    judged_bundle(tmp_path / "bundle")
    code = (
        "import sys\n"
        "for name in ('torch', 'onnxruntime', 'transformers', 'matplotlib'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from fmmt_deploy.report.facts import facts_from_bundle\n"
        "from fmmt_deploy.report.report import html_from_facts\n"
        f"print(len(html_from_facts(facts_from_bundle(Path({str(tmp_path / 'bundle')!r})))) > 50_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
