"""What a benchmark says: latency, throughput and ratios a way of working, and work and rate a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.benchmark.choices import rate_name
from fmmt_deploy.benchmark.run import Measurement
from fmmt_deploy.benchmark.statistics import LatencySummary, Ratio, median_interval, paired_ratio, summarise
from fmmt_deploy.benchmark.ways import PUBLISHED_TOKENS
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.products import matmul_flops
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.pipeline.run import StageName
from fmmt_deploy.types import DataSet

__all__ = ["DESCRIPTIONS", "BenchReport", "RateRow", "StageRow", "WayRow", "rate_rows", "report", "stages_of"]

STAGES: tuple[StageName, ...] = ("prepare", "swin", "plm", "fusion")

DESCRIPTIONS: Mapping[str, str] = {
    "published": "the published loop",
    "alone": "each utterance alone, no cache",
    "cached": "dialogue cached, batch 1",
    "together": "no cache, batched",
    "batched": "dialogue cached, batched",
}


@dataclass(frozen=True, slots=True)
class WayRow:
    """One engine in one way of working; `speed_up` is against the baseline, dialogue by dialogue."""

    engine: str
    way: str
    latency: LatencySummary
    per_second: float
    speed_up: Ratio | None


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of one way: its time and matrix-product work an utterance, and its share of the machine's rate."""

    engine: str
    way: str
    stage: str
    ms: float
    gflop: float | None
    share_of_rate: float | None


@dataclass(frozen=True, slots=True)
class RateRow:
    """How fast the machine multiplies matrices: where and in which precision, median, range, interval of the median."""

    name: str
    gflops: float
    gflops_range: tuple[float, float]
    gflops_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything a benchmark found out.

    `baseline` is what the others' speed-up is against. `matrix_gflops` is the first of `rates`, kept for readers of
    reports from before there were several; `copy_gb_per_s` is the GPU's memory, read and written.
    """

    workload: str
    dialogues: int
    utterances: int
    tokens: int
    faces: int
    rounds: int
    threads: int
    matrix_gflops: float | None
    matrix_gflops_range: tuple[float, float] | None
    ways: tuple[WayRow, ...]
    stages: tuple[StageRow, ...]
    baseline: str
    rates: tuple[RateRow, ...]
    copy_gb_per_s: float | None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def report(
    measured: Sequence[Measurement],
    rates: Mapping[str, Sequence[float]],
    dataset: DataSet,
    tokens: Sequence[int],
    bundle: Bundle,
    rounds: int,
    threads: int,
    copy_gb_per_s: float | None = None,
) -> BenchReport:
    """Draws it all together.

    Args:
        measured: Of every contender; the published way, or else the first, is the baseline.
        rates: The machine's matrix-product rates by name, samples in TFLOP/s.
        dataset: What was answered.
        tokens: Of each of its dialogues.
        bundle: With what; its graphs tell the work.
        rounds: How often.
        threads: With how many.
        copy_gb_per_s: The GPU's copy rate, where it was measured.
    """
    utterances = sum(len(dialogue.utterances) for dialogue in dataset.dialogues)
    baseline = next((m for m in measured if m.way == "published"), measured[0])
    rows = rate_rows(rates)
    return BenchReport(
        workload=dataset.source,
        dialogues=len(dataset.dialogues),
        utterances=utterances,
        tokens=sum(tokens),
        faces=sum(u.vision_length for dialogue in dataset.dialogues for u in dialogue.utterances),
        rounds=rounds,
        threads=threads,
        matrix_gflops=rows[0].gflops if rows else None,
        matrix_gflops_range=rows[0].gflops_range if rows else None,
        ways=tuple(_way_row(m, baseline) for m in measured),
        stages=tuple(
            row for m in measured if m.stages_ms for row in stages_of(m, dataset, tokens, bundle, rounds, rows)
        ),
        baseline=f"{DESCRIPTIONS[baseline.way]} on {baseline.engine}",
        rates=rows,
        copy_gb_per_s=copy_gb_per_s,
    )


def _way_row(measurement: Measurement, baseline: Measurement) -> WayRow:
    same = measurement is baseline
    return WayRow(
        measurement.engine,
        measurement.way,
        summarise(measurement.answers_ms),
        1000 * len(measurement.answers_ms) / sum(measurement.dialogues_ms),
        None if same else paired_ratio(baseline.dialogues_ms, measurement.dialogues_ms),
    )


def rate_rows(rates: Mapping[str, Sequence[float]]) -> tuple[RateRow, ...]:
    """What samples of rates say, in TFLOP/s by name."""
    rows = []
    for name, samples in rates.items():
        if samples:
            low, high, _ = median_interval(1000 * np.asarray(samples), 0.95)
            rows.append(RateRow(name, 1000 * median(samples), (1000 * min(samples), 1000 * max(samples)), (low, high)))
    return tuple(rows)


def stages_of(
    measurement: Measurement,
    dataset: DataSet,
    tokens: Sequence[int],
    bundle: Bundle,
    rounds: int,
    rates: Sequence[RateRow],
) -> list[StageRow]:
    """Where a contender's time went.

    Args:
        measurement: Its stages, added up.
        dataset: What was answered.
        tokens: Of each of its dialogues.
        bundle: With what; its graphs tell the work.
        rounds: How often.
        rates: What the machine can do.
    """
    work = _work(dataset, tokens, bundle, measurement.way)
    utterances = sum(len(dialogue.utterances) for dialogue in dataset.dialogues)
    by_name, rows = {row.name: row.gflops for row in rates}, []
    for stage in STAGES:
        if stage not in measurement.stages_ms:
            continue
        ms = measurement.stages_ms[stage] / utterances / rounds
        gflop = work[stage] / utterances / 1e9 if stage in work else None
        rate = by_name.get(rate_name(measurement.device, _precision(measurement, stage)))
        share = None if gflop is None or rate is None else gflop / ms * 1000 / rate
        rows.append(StageRow(measurement.engine, measurement.way, stage, ms, gflop, share))
    return rows


def _precision(measurement: Measurement, stage: StageName) -> Precision:
    """The stage `fusion` is the last graph, whatever its name."""
    precisions = {str(graph): precision for graph, precision in measurement.precisions.items()}
    return precisions.get(stage) or precisions.get("unimodal", "fp32")


def _work(dataset: DataSet, tokens: Sequence[int], bundle: Bundle, way: str) -> Mapping[str, int]:
    """Matrix-product FLOPs of each stage over the whole data set; padding that a way adds is part of its work."""
    architecture: Architecture = bundle.manifest.architecture
    utterances = [len(dialogue.utterances) for dialogue in dataset.dialogues]
    faces = sum(u.vision_length for dialogue in dataset.dialogues for u in dialogue.utterances)
    last = graphs_of(architecture)[-1]
    one = matmul_flops(bundle.graph(last), {"dialogues": 1, "tokens": 2, "utterances": 1, "faces": 1})
    work = {"fusion": one * sum(utterances)}
    if architecture.plm is not None:
        for own, count in zip(tokens, utterances, strict=True):
            length = PUBLISHED_TOKENS if way == "published" else own
            times = count if way in ("published", "alone") else 1
            work["plm"] = work.get("plm", 0) + times * matmul_flops(
                bundle.graph("plm"), {"dialogues": 1, "tokens": length}
            )
        work["swin"] = faces * matmul_flops(bundle.graph("swin"), {"faces": 1})
    return work
