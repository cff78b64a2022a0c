"""The verdict on a bundle's precisions: rows for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf, isnan
from pathlib import Path

from fmmt_deploy.benchmark.statistics import LatencySummary, format_ms
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import adding_command
from fmmt_deploy.calibration.formats import EIGHT_BITS
from fmmt_deploy.engines.protocol import EngineKind
from fmmt_deploy.selection.judgement import F1Change
from fmmt_deploy.selection.matrix import Row
from fmmt_deploy.types import GraphName

__all__ = ["ACCURACY_COLUMNS", "MARK_COLUMNS", "MISSING_COLUMNS", "Verdict", "decibels", "points"]

ACCURACY_COLUMNS = (
    *("part", "precision", "agree", "changed", "logits dB", "own dB"),
    *("ΔF1", "95 %", "kept faces", "near"),
)
MARK_COLUMNS = ("part", "precision", "weights", "products", "time", "mark", "why")
MISSING_COLUMNS = ("precision", "parts", "why")

_UNKNOWN = "–"
_SHOWN = 0.005
"""Smaller shares of the products are left out of the table, not of the JSON."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What each precision of each part costs in accuracy and gains.

    Attributes:
        bundle: What was judged.
        engine: What computed the answers.
        data: What it was judged on.
        utterances: How many.
        dialogues: Of how many dialogues.
        labelled: Whether all labels are known; else nothing is known about F1.
        max_f1_drop: What was allowed, 0 to 1; None where each precision is held to its own rule.
        rows: One a part and precision.
        warnings: What the reader should know before believing it.
    """

    bundle: Path
    engine: EngineKind
    data: str
    utterances: int
    dialogues: int
    labelled: bool
    max_f1_drop: float | None
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()

    def accuracy_rows(self) -> list[tuple[object, ...]]:
        """The cells of a table with `ACCURACY_COLUMNS`."""
        return [_accuracy(row) for row in self.rows if row.judgement is not None]

    def mark_rows(self) -> list[tuple[object, ...]]:
        """The cells of a table with `MARK_COLUMNS`."""
        baselines = {row.part: row.timing.summaries[0] for row in self.rows if row.timing is not None}
        return [_marked(row, baselines.get(row.part)) for row in self.rows if row.judgement is not None]

    def missing_rows(self) -> list[tuple[object, ...]]:
        """The cells of a table with `MISSING_COLUMNS`: what was not judged, and what could not be timed."""
        missing: dict[Precision, list[GraphName]] = {}
        for row in self.rows:
            if row.missing and row.part != "all":
                missing.setdefault(row.precision, []).append(row.part)
        told = {row.precision for row in self.rows if row.note and row.part != "all"}
        rows: list[tuple[object, ...]] = [
            (row.precision, row.part, row.note)
            for row in self.rows
            if row.note and not (row.part == "all" and row.precision in told)
        ]
        return [*rows, *((p, ", ".join(graphs), self._command(p, graphs)) for p, graphs in missing.items())]

    def _command(self, precision: Precision, graphs: Sequence[GraphName]) -> str:
        """What adds a precision to the bundle."""
        split = " --split train" if precision in EIGHT_BITS else ""  # not what is judged on
        return f"not in the bundle: {adding_command(self.bundle, graphs, precision)}{split}"

    def summary(self) -> str:
        """What the numbers are, in lines for people."""
        worth = [f"{row.part} {row.precision}" for row in self.rows if row.mark and row.mark.name == "worth it"]
        timed = sorted({row.timing.by for row in self.rows if row.timing is not None and row.part != "all"})
        speed = f"measured with {', '.join(timed)}, beside float32 in turns" if timed else "not measured"
        lines = [
            f"Worth it: {', '.join(worth) or 'nothing'}.",
            f"Judged with {self.engine} against PyTorch float32; speed {speed}.",
            "own dB: of what swin and plm answer themselves. Kept faces: those that the gate treats otherwise; "
            "near: those within the largest error of its threshold.",
            "ΔF1: points of weighted F1 above that of float32, with a bootstrap interval over dialogues."
            if self.labelled
            else "ΔF1 is unknown: the data have no labels, or not for all utterances.",
        ]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def to_json(self) -> dict[str, object]:
        """Plain values. What is infinite or NaN becomes null when it is shown; see `Judgement.to_json`."""
        return {
            "bundle": str(self.bundle),
            "engine": self.engine,
            "data": self.data,
            "utterances": self.utterances,
            "dialogues": self.dialogues,
            "labelled": self.labelled,
            "max_f1_drop": self.max_f1_drop,
            "rows": [_json(row) for row in self.rows],
            "warnings": list(self.warnings),
        }


def decibels(sqnr_db: float) -> str:
    """An SQNR for people, without its unit."""
    if isnan(sqnr_db):
        return "NaN"
    return "equal" if isinf(sqnr_db) and sqnr_db > 0 else f"{sqnr_db:.1f}"


def points(f1: F1Change) -> tuple[str, str]:
    """A change of F1 in points, and its interval: `-0.12` and `-0.50…+0.21`."""
    interval = f1.interval
    bounds = _UNKNOWN if interval is None else f"{100 * interval.low:+.2f}…{100 * interval.high:+.2f}"
    return f"{100 * f1.difference:+.2f}", bounds


def _accuracy(row: Row) -> tuple[object, ...]:
    judgement = row.judgement
    assert judgement is not None
    changed = f"{len(judgement.changed)}" + (f" + {judgement.ties} ties" if judgement.ties else "")
    own = _UNKNOWN  # of all at once, each is what it is alone
    if row.part != "all" and row.part in judgement.outputs_sqnr_db:
        own = decibels(judgement.outputs_sqnr_db[row.part])
    kept = judgement.kept
    return (
        row.part,
        row.precision,
        f"{judgement.agreement:.2%}",
        changed,
        decibels(judgement.sqnr_db),
        own,
        *((_UNKNOWN, _UNKNOWN) if judgement.f1 is None else points(judgement.f1)),
        _UNKNOWN if kept is None else f"{kept.changed} of {kept.faces}",
        _UNKNOWN if kept is None else kept.near,
    )


def _marked(row: Row, baseline: LatencySummary | None) -> tuple[object, ...]:
    """`baseline` is the time of float32 beside which another precision of the same part was measured."""
    assert row.mark is not None
    total = sum((row.flops or {}).values()) or 1
    found = {precision: flops / total for precision, flops in (row.flops or {}).items()}
    shares = ", ".join(f"{precision} {share:.0%}" for precision, share in found.items() if share >= _SHOWN)
    own = baseline if row.precision == "fp32" else None if row.timing is None else row.timing.summaries[1]
    time = "not measured" if own is None else f"{format_ms(own.p50_ms)} ±{own.spread / 2:.0%}"
    size = f"{row.weight_bytes / 1e6:.1f} MB ({row.bytes_share:.0%})"
    return (row.part, row.precision, size, shares, time, row.mark.name, row.mark.reason)


def _json(row: Row) -> dict[str, object]:
    return {
        "part": row.part,
        "precision": row.precision,
        "mark": None if row.mark is None else row.mark.name,
        "reason": None if row.mark is None else row.mark.reason,
        "missing": row.missing,
        "note": row.note,
        "judgement": None if row.judgement is None else row.judgement.to_json(),
        "weight_bytes": row.weight_bytes,
        "bytes_share": row.bytes_share,
        "flops": dict(row.flops or {}),
        "timing": None if row.timing is None else row.timing.to_json(),
    }
