"""Sections of the report: what is said of noise, of benchmarks, of precisions, and of where all is from."""

import json
from pathlib import Path

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.blocks import Block, Charts, Heading, Listing, Paragraph, Section, Table
from fmmt_deploy.report.facts import Facts, facts_from_bundle
from fmmt_deploy.report.sections.audits import audit_section
from fmmt_deploy.report.sections.decisions import decision_section
from fmmt_deploy.report.sections.origins import environment_section, machines, receipts_section
from fmmt_deploy.report.sections.precision import precision_section
from fmmt_deploy.report.sections.speed import speed_section
from fmmt_deploy.report.sections.stages import parity_section
from tests.benchmark import __file__ as benchmark_tests
from tests.report.bench_sample import bench
from tests.report.samples import evaluated, judged_bundle, noisy, parity, receipt, settings


def facts(path: Path, **planted: object) -> Facts:
    judged_bundle(path / "bundle", **planted)
    return facts_from_bundle(path / "bundle")


def texts(section: Section) -> str:
    """Every word of its paragraphs, lists and tables."""

    def of(block: Block) -> list[str]:
        if isinstance(block, Paragraph):
            return [block.words]
        if isinstance(block, Listing):
            return list(block.items)
        if isinstance(block, Charts):
            own = [f"{figure.title} {figure.caption}" for figure in block.figures]
            return own + (of(block.beside) if block.beside else [])
        return [" | ".join(row) for row in block.rows] if isinstance(block, Table) else [str(block)]

    return "\n".join(words for block in section.blocks for words in of(block))


def charts(section: Section) -> list[str]:
    return [figure.title for block in section.blocks if isinstance(block, Charts) for figure in block.figures]


def test_every_mode_of_the_noise_is_told_apart_with_the_reference_s_band(tmp_path: Path) -> None:
    section = decision_section(facts(tmp_path, evaluation_document=noisy()))
    assert "F1 by seed of the noise." in charts(section)
    words = texts(section)
    assert "the same drawn noise on both sides | 5 | 66.73 | 66.71 | −0.02 | ✓ EQUIVALENT | 66.31 to 66.91" in words
    assert "mean over the draws, then decided | 5 |" in words
    assert "Over 5 seeds of the noise" in words


def test_a_changed_decision_is_told_with_its_seed_where_there_are_several(tmp_path: Path) -> None:
    document = noisy()
    seeds = document["modes"][0]["seeds"] = [2**64 - 1, 8, 9, 10, 11]
    for place, change in enumerate(document["modes"][0]["equivalence"]["changed_decisions"]):
        change["draw"] = place % 2
    words = texts(decision_section(facts(tmp_path, evaluation_document=document)))
    assert f"dia0_utt0, seed {seeds[0]} | " in words
    assert "dia17_utt1, seed 8 | " in words
    assert "dia17_utt1 | " in texts(decision_section(facts(tmp_path / "alone")))


def test_an_evaluation_without_noise_has_no_band(tmp_path: Path) -> None:
    section = decision_section(facts(tmp_path))
    assert "F1 by seed of the noise." not in charts(section)
    assert charts(section)[0] == "Difference of F1."


def test_scores_alone_are_shown_as_no_proof(tmp_path: Path) -> None:
    document = evaluated() | {"verdict": None, "reference": None}
    document["modes"][0] |= {"equivalence": None, "audit": None}
    words = texts(decision_section(facts(tmp_path, evaluation_document=document)))
    assert "Scored without a reference" in words
    assert "neutral | 1,256 | 80.13 | 80.13 | 80.13" in words


def test_a_failed_tensor_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    words = texts(parity_section(facts(tmp_path, parity_passed=False)))
    assert "end to end: logits | 8.0×10⁻²" in words
    assert "✗ largest error 0.08" in words
    assert "✓ passed" in words


def test_a_comparison_with_itself_is_beside(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    own = {"engine": "trt fp16", "passed": True, "deterministic": {}, "checks": [{}, {}]}
    append_receipt(bundle, receipt("parity", own, settings=settings(engine="trt", precision="fp16", self=True)))
    words = texts(parity_section(facts_from_bundle(tmp_path / "bundle")))
    assert "padding: passed (2 checks; receipt `receipts/0006-parity.json`)." in words
    assert "swin: face_logits" in words  # the comparison with the reference is still there


def test_the_audit_says_what_crossed_and_where_f1_went(tmp_path: Path) -> None:
    section = audit_section(facts(tmp_path))
    assert charts(section) == ["The face gate.", "The decision."]
    words = texts(section)
    assert "The face gate | 131,072 | 8.1×10⁻⁵ | 9.4×10⁻⁴ | 3.1×10⁻³ | 11 | 3 | 7.40" in words
    assert "−0.02 points, of which −0.01 through the gate and −0.01 elsewhere" in words


def test_audits_of_several_verdicts_say_on_what_each_is(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    of = settings(engine="trt", precision="fp16", data="meld", split="test")
    for more in (settings(limit=24), settings(noise="gumbel")):
        append_receipt(bundle, receipt("eval", evaluated(), verdict="EQUIVALENT", settings=of | more))
    blocks = audit_section(facts_from_bundle(bundle.path)).blocks
    assert [block.words for block in blocks if isinstance(block, Heading)] == [
        "trt, fp16 on MELD",
        "trt, fp16 on `meld (test, first 24 dialogues)`",
        "trt, fp16 on `meld (test, noise gumbel)`",
    ]


def test_a_percentile_that_can_not_be_claimed_is_marked(tmp_path: Path) -> None:
    words = texts(speed_section(facts(tmp_path)))
    assert words.count(" ms (?)") == 4  # p99 of four contenders
    assert "trt:fp16, dialogue cached, batch 1" in words
    assert "61.5 a second | 64.0 a second | p99 under 100 ms" in words


def test_rates_stand_under_the_machine_s_own(tmp_path: Path) -> None:
    section = speed_section(facts(tmp_path))
    (figure,) = [
        figure
        for block in section.blocks
        if isinstance(block, Charts)
        for figure in block.figures
        if figure.title == "Rate against intensity."
    ]
    assert "fp16: 410,000 GFLOP/s" in figure.svg
    # by hand: 95.7 GFLOP in 6.72 ms, and 2.1e8 bytes
    assert "torch, no cache | swin | 456 | 14,241 | 3 %" in texts(section)


def test_an_invalid_benchmark_says_why_first(tmp_path: Path) -> None:
    section = speed_section(facts(tmp_path, bench_document=bench(*(f"reason {i}" for i in range(5)))))
    words = texts(section)
    assert words.index("INVALID; receipt") < words.index("reason 0") < words.index("Latency.")
    assert "✗ INVALID" in words
    assert "All 5 reasons" in [block.folded for block in section.blocks if isinstance(block, Table)]


def test_a_row_whose_ratio_is_invalid_is_marked_as_the_command_marks_it(tmp_path: Path) -> None:
    document = bench()
    for scenario in ("single-stream", "offline"):
        ratio = document["workloads"][0]["files"][scenario]["rows"][-1]["ratio"]
        ratio |= {"valid": False, "reasons": ["the ratio drifted"]}
    words = texts(speed_section(facts(tmp_path, bench_document=document)))
    marked = [line.partition(" |")[0] for line in words.splitlines() if line.endswith("✗ INVALID")]
    assert marked == ["trt:fp16, dialogue cached, batch 1", "trt:fp16, dialogue cached, batched"]


def test_a_reason_says_of_which_rows_it_is(tmp_path: Path) -> None:
    """As the tables of `fmmt bench` say it, and with the table: one list is of all of them."""
    document = bench()
    (workload,) = document["workloads"]
    files, drifted = workload["files"], {"valid": False, "reasons": ["the ratio drifted by 17%"]}
    for row in (*files["single-stream"]["rows"][2:], files["offline"]["rows"][1]):
        row["ratio"] |= drifted
    for found in (files["stages"]["validity"], workload["device"]["rows"][0]):
        found |= {"valid": False, "reasons": ["too warm"]}
    reasons = ["the ratio drifted by 17%", "too warm", "of nobody"]
    section = speed_section(facts(tmp_path, bench_document=document | {"valid": False, "reasons": reasons}))
    assert next(block.items for block in section.blocks if isinstance(block, Listing)) == (
        "the ratio drifted by 17% (single stream: trt:fp16, no cache; single stream: trt:fp16, dialogue cached, "
        "batch 1; offline: trt:fp16, dialogue cached, batched)",
        "too warm (compute alone: torch, no cache, swin; stages)",
        "of nobody",
    )


def test_margins_are_rounded_as_the_verdict_s_words_round_them(tmp_path: Path) -> None:
    document = evaluated()
    document["modes"][0]["equivalence"] |= {"passing_margin": 0.11682, "detectable": 0.02461}
    words = texts(decision_section(facts(tmp_path, evaluation_document=document)))
    assert "'passes above', '±11.69', 'such data can show ±2.47'" in words


def test_a_benchmark_made_by_the_command_is_read(tmp_path: Path) -> None:
    """The sample is what `fmmt bench --json` wrote."""
    document = json.loads((Path(benchmark_tests).parent / "bench-sample.json").read_text(encoding="utf-8"))
    section = speed_section(facts(tmp_path, bench_document=document))
    assert {"Latency.", "Throughput.", "From starting a process to its first answer."} <= set(charts(section))
    words = texts(section)
    for engine in ("torch, the published loop", "ort, dialogue cached, batched"):
        assert f"{engine} |" in words
    assert "It computes on the host, where nothing is copied" in words


def test_one_of_a_kind_is_told_as_one(tmp_path: Path) -> None:
    document, compared = evaluated(), parity()
    compared["stages"][-1]["decisions"]["ties"] = ["dia0_utt0"]
    found = facts(tmp_path, evaluation_document=document)
    assert "'of 2,610; 1 tie'" in texts(decision_section(found))
    append_receipt(
        Bundle.open(found.path, verify=False),
        receipt("parity", compared, settings=settings(engine="trt", precision="fp16"), device={"cores": 1}),
    )
    found = facts_from_bundle(found.path)
    assert "0 decided otherwise, 1 tie turned" in texts(parity_section(found))
    assert any(machine.startswith("1 core, ") for machine in machines(found))


def test_precisions_are_those_of_the_graphs_that_are_there(tmp_path: Path) -> None:
    section = precision_section(facts(tmp_path))
    assert charts(section) == ["The bundle's typed graphs."]
    assert "fusion | fp16 | fp16 97.12 %, fp32 2.88 % | – | –" in texts(section)


def test_engines_are_shown_as_they_were_built(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    built = {"graph": "swin", "precision": "fp16", "flops_share": {"fp16": 1.0}}
    built["realised"] = {"flops_share": {"fp16": 0.75, "fp32": 0.25}}
    result = {"flavour": "trt-rtx", "engines": [built]}
    append_receipt(bundle, receipt("build", result, settings=settings(engine="trt-rtx", precision="fp16")))
    section = precision_section(facts_from_bundle(tmp_path / "bundle"))
    assert charts(section) == ["The bundle's typed graphs.", "Engines."]
    assert "swin | fp16 | fp16 100.00 % | fp16 75.00 %, fp32 25.00 % | trt-rtx" in texts(section)


def test_receipts_and_the_chain_are_listed(tmp_path: Path) -> None:
    found = facts(tmp_path)
    words = texts(receipts_section(found))
    for kept in found.kept:
        assert kept.sha256 in words
    assert "0004 | fmmt eval | 2026-11-23 09:00 UTC | 12.3 s | ✓ EQUIVALENT" in words
    assert "multimodal.pt | checkpoint | fmmt export | " + "ab" * 32 in words
    assert "parity | trt fp16, self-test | ✓ ok" in words


def test_versions_that_changed_between_receipts_are_told_apart(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    append_receipt(bundle, receipt("parity", parity(), tools={"numpy": "9.9"}))
    words = texts(environment_section(facts_from_bundle(tmp_path / "bundle")))
    assert "numpy | 2.3.4 (receipts 1, 2, 3, 4, 5); 9.9 (receipt 6)" in words
    assert "torch | 2.9.0" in words
    assert "NVIDIA H200 (compute 9.0, driver 570.1)" in words
