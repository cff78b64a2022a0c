"""Where the time from files to labels goes: a pass of its own, in which what computes is waited for after every stage.

Waiting takes away what a GPU gains by overlapping stages, so nothing else is timed in that pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from fmmt_deploy.benchmark.choices import Choice, rate_name
from fmmt_deploy.benchmark.device import device_wait
from fmmt_deploy.benchmark.published import PUBLISHED_TOKENS, Published
from fmmt_deploy.benchmark.queries import AllAtOnce, Answering, WithCache, WithoutCache, queries_of, queries_of_dialogue
from fmmt_deploy.benchmark.rates import RateRow
from fmmt_deploy.benchmark.sides import Opened, WayName
from fmmt_deploy.benchmark.workload import tokens_of_dialogues
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.products import matmul_flops
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.pipeline.run import Pipeline, StageName
from fmmt_deploy.types import DataSet, Dialogue

__all__ = ["StageClock", "StageRow", "Staged", "stage_rows", "staged_pass", "staged_ways"]

STAGES: tuple[StageName, ...] = ("prepare", "swin", "plm", "fusion")


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of one way: its time and matrix-product work an utterance, and its share of the machine's rate."""

    engine: str
    way: str
    stage: str
    ms: float
    gflop: float | None
    share_of_rate: float | None


@dataclass
class StageClock:
    """Adds up the milliseconds of each stage; called, it encloses a stage's work.

    Attributes:
        stages_ms: What was added up.
        wait: Waits until all that was begun is done; None where it always is. An engine on a GPU returns before it has
            computed.
    """

    stages_ms: dict[StageName, float] = field(default_factory=dict)
    wait: Callable[[], None] | None = None

    @contextmanager
    def __call__(self, stage: StageName) -> Iterator[None]:
        """Encloses a stage's work."""
        start = perf_counter()
        yield
        if self.wait is not None and stage != "prepare":  # which is the host's work, perhaps in a thread of its own
            self.wait()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + 1000 * (perf_counter() - start)


@dataclass(frozen=True)
class Staged:
    """One way of working with one engine, whose stages are timed.

    Attributes:
        choice: The engine.
        way: How.
        answering: Answers.
        clock: Its stages'.
    """

    choice: Choice
    way: WayName
    answering: Answering
    clock: StageClock

    def answer(self, dialogue: Dialogue) -> None:
        """Answers all utterances of a dialogue."""
        queries = queries_of_dialogue(dialogue)
        for asked in [queries] if self.way == "batched" else [(query,) for query in queries]:
            self.answering.answer(asked)


def staged_ways(opened: Opened) -> list[Staged]:
    """The published loop if it is measured, and every engine in every way of working."""
    staged = [] if opened.published is None else [_staged(opened, opened.published, "published")]
    ways: tuple[WayName, ...] = ("alone", "cached", "batched") if opened.reads_text else ("alone", "batched")
    return [*staged, *(_staged(opened, choice, way) for choice in opened.choices for way in ways)]


def _staged(opened: Opened, choice: Choice, way: WayName) -> Staged:
    clock = StageClock(wait=None if choice.device == "cpu" else device_wait())
    batch_size, threads = (1, 1) if way == "published" else (opened.batch_size, opened.threads)
    engines = opened.engines[choice.name]
    pipeline = Pipeline(opened.bundle, engines, batch_size=batch_size, threads=threads, clock=clock)
    if way == "published":
        return Staged(choice, way, Published(pipeline, clock), clock)
    kinds: Mapping[WayName, Callable[[Pipeline], Answering]] = {
        "alone": WithoutCache,
        "cached": WithCache,
        "batched": AllAtOnce,
    }
    return Staged(choice, way, kinds[way](pipeline), clock)


def staged_pass(staged: Staged, dataset: DataSet, look: Callable[[], object] = lambda: None) -> None:
    """Answers every dialogue once, and leaves on its clock what the stages of that took.

    Args:
        staged: Who.
        dataset: The dialogues.
        look: Called after each.
    """
    staged.clock.stages_ms.clear()
    for dialogue in dataset.dialogues:
        staged.answer(dialogue)
        look()


def stage_rows(staged: Staged, dataset: DataSet, bundle: Bundle, rates: Sequence[RateRow]) -> Iterator[StageRow]:
    """Where the time of one pass went.

    Args:
        staged: Who has made it.
        dataset: What was answered.
        bundle: With what; its graphs tell the work.
        rates: What the machine can do.
    """
    work, utterances = _work(dataset, bundle, staged.way), len(queries_of(dataset))
    by_name = {row.name: row.gflops for row in rates}
    for stage in STAGES:
        if stage not in staged.clock.stages_ms:
            continue
        ms = staged.clock.stages_ms[stage] / utterances
        gflop = work[stage] / utterances / 1e9 if stage in work else None
        rate = by_name.get(rate_name(staged.choice.device, _precision(staged.choice, stage)))
        share = None if gflop is None or rate is None else gflop / ms * 1000 / rate
        yield StageRow(staged.choice.name, staged.way, stage, ms, gflop, share)


def _precision(choice: Choice, stage: StageName) -> Precision:
    """The stage `fusion` is the last graph, whatever its name."""
    precisions = {str(graph): precision for graph, precision in choice.precisions.items()}
    return precisions.get(stage) or precisions.get("unimodal", "fp32")


def _work(dataset: DataSet, bundle: Bundle, way: WayName) -> Mapping[StageName, int]:
    """Matrix-product FLOPs of each stage over the whole data set; padding that a way adds is part of its work."""
    architecture = bundle.manifest.architecture
    utterances = [len(dialogue.utterances) for dialogue in dataset.dialogues]
    faces = sum(u.vision_length for dialogue in dataset.dialogues for u in dialogue.utterances)
    last = graphs_of(architecture)[-1]
    one = matmul_flops(bundle.graph(last), {"dialogues": 1, "tokens": 2, "utterances": 1, "faces": 1})
    work: dict[StageName, int] = {"fusion": one * sum(utterances)}
    if architecture.plm is not None:
        work["plm"] = 0
        for own, count in zip(tokens_of_dialogues(bundle, dataset), utterances, strict=True):
            length = PUBLISHED_TOKENS if way == "published" else own
            times = count if way in ("published", "alone") else 1
            work["plm"] += times * matmul_flops(bundle.graph("plm"), {"dialogues": 1, "tokens": length})
        work["swin"] = faces * matmul_flops(bundle.graph("swin"), {"faces": 1})
    return work
