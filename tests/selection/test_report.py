"""The report: what people and programs read, on a verdict made up by hand."""

from dataclasses import replace
from math import inf, nan

import pytest

from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.selection.judgement import F1Change
from fmmt_deploy.selection.report import ACCURACY_COLUMNS, MARK_COLUMNS, MISSING_COLUMNS, decibels, points
from tests.selection.verdicts import judgement, row, sample_verdict


def test_tables_fit_their_columns() -> None:
    verdict = sample_verdict()
    for rows, columns in (
        (verdict.accuracy_rows(), ACCURACY_COLUMNS),
        (verdict.mark_rows(), MARK_COLUMNS),
        (verdict.missing_rows(), MISSING_COLUMNS),
    ):
        assert rows
        assert {len(cells) for cells in rows} == {len(columns)}
    assert len(verdict.accuracy_rows()) == len(verdict.mark_rows()) == len(verdict.rows) - 1


def test_cells() -> None:
    verdict = sample_verdict()
    cells = dict(zip(ACCURACY_COLUMNS, verdict.accuracy_rows()[1], strict=True))
    assert cells == {
        "part": "swin", "precision": "fp16", "agree": "99.00%", "changed": "1 + 1 ties", "logits dB": "61.0",
        "own dB": "61.0", "ΔF1": "-0.10", "95 %": "-0.50…+0.20", "kept faces": "1 of 321", "near": 4,
    }  # fmt: skip
    assert verdict.accuracy_rows()[0][ACCURACY_COLUMNS.index("logits dB")] == "equal"
    cells = dict(zip(MARK_COLUMNS, verdict.mark_rows()[3], strict=True))
    assert cells["weights"] == "0.3 MB (28%)"
    assert cells["products"] == "int8-fp32 98%, fp16 2%"
    times = [cells[MARK_COLUMNS.index("time")] for cells in verdict.mark_rows()]
    assert times[:4] == ["10.0 ms ±1%", "not measured", "not measured", "5.29 ms ±0%"]


def test_small_shares_of_the_products_are_left_out_of_the_table_only() -> None:
    found = replace(row("plm", "fp16"), flops={"fp16": 999, "fp32": 1})
    verdict = replace(sample_verdict(), rows=(found,))
    assert verdict.mark_rows()[0][MARK_COLUMNS.index("products")] == "fp16 100%"
    assert verdict.to_json()["rows"][0]["flops"] == {"fp16": 999, "fp32": 1}  # type: ignore[index]


def test_unknown_is_not_nothing() -> None:
    """Without labels ΔF1 is unknown, and 0 is nowhere said."""
    bare = replace(judgement(50.0), f1=None, kept=None, outputs_sqnr_db={})
    verdict = replace(sample_verdict(), rows=(replace(row("plm", "fp16"), judgement=bare),), labelled=False)
    cells = dict(zip(ACCURACY_COLUMNS, verdict.accuracy_rows()[0], strict=True))
    assert [cells[name] for name in ("own dB", "ΔF1", "95 %", "kept faces", "near")] == ["–"] * 5
    assert "ΔF1 is unknown" in verdict.summary()
    shown = verdict.to_json()
    assert shown["labelled"] is False
    assert shown["rows"][0]["judgement"]["f1"] is None  # type: ignore[index]


def test_what_is_missing_comes_with_its_command() -> None:
    gone = replace(row("swin", "fp16"), judgement=None, mark=None, missing=True)
    absent = [replace(gone, part=part, precision=p) for part in ("swin", "plm") for p in ("fp16", "int8")]  # type: ignore[arg-type]
    whole = replace(absent[0], part="all")
    verdict = replace(sample_verdict(), rows=(*absent, whole))
    assert verdict.missing_rows() == [
        ("fp16", "swin, plm", "not in the bundle: fmmt cast -b bundle --precision swin=fp16,plm=fp16"),
        (
            "int8",
            "swin, plm",
            "not in the bundle: fmmt calibrate -b bundle --precision swin=int8,plm=int8 --data DIR --split train",
        ),
    ]


def test_a_refusal_is_told_once() -> None:
    refused = replace(row("plm", "bf16"), judgement=None, mark=None, note="no kernel")
    other = replace(refused, part="all", precision="fp8", note="no kernel either")
    verdict = replace(sample_verdict(), rows=(refused, replace(refused, part="all"), other))
    assert verdict.missing_rows() == [("bf16", "plm", "no kernel"), ("fp8", "all", "no kernel either")]


def test_the_summary_says_what_was_found_and_how() -> None:
    summary = sample_verdict().summary()
    assert summary.startswith("Worth it: swin fp16, swin int8-fp32, swin int8, plm fp16")
    assert "Judged with emulated against PyTorch float32; speed measured with ort, beside float32 in turns." in summary
    assert summary.endswith("warning: a warning")
    untimed = replace(sample_verdict(), rows=(row("plm", "bf16"),))
    assert "Worth it: nothing." in untimed.summary()
    assert "speed not measured" in untimed.summary()


def test_json_has_every_row_with_its_mark() -> None:
    verdict = sample_verdict()
    shown = verdict.to_json()
    rows = shown["rows"]
    assert isinstance(rows, list)
    assert [(r["part"], r["precision"]) for r in rows] == [(r.part, r.precision) for r in verdict.rows]
    assert (rows[1]["mark"], rows[1]["reason"], rows[1]["missing"]) == ("worth it", "made up", False)
    assert [r["precision"] for r in rows if r["missing"]] == ["fp8"]
    assert all((r["mark"] is None) == (r["judgement"] is None) == r["missing"] for r in rows)
    assert rows[1]["judgement"]["agreement"] == pytest.approx(0.99)
    assert rows[3]["timing"]["ratio"]["median"] == pytest.approx(1.9, rel=0.05)


@pytest.mark.parametrize(("number", "text"), [(41.26, "41.3"), (inf, "equal"), (-inf, "-inf"), (nan, "NaN")])
def test_decibels(number: float, text: str) -> None:
    assert decibels(number) == text


def test_points() -> None:
    change = F1Change(0.7, 0.695, -0.005, -0.005, Interval(-0.0126, 0.0021, 0.95))
    assert points(change) == ("-0.50", "-1.26…+0.21")
    assert points(replace(change, interval=None)) == ("-0.50", "–")
