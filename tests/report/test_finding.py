"""May the engine replace the model? Each way in which it may not is said as such."""

from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.card import card_from_facts
from fmmt_deploy.report.facts import facts_from_bundle
from fmmt_deploy.report.finding import Finding, finding_from_candidate, verdict_blocks
from fmmt_deploy.report.report import html_from_facts
from tests.bundle.samples import FULL, make_bundle
from tests.report.bench_sample import bench
from tests.report.samples import evaluated, judged_bundle, parity, receipt, settings

OF = settings(engine="trt", precision="fp16")


def found(path: Path) -> Finding:
    facts = facts_from_bundle(path)
    return finding_from_candidate(facts, facts.candidates[0])


def test_both_proofs_together_are_a_yes(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "b")
    finding = found(tmp_path / "b")
    assert (finding.level, finding.mark) == ("good", "✓ Yes.")
    assert finding.title == "The engine trt in fp16 may replace the model, if 0.5 points of F1 do not matter."
    assert [line.partition(":")[0] for line in finding.evidence] == ["Parity", "F1"]
    assert finding.commands == finding.missing == finding.problems == ()


@pytest.mark.parametrize(
    ("planted", "level", "said"),
    [
        ({"verdict": "DIFFERENT", "difference": -0.03}, "bad", "F1: DIFFERENT"),
        ({"verdict": "INCONCLUSIVE", "half": 0.02}, "warn", "F1: INCONCLUSIVE"),
        ({"parity_passed": False}, "bad", "Parity FAILED"),
    ],
)
def test_what_speaks_against_it_decides(tmp_path: Path, planted: dict[str, Any], level: str, said: str) -> None:
    judged_bundle(tmp_path / "b", **planted)
    finding = found(tmp_path / "b")
    assert finding.level == level
    assert any(line.startswith(said) for line in (*finding.problems, *finding.missing))


@pytest.mark.parametrize("only", ["parity", "eval"])
def test_one_proof_alone_is_not_enough(tmp_path: Path, only: str) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    append_receipt(bundle, receipt(only, parity() if only == "parity" else evaluated(), settings=OF))
    finding = found(tmp_path / "b")
    assert finding.level == "warn"
    assert len(finding.missing) == len(finding.commands) == 1
    assert finding.commands[0].startswith("fmmt eval" if only == "parity" else "fmmt parity")


def test_a_different_verdict_on_other_data_is_not_outweighed(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "b")
    other = settings(engine="trt", precision="fp16", data="other", split="val")
    append_receipt(bundle, receipt("eval", evaluated("DIFFERENT", -0.03), settings=other, exit_code=5))
    assert found(tmp_path / "b").level == "bad"


@pytest.mark.parametrize("margins", [(0.005, 0.02), (0.02, 0.005)])
def test_a_yes_is_no_better_than_the_widest_margin_behind_it(tmp_path: Path, margins: tuple[float, float]) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    append_receipt(bundle, receipt("parity", parity(), settings=OF))
    for split, margin in zip(("val", "test"), margins, strict=True):
        of = settings(engine="trt", precision="fp16", data="meld", split=split)
        append_receipt(bundle, receipt("eval", evaluated() | {"margin": margin}, settings=of))
    assert found(tmp_path / "b").title.endswith("if 2 points of F1 do not matter.")


def test_scores_without_a_reference_are_no_proof(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    document = evaluated() | {"verdict": None, "reference": None}
    document["modes"][0] |= {"equivalence": None, "audit": None}
    append_receipt(bundle, receipt("parity", parity(), settings=OF))
    append_receipt(bundle, receipt("eval", document, settings=OF))
    finding = found(tmp_path / "b")
    assert finding.level == "warn"
    assert "against no reference" in finding.missing[0]


def test_a_damaged_receipt_makes_it_a_no(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "b")
    file = tmp_path / "b" / "receipts" / "0002-cast.json"
    file.write_bytes(file.read_bytes()[:-2])
    finding = found(tmp_path / "b")
    assert finding.level == "bad"
    assert "fmmt verify" in finding.commands[-1]


def test_speed_is_said_and_decides_nothing(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "a")
    (words,) = found(tmp_path / "a").remarks
    assert words.startswith("Speed: p90 of an utterance from files to label ")
    assert words.endswith("as fast as torch published.")
    judged_bundle(tmp_path / "b", bench_document=bench("another process computed"))
    finding = found(tmp_path / "b")
    assert finding.level == "good"
    assert finding.remarks[0].startswith("Speed: INVALID: p90")


def test_a_ratio_that_is_not_to_be_believed_is_not_said_as_if_it_were(tmp_path: Path) -> None:
    """`fmmt bench` calls such a row INVALID, though its times are valid."""
    document = bench()
    for row in document["workloads"][0]["files"]["single-stream"]["rows"][1:]:
        row["ratio"] |= {"valid": False, "reasons": ["the ratio drifted"]}
    judged_bundle(tmp_path / "b", bench_document=document)
    (words,) = found(tmp_path / "b").remarks
    assert words.startswith("Speed: p90 of")
    assert words.endswith("as fast as torch published (INVALID ratio).")


def test_a_verdict_on_a_part_or_with_noise_says_so_on_top(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    of = settings(engine="trt", precision="fp16", data="meld", split="test", limit=24, noise="gumbel")
    append_receipt(bundle, receipt("eval", evaluated(), settings=of))
    (line,) = found(tmp_path / "b").evidence
    assert line.startswith("F1 on `meld (test, first 24 dialogues, noise gumbel)`: EQUIVALENT at a margin of 0.5")


def test_a_verdict_on_what_was_calibrated_on_is_no_yes(tmp_path: Path) -> None:
    warning = "103 of 412 utterances were calibrated on (plm-int8): judge on another split"
    judged_bundle(tmp_path / "b", evaluation_document=evaluated() | {"warnings": [warning]})
    finding = found(tmp_path / "b")
    assert finding.level == "warn"
    assert finding.missing[-1].endswith(f" But {warning}.")
    assert finding.commands[-1].startswith("fmmt eval")
    of = settings(engine="trt", precision="fp16", data="meld", split="val")
    append_receipt(Bundle.open(tmp_path / "b"), receipt("eval", evaluated(), settings=of))
    finding = found(tmp_path / "b")
    assert finding.level == "good"
    assert finding.remarks[0].endswith(f" But {warning}.")


def test_a_negative_verdict_is_not_hidden_by_a_wider_margin_after_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    of = settings(engine="trt", precision="fp16", data="meld", split="test")
    append_receipt(bundle, receipt("parity", parity(), settings=OF))
    append_receipt(bundle, receipt("eval", evaluated("DIFFERENT", -0.03), settings=of, exit_code=5))
    append_receipt(bundle, receipt("eval", evaluated(difference=-0.03) | {"margin": 0.2}, settings=of))
    assert found(tmp_path / "b").remarks[0] == (
        "Before, F1 on `meld (test)` was DIFFERENT at a margin of 0.5 points (`receipts/0002-eval.json`). "
        "A margin or seeds chosen after that prove nothing."
    )


def test_nothing_judged_is_said_with_what_would_judge_it(tmp_path: Path) -> None:
    make_bundle(tmp_path / "my bundle", architecture=FULL)
    facts = facts_from_bundle(tmp_path / "my bundle")
    (verdict,) = verdict_blocks(facts)
    assert (verdict.level, verdict.title) == ("warn", "No engine was judged.")
    page = html_from_facts(facts)
    for words in ("No engine was scored", "Not compared", "Not audited", "Not measured: run", "nothing vouches for it"):
        assert words in page
    assert "my bundle&#39; --engine ort" in page  # quoted for the shell, escaped for the page


@pytest.mark.parametrize("planted", [{}, {"parity_passed": False}, {"verdict": "DIFFERENT"}])
def test_the_page_says_it_first(tmp_path: Path, planted: dict[str, Any]) -> None:
    judged_bundle(tmp_path / "b", **planted)
    page = html_from_facts(facts_from_bundle(tmp_path / "b"))
    word = "must not replace" if planted else "may replace"
    assert page.index(f"{word} the model") < page.index("<nav") < page.index("<main>")


def test_damage_is_on_top_also_where_no_engine_is_left(tmp_path: Path) -> None:
    """What the damaged receipts said of an engine is lost: that must not look like nothing was judged."""
    bundle = judged_bundle(tmp_path / "b")
    for file in (bundle.path / "receipts").iterdir():
        file.write_bytes(file.read_bytes() + b" ")
    facts = facts_from_bundle(bundle.path)
    assert facts.candidates == ()
    first = verdict_blocks(facts)[0]
    assert (first.level, first.mark) == ("bad", "✗ Damaged.")
    assert "0001-" in html_from_facts(facts).partition("<main>")[0]
    assert "Damaged" in card_from_facts(facts).partition("## Speed")[0]


@pytest.mark.parametrize("later", [{"limit": 24}, {"noise": "gumbel"}, {"reference": "ort"}])
def test_an_easier_question_does_not_outweigh_a_different(tmp_path: Path, later: dict[str, Any]) -> None:
    bundle = judged_bundle(tmp_path / "b")
    document = evaluated() | {"reference": later.get("reference", "torch")}
    given = {"data": None, "split": "test", "limit": None, "noise": "none", "reference": "torch"}
    append_receipt(
        bundle, receipt("eval", evaluated("DIFFERENT", -0.03), settings=OF | settings(**given | {"data": "d"}))
    )
    append_receipt(bundle, receipt("eval", document, settings=OF | settings(**given | {"data": "d"} | later)))
    assert found(tmp_path / "b").level == "bad"


@pytest.mark.parametrize("command", ["parity", "eval"])
def test_an_engine_proves_nothing_of_itself(tmp_path: Path, command: str) -> None:
    bundle = make_bundle(tmp_path / "b", architecture=FULL)
    for each, document in (("parity", parity()), ("eval", evaluated())):
        against = {"reference": "trt fp32"} if each == command else {}
        append_receipt(bundle, receipt(each, document | against, settings=OF))
    finding = found(tmp_path / "b")
    assert finding.level == "warn"
    assert any("trt fp32, which is not the model itself" in line for line in finding.missing)
