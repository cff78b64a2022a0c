"""The calls of engines alone, at two boundaries: `device`, inputs and outputs where it computes; `engine`, with copies.

What is called is what answering the dialogues calls, recorded beforehand: without the dialogue cache one utterance at a
time, with it in batches. An engine that computes on the host has no `device` boundary: nothing is copied there, and the
same time under two names would be taken for two measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import chain
from statistics import mean, median
from typing import Literal, TypeAlias

import numpy as np

from fmmt_deploy.benchmark.blocks import Block, settling_reasons
from fmmt_deploy.benchmark.calls import Call, Replay, moved_bytes, recorded, size_bytes
from fmmt_deploy.benchmark.choices import Choice, rate_name
from fmmt_deploy.benchmark.device import device_wait
from fmmt_deploy.benchmark.queries import AllAtOnce, WithoutCache, queries_of_dialogue
from fmmt_deploy.benchmark.sides import Opened, WayName
from fmmt_deploy.benchmark.statistics import median_interval
from fmmt_deploy.benchmark.turns import Effort, turns
from fmmt_deploy.benchmark.validity import Validity, together
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.products import matmul_flops, read_bytes
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, Dialogue, GraphName

__all__ = ["END_TO_END", "Boundary", "BoundaryRow", "Recorded", "boundary_rows", "recorded_dialogues"]

Boundary: TypeAlias = Literal["device", "engine"]

MOST_DIALOGUES, MOST_BYTES = 4, 512 * 2**20
"""Of larger workloads so many dialogues are measured here, evenly spaced, and fewer if their inputs take more."""

END_TO_END = "all"

_WAYS: tuple[tuple[WayName, bool], ...] = (("alone", False), ("batched", True))
"""Whose calls are recorded, and whether a dialogue is then encoded once."""


@dataclass(frozen=True)
class BoundaryRow:
    """One graph of one engine, or all of them one after the other.

    Attributes:
        engine: As `--engine` names it.
        way: Which calls: `alone` or `batched`.
        cache: Whether a dialogue is encoded once; None for a model that reads no text.
        part: The graph, or `all`.
        ms: Milliseconds an utterance, the median over turns.
        low_ms: The lowest turn.
        high_ms: The highest.
        interval_ms: Of the median.
        samples: Turns.
        gflop: Of matrix products, an utterance; None for all together.
        moved_bytes: What it must read at least, an utterance: weights once a call, and inputs; None for all together.
        precision: Of the graph; None for all together.
        rate_gflops: The machine's matrix rate in GFLOP/s that it is held against; None where there is none.
        validity: Whether to believe it.
    """

    engine: str
    way: str
    cache: bool | None
    part: str
    ms: float
    low_ms: float
    high_ms: float
    interval_ms: tuple[float, float]
    samples: int
    gflop: float | None
    moved_bytes: float | None
    precision: Precision | None
    rate_gflops: float | None
    validity: Validity

    @property
    def share_of_rate(self) -> float | None:
        """Of the machine's matrix rate."""
        return (
            None if self.gflop is None or self.rate_gflops is None else self.gflop / self.ms * 1000 / self.rate_gflops
        )

    def to_json(self, table: Validity) -> dict[str, object]:
        """Plain values, invalid where the whole table is."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "validity"}
        judged = together((self.validity, table))
        reasons = list(judged.reasons)
        return {**plain, "share_of_rate": self.share_of_rate, "valid": judged.valid, "reasons": reasons}


@dataclass(frozen=True)
class Recorded:
    """What answering some dialogues calls.

    Attributes:
        choice: By which engine.
        way: In which way.
        cache: See `BoundaryRow`.
        engines: Opened.
        dialogues: For each, its utterances and calls.
    """

    choice: Choice
    way: str
    cache: bool | None
    engines: Engines
    dialogues: tuple[tuple[int, tuple[Call, ...]], ...] = field(repr=False)


def recorded_dialogues(opened: Opened, dataset: DataSet) -> Iterator[Recorded]:
    """Records what every engine is called with, in both ways, for as many dialogues as fit."""
    graphs = graphs_of(opened.bundle.manifest.architecture)
    for choice in opened.choices:
        engines = opened.engines[choice.name]
        for way, cache in _WAYS:
            kept, total = list[tuple[int, tuple[Call, ...]]](), 0
            for dialogue in _evenly_spaced(dataset.dialogues):
                calls = recorded(engines, graphs, partial(_answered, opened, way, dialogue))
                total += size_bytes(calls)
                if kept and total > MOST_BYTES:
                    break
                kept.append((len(dialogue.utterances), calls))
            yield Recorded(choice, way, cache if opened.reads_text else None, engines, tuple(kept))


def _evenly_spaced(dialogues: Sequence[Dialogue]) -> Sequence[Dialogue]:
    step = max(1, len(dialogues) // MOST_DIALOGUES)
    return dialogues[step // 2 :: step][:MOST_DIALOGUES]


def _answered(opened: Opened, way: WayName, dialogue: Dialogue, engines: Engines) -> None:
    batch_size = opened.batch_size if way == "batched" else 1
    pipeline = Pipeline(opened.bundle, engines, batch_size=batch_size, threads=opened.threads)
    if way == "batched":
        AllAtOnce(pipeline).answer(queries_of_dialogue(dialogue))
        return
    for query in queries_of_dialogue(dialogue):
        WithoutCache(pipeline).answer((query,))


def boundary_rows(
    opened: Opened,
    found: Sequence[Recorded],
    boundary: Boundary,
    effort: Effort,
    rates: Callable[[], Mapping[str, float]] = dict,
) -> tuple[tuple[BoundaryRow, ...], tuple[Block, ...]]:
    """Makes the calls again, all engines in turns; in every turn those of all dialogues.

    Args:
        opened: The engines.
        found: Of those that have this boundary.
        boundary: Which.
        effort: How long.
        rates: The machine's matrix rates in GFLOP/s, asked for when all is measured; see `rate_name`.

    Returns:
        The rows, and the turns.
    """
    graphs = graphs_of(opened.bundle.manifest.architecture)
    timers = {_name(one): _Timer(one, graphs, boundary) for one in found}
    if not timers:
        return (), ()
    blocks = turns({name: timer.times_ms for name, timer in timers.items()}, effort)
    known = rates()
    rows = chain.from_iterable(_rows(opened, one, blocks, known) for one in found)
    return tuple(rows), blocks


class _Timer:
    """Times the calls of all dialogues, graph by graph and all together."""

    def __init__(self, found: Recorded, graphs: Sequence[GraphName], boundary: Boundary) -> None:
        on_host = found.choice.device == "cpu"
        wait = (lambda: None) if on_host else device_wait()
        self._graphs, self._on_host = graphs, on_host
        self._utterances = sum(count for count, _ in found.dialogues)
        self._replays = [
            Replay(found.engines, calls, wait, on_device=boundary == "device") for _, calls in found.dialogues
        ]

    def times_ms(self, _: int) -> list[float]:
        """Milliseconds an utterance, of each graph and at last of all; on the host nothing overlaps: the sum is all."""
        times = [sum(replay.graph_ms(graph) for replay in self._replays) for graph in self._graphs]
        times.append(sum(times) if self._on_host else sum(replay.all_ms() for replay in self._replays))
        return [time / self._utterances for time in times]


def _name(found: Recorded) -> str:
    return f"{found.choice.name} {found.way}"


def _rows(
    opened: Opened, found: Recorded, blocks: Sequence[Block], rates: Mapping[str, float]
) -> Iterator[BoundaryRow]:
    own = [block for block in blocks if block.contender == _name(found)]
    validity = Validity(settling_reasons(blocks, _name(found)))
    for place, graph in enumerate((*graphs_of(opened.bundle.manifest.architecture), None)):
        samples = [mean(window[place] for window in block.windows_ms) for block in own]
        precision = None if graph is None else found.choice.precisions[graph]
        yield BoundaryRow(
            engine=found.choice.name,
            way=found.way,
            cache=found.cache,
            part=graph or END_TO_END,
            ms=median(samples),
            low_ms=min(samples),
            high_ms=max(samples),
            interval_ms=median_interval(np.asarray(samples), 0.95)[:2],
            samples=len(samples),
            gflop=None if graph is None else _gflop(opened, found, graph),
            moved_bytes=None if graph is None else _moved_bytes(opened, found, graph),
            precision=precision,
            rate_gflops=None if precision is None else rates.get(rate_name(found.choice.device, precision)),
            validity=validity,
        )


def _gflop(opened: Opened, found: Recorded, graph: GraphName) -> float:
    """Of matrix products an utterance, as called: padding is part of the work."""
    counted = Counter(_sizes(call) for _, calls in found.dialogues for call in calls if call.graph == graph)
    path, utterances = opened.bundle.graph(graph), sum(count for count, _ in found.dialogues)
    return (
        sum(times * rows * matmul_flops(path, dict(one)) for (one, rows), times in counted.items()) / utterances / 1e9
    )


def _moved_bytes(opened: Opened, found: Recorded, graph: GraphName) -> float:
    calls = [call for _, calls in found.dialogues for call in calls if call.graph == graph]
    weights = read_bytes(opened.bundle.graph(graph, found.choice.precisions[graph]))
    return moved_bytes(calls, weights) / sum(count for count, _ in found.dialogues)


def _sizes(call: Call) -> tuple[tuple[tuple[str, int], ...], int]:
    """What one row of a call is, and how many rows it has; all of a row's work is that of every other."""
    if call.graph == "swin":
        return (("faces", 1),), len(call.arrays["faces"])
    if call.graph == "plm":
        dialogues, tokens = call.arrays["input_ids"].shape
        return (("dialogues", 1), ("tokens", tokens)), dialogues
    one = (("dialogues", 1), ("tokens", 2), ("utterances", 1), ("faces", 1))  # only utterances are multiplied there
    return one, len(call.arrays["vision"])
