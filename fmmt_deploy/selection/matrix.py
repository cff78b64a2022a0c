"""Every submodule in every precision that a bundle has: judged on data, weighed, timed where that means something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.benchmark.statistics import Ratio
from fmmt_deploy.bundle.manifest import PRECISIONS, Precision
from fmmt_deploy.bundle.precisions import float32
from fmmt_deploy.bundle.products import flops_by_precision, products_of, weight_bytes
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import default_threads, open_engines
from fmmt_deploy.engines.protocol import HOST_FACE_BATCH, Array, Engine, EngineKind, Engines
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.selection.answering import Answers
from fmmt_deploy.selection.judge import Judge
from fmmt_deploy.selection.judgement import Judgement
from fmmt_deploy.selection.marks import Contestant, Mark, marks_of
from fmmt_deploy.selection.rules import EQUIVALENCE_RULES, EquivalenceRule
from fmmt_deploy.selection.timing import Timing, added, time_beside
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = ["Part", "Row", "judged_matrix", "rule_for"]

Part: TypeAlias = Literal["swin", "plm", "fusion", "unimodal", "all"]
"""A graph that is lowered while all others stay in float32, or all of them at once."""

TIMED_CASES = 4
_TOLD: tuple[GraphName, ...] = ("swin", "plm")
"""What these answer is kept for judging all graphs at once."""
Progress: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One part of the model in one precision.

    Attributes:
        part: Which.
        precision: Which.
        judgement: What it answers, against float32; None if it is missing or can't be judged here.
        mark: What became of it; None likewise.
        weight_bytes: Constants and weights of its graphs; 0 if the bundle has none.
        bytes_share: Of float32's, 0 to 1.
        flops: Of its matrix products for one utterance (`bundle.products.TYPICAL`), by precision.
        timing: Measured times; None where nothing here computes it as it is meant.
        missing: Whether the bundle has no such graph.
        note: Why there is no judgement although there is a graph, or no timing.
    """

    part: Part
    precision: Precision
    judgement: Judgement | None = None
    mark: Mark | None = None
    weight_bytes: int = 0
    bytes_share: float = 0.0
    flops: Mapping[Precision, int] | None = None
    timing: Timing | None = None
    missing: bool = False
    note: str = ""


def rule_for(precision: Precision, max_f1_drop: float | None = None) -> EquivalenceRule:
    """What a precision must hold: its own rule, or only that F1 drops by no more than was said (0 to 1)."""
    if max_f1_drop is None:
        return EQUIVALENCE_RULES[precision]
    return EquivalenceRule(max_changed_share=1.0, max_f1_drop=max_f1_drop)


def judged_matrix(
    bundle: Bundle,
    judge: Judge,
    kind: EngineKind = "emulated",
    *,
    threads: int | None = None,
    cache: Path | None = None,
    timing_seconds: float | None = 5.0,
    max_f1_drop: float | None = None,
    progress: Progress = lambda _: nullcontext(lambda _: None),
) -> tuple[Row, ...]:
    """Judges one graph after the other in each precision, others in float32; then all of them at once.

    A bundle's graph that this engine does not take is told in its row and is no error.

    Args:
        bundle: The model.
        judge: Of this bundle.
        kind: What computes.
        threads: Of engines on the CPU; default as many as there are.
        cache: Where TensorRT's engines are kept; default in the bundle.
        timing_seconds: About how long to measure each speed: of `int8-fp32` in ONNX Runtime on the CPU, of all with
            TensorRT on its GPU. None measures nothing.
        max_f1_drop: See `rule_for`.
        progress: Called with what is judged; its context gives what is told of so many utterances done.

    Raises:
        BundleError: The bundle has no float32 graph to compare sizes with.
    """
    graphs = tuple(graph for graph in GRAPHS if graph in bundle.manifest.graphs)
    opened = _Opener(bundle, kind, threads or default_threads(), cache)
    shared = [p for p in PRECISIONS if all(p in bundle.manifest.graphs[graph] for graph in graphs)]
    told: dict[tuple[GraphName, Precision], Answers] = {}
    rows: list[Row] = []
    for graph in graphs:
        here = [_row(bundle, graph, (graph,), p, judge, opened, told, progress) for p in PRECISIONS]
        told = {place: answers for place, answers in told.items() if place[1] in shared}
        if timing_seconds is not None:
            here = [_timed(row, graph, judge, opened, timing_seconds) for row in here]
        rows += _marked(here, max_f1_drop)
    if len(graphs) > 1:
        together = [_row(bundle, "all", graphs, p, judge, opened, told, progress) for p in shared]
        rows += _marked([_added(row, rows) for row in together], max_f1_drop)
    return tuple(rows)


class _Opener:
    """Opens graphs of a bundle by a kind of engine; on the CPU only those that are asked for."""

    def __init__(self, bundle: Bundle, kind: EngineKind, threads: int, cache: Path | None) -> None:
        self.bundle, self.kind, self.threads, self.cache = bundle, kind, threads, cache

    def __call__(self, precisions: Mapping[GraphName, Precision], kind: EngineKind | None = None) -> Engines:
        kind = kind or self.kind
        files = {graph: self.bundle.graph(graph, precision) for graph, precision in precisions.items()}
        engines: dict[GraphName, Engine]
        if kind == "emulated":
            from fmmt_deploy.engines.emulated.load import engine_from_onnx as emulated

            engines = {graph: emulated(graph, file, self.threads) for graph, file in files.items()}
        elif kind == "ort":
            from fmmt_deploy.engines.ort.load import engine_from_onnx as opened

            engines = {graph: opened(graph, file, self.threads) for graph, file in files.items()}
        else:
            wanted = {**float32(self.bundle.manifest.graphs), **precisions}
            return open_engines(self.bundle, kind, wanted, self.threads, self.cache)
        return Engines(kind, engines, precisions)

    def timing_kind(self, precision: Precision) -> EngineKind | None:
        """What computes this precision as it is meant on this machine, and not just the same numbers."""
        if self.kind in ("trt", "trt-rtx"):
            return self.kind
        if self.kind in ("emulated", "ort", "torch") and precision == "int8-fp32":
            return "ort"
        return None


def _row(
    bundle: Bundle,
    part: Part,
    graphs: Sequence[GraphName],
    precision: Precision,
    judge: Judge,
    opened: _Opener,
    told: dict[tuple[GraphName, Precision], Answers],
    progress: Progress,
) -> Row:
    """A row without its mark; what `swin` and `plm` answer is kept in `told`, and not asked again."""
    if any(precision not in bundle.manifest.graphs[graph] for graph in graphs):
        return Row(part, precision, missing=True)
    files = [bundle.graph(graph, precision) for graph in graphs]
    size, whole = (sum(map(weight_bytes, of)) for of in (files, [bundle.graph(graph) for graph in graphs]))
    flops = flops_by_precision(product for file in files for product in products_of(file))
    row = Row(part, precision, weight_bytes=size, bytes_share=size / max(1, whole), flops=flops)
    try:
        asked = [graph for graph in graphs if (graph, precision) not in told]
        with opened(dict.fromkeys(asked, precision)) as engines, progress(f"{part} {precision}") as advance:
            for graph in asked:
                if graph in _TOLD:
                    told[graph, precision] = judge.answers(graph, engines[graph], engines.face_batch, advance)
            answering = {graph: told.get((graph, precision)) or engines[graph] for graph in graphs}
            steps = (lambda _: None) if graphs[-1] in _TOLD else advance
            judgement = judge.judge(answering, advance=steps)
    except FmmtError as error:
        return replace(row, note=error.what)
    if part == "swin" and "swin" not in judgement.outputs_sqnr_db:
        return replace(row, note="the data have no faces")
    return replace(row, judgement=judgement)


def _timed(row: Row, graph: GraphName, judge: Judge, opened: _Opener, seconds: float) -> Row:
    kind = opened.timing_kind(row.precision)
    if row.judgement is None or kind is None or row.precision == "fp32":
        return row
    try:
        with opened({graph: "fp32"}, kind) as baseline, opened({graph: row.precision}, kind) as engines:
            inputs = [_for_timing(asked, engines.face_batch) for asked in judge.inputs_of(graph, TIMED_CASES)]
            timing = time_beside(baseline[graph], engines[graph], inputs, kind, seconds=seconds)
            return replace(row, timing=timing)
    except FmmtError as error:
        return replace(row, note=f"its speed can't be measured: {error.what}")


def _for_timing(inputs: Mapping[str, Array], face_batch: int | None) -> Mapping[str, Array]:
    """Faces as many as go through `swin` together; everything else as it is."""
    return {n: a[: face_batch or 8 * HOST_FACE_BATCH] if n == "faces" else a for n, a in inputs.items()}


def _added(row: Row, rows: Sequence[Row]) -> Row:
    parts = [other.timing for other in rows if other.precision == row.precision and other.judgement is not None]
    timings = [timing for timing in parts if timing is not None]
    return replace(row, timing=added(timings)) if timings and len(timings) == len(parts) else row


def _marked(rows: Sequence[Row], max_f1_drop: float | None) -> Iterator[Row]:
    """The rows of one part, each with its mark."""
    measured = any(row.timing is not None for row in rows)
    contestants, float32_bytes = [], 0
    for row in rows:
        if row.precision == "fp32":
            float32_bytes = row.weight_bytes
        if row.judgement is not None:
            speed = None if row.timing is None else row.timing.ratio
            if row.precision == "fp32" and measured:
                speed = Ratio(1.0, 1.0, 1.0, 1, 1.0)  # what the others are measured against
            problems = row.judgement.problems(rule_for(row.precision, max_f1_drop))
            own = tuple(row.judgement.outputs_sqnr_db.values())
            contestants.append(Contestant(row.precision, problems, row.judgement.sqnr_db, row.weight_bytes, speed, own))
    marks = iter(marks_of(contestants, float32_bytes))
    return (row if row.judgement is None else replace(row, mark=next(marks)) for row in rows)
