"""Verdicts made up by hand: what the rules and the picture are tried on."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.selection.judgement import F1Change, Judgement, KeptFaces
from fmmt_deploy.selection.marks import Mark, MarkName
from fmmt_deploy.selection.matrix import Part, Row
from fmmt_deploy.selection.report import Verdict
from fmmt_deploy.selection.timing import Timing

SQNR: dict[Precision, float] = {
    "fp32": inf, "fp16": 61.0, "bf16": 43.5, "int8-fp32": 27.2, "int8": 27.1, "fp8": 24.0,
}  # fmt: skip
SHARE: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8-fp32": 0.28, "int8": 0.265, "fp8": 0.26}
MARK: dict[Precision, MarkName] = {
    "fp32": "no gain", "fp16": "worth it", "bf16": "dominated", "int8-fp32": "worth it", "int8": "worth it",
    "fp8": "harmful",
}  # fmt: skip


def judgement(sqnr_db: float = 40.0, changed: int = 0, drop: float = 0.0, not_finite: str = "") -> Judgement:
    """Of a hundred utterances, of which some changed; F1 drops by so much (0 to 1)."""
    return Judgement(
        graphs=("swin",),
        utterances=100,
        changed=tuple(f"dia0_utt{i}" for i in range(changed)),
        ties=1 if changed else 0,
        sqnr_db=sqnr_db,
        outputs_sqnr_db={"swin": sqnr_db},
        f1=F1Change(0.7, 0.7 - drop, -drop, -drop, Interval(-drop - 0.004, -drop + 0.003, 0.95)),
        kept=KeptFaces(321, changed, 4, 0.02),
        not_finite=not_finite,
    )


def timing(times: float = 2.0) -> Timing:
    """So many times as fast as float32."""
    return Timing("ort", (10.0, 10.2, 9.8, 10.0, 10.1, 9.9, 10.0), tuple(10.0 / times + 0.01 * i for i in range(7)))


def row(part: Part, precision: Precision, drop: float = 0.0) -> Row:
    """A row as the full matrix would have it."""
    found = judgement(SQNR[precision], changed=0 if precision == "fp32" else 1, drop=drop)
    mark = Mark(MARK[precision], "made up")
    share = SHARE[precision]
    timed = timing(1.9) if precision == "int8-fp32" else None
    return Row(part, precision, found, mark, int(1e6 * share), share, {precision: 98, "fp16": 2}, timed)


def sample_verdict() -> Verdict:
    """Everything there is in a bundle, with all marks."""
    parts: tuple[Part, ...] = ("swin", "plm", "fusion", "all")
    rows = tuple(
        row(part, precision, drop=0.0 if precision == "fp32" else 0.001 * number + 0.0005 * place)
        for place, part in enumerate(parts)
        for number, precision in enumerate(PRECISIONS)
    )
    rows = tuple(
        replace(r, judgement=None, mark=None, missing=True) if (r.part, r.precision) == ("fusion", "fp8") else r
        for r in rows
    )
    return Verdict(Path("bundle"), "emulated", "meld (val)", 100, 12, True, None, rows, ("a warning",))
