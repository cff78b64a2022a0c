"""The deployment card."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fmmt_deploy.foreign_text import one_line
from fmmt_deploy.receipts.record import Hashed
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.report.blocks import Table
from fmmt_deploy.report.card import card_from_facts, markdown_from_table
from fmmt_deploy.report.facts import facts_from_bundle
from fmmt_deploy.report.report import html_from_facts
from tests.bundle.samples import FULL, make_bundle
from tests.report.bench_sample import bench
from tests.report.samples import DEVICE, TOOLS, evaluated, judged_bundle, parity, receipt, settings

DAY = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def card(tmp_path: Path) -> str:
    judged_bundle(tmp_path / "bundle")
    return card_from_facts(facts_from_bundle(tmp_path / "bundle"), DAY)


def test_it_says_what_a_review_needs(card: str) -> None:
    heads = [line for line in card.splitlines() if line.startswith("#")]
    assert heads == [
        "# Deployment card: bundle",
        "## Verdict",
        "## trt, fp16",
        "## Speed",
        "## Hardware and versions",
        "## Hashes",
        "## How to check it",
        "## Licences and legal notice",
    ]
    for words in (
        "Written 2026-11-23",
        "**✓ Yes. The engine trt in fp16 may replace the model, if 0.5 points of F1 do not matter.**",
        "| weighted | 2,610 | 66.73 | 66.71 | −0.02 | −0.11 to +0.07 |",
        "NVIDIA H200",
        "| onnxruntime | 1.23.2 |",
        "fmmt verify -b bundle",
        "Regulation (EU) 2024/1689",
        "Article 5(1)(f)",
        "Annex III, point 1(c)",
        "Article 50(3)",
    ):
        assert words in card


def test_every_table_has_as_many_cells_in_each_row(card: str) -> None:
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 7
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, lines[0]


def test_hashes_are_those_of_the_files(card: str, tmp_path: Path) -> None:
    import hashlib

    for name in ("manifest.json", "swin.onnx", "receipts/0005-bench.json"):
        digest = hashlib.sha256((tmp_path / "bundle" / name).read_bytes()).hexdigest()
        assert f"| {name} | {digest} |" in card


def test_every_table_says_what_its_verdict_stands_on(tmp_path: Path) -> None:
    """As the top of the page says it: verdicts on a part of the data, or with noise, are others."""
    bundle = make_bundle(tmp_path / "bundle", architecture=FULL)
    of = settings(engine="trt", precision="fp16", data="meld", split="test")
    for more in (settings(limit=24, noise="gumbel"), settings(limit=None, noise="none")):
        append_receipt(bundle, receipt("eval", evaluated(), verdict="EQUIVALENT", settings=of | more))
    append_receipt(bundle, receipt("parity", parity() | {"data": "meld"}, settings=of | settings(limit=3)))
    card = card_from_facts(facts_from_bundle(bundle.path), DAY)
    for words in (
        "F1 on `meld (test, first 24 dialogues, noise gumbel)`.",
        "F1 on `meld (test)`.",
        "Parity on `meld (test, first 3 dialogues)`.",
    ):
        assert words in card.splitlines()


def test_one_dialogue_one_receipt_and_one_point_are_told_as_one(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", architecture=FULL)
    of = settings(engine="trt", precision="fp16", data="meld", split="test", limit=1)
    append_receipt(bundle, receipt("eval", evaluated() | {"margin": 0.01}, verdict="EQUIVALENT", settings=of))
    card, page = (write(facts_from_bundle(bundle.path)) for write in (card_from_facts, html_from_facts))
    assert "from 1 receipt." in card
    assert "from 1 receipt by" in page
    assert "F1 on `meld (test, first dialogue)`." in card
    append_receipt(bundle, receipt("parity", parity(), settings=settings(engine="trt", precision="fp16")))
    assert "if 1 point of F1 does not matter.**" in card_from_facts(facts_from_bundle(bundle.path))


def test_inputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    bundle = judged_bundle(tmp_path / "bundle")
    for digest in ("01" * 32, "cd" * 32):
        append_receipt(bundle, receipt("calibrate", {}, inputs={"data": Hashed(digest, "MELD, train")}))
    card = card_from_facts(facts_from_bundle(bundle.path), DAY)
    assert [line for line in card.splitlines() if line.startswith("| input: data")] == [
        f"| input: data (MELD, test; first for fmmt eval, receipt 4) | {'cd' * 32} |",
        f"| input: data (MELD, train; first for fmmt calibrate, receipt 6) | {'01' * 32} |",
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    card = card_from_facts(facts_from_bundle(tmp_path / "bundle"), DAY)
    assert "No engine was judged." in card
    assert "Not measured: run `fmmt bench`." in card


def test_an_invalid_benchmark_is_said_to_be_so(tmp_path: Path) -> None:
    judged_bundle(tmp_path / "bundle", bench_document=bench("another process computed"))
    card = card_from_facts(facts_from_bundle(tmp_path / "bundle"), DAY)
    assert "INVALID: another process computed" in card
    assert "✗ INVALID" in card


def test_the_reasons_against_a_benchmark_say_whose_they_are(tmp_path: Path) -> None:
    document = bench("r0", "r1", "r2", "r3")
    judged_bundle(tmp_path / "bundle", bench_document=document)
    card = card_from_facts(facts_from_bundle(tmp_path / "bundle"), DAY)
    told = [line for line in card.splitlines() if line.startswith("* INVALID") or line.endswith("see the page.")]
    assert told == [*(f"* INVALID: r{i} (single stream)" for i in range(3)), "* 1 reason more: see the page."]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    document = evaluated()
    document["data"]["source"] = "<script>\n# head | a `b` [c](javascript:d)"
    judged_bundle(tmp_path / "bundle", evaluation_document=document)
    card = card_from_facts(facts_from_bundle(tmp_path / "bundle"), DAY)
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert "\n# head" not in card
    assert "\\[c\\](javascript:d)" in card


HOSTILE = (
    "\x1b[2Jevil\x9b\u202e",
    "two\nlines | three \\| four",
    "- a list",
    "12. <b>bold</b> &lt; ~~gone~~ $x$",
    "--- ![c](x) `d` *e* \\",
    "a\n```\n# head",
)
"""Texts as a stranger's receipt may hold them."""


def read(markdown: str) -> list[Token]:
    """By another reader of Markdown."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def inline_kinds(tokens: list[Token]) -> set[str]:
    return {piece.type for token in tokens for piece in token.children or []}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_says_what_was_given_and_nothing_else(text: str) -> None:
    tokens = read(markdown_from_table(Table(("a", ">b"), [(text, "1")])))
    cells = [token.children or [] for token in tokens if token.type == "inline"]
    assert ["".join(piece.content for piece in cell) for cell in cells] == [
        "a",
        "b",
        one_line(" ".join(text.split())),
        "1",
    ]
    assert inline_kinds(tokens) == {"text"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_receipt_gets_out_of_its_place(tmp_path: Path, text: str) -> None:
    """Wherever its words go, the card has the parts that it has with plain ones, and steers no terminal."""
    cards = []
    for words in ("plain", text):
        document, name = evaluated(), f"bundle {words}".replace("/", "")
        document["data"]["source"] = words
        bundle = judged_bundle(tmp_path / name, evaluation_document=document, bench_document=bench(words))
        of = settings(engine="trt", precision="fp16", data=words, split="test")
        append_receipt(bundle, receipt("eval", document, verdict="EQUIVALENT", settings=of))
        device = {**DEVICE, "system": words, "cpu": words, "gpus": [{"name": words}]}
        made = receipt("inspect", {}, device=device, tools={**TOOLS, "onnxruntime": words})
        append_receipt(bundle, replace(made, inputs={words: Hashed("ef" * 32, words)}))
        cards.append(card_from_facts(facts_from_bundle(bundle.path), DAY))
    plain, hostile = map(read, cards)
    assert [token.type for token in hostile] == [token.type for token in plain]
    assert inline_kinds(hostile) <= inline_kinds(plain)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", cards[1])


def test_a_table_in_markdown() -> None:
    text = markdown_from_table(Table(("a", ">b"), [("x|y", "1")], "Of `code`"))
    assert text == "Of `code`:\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
