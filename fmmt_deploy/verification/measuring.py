"""The steps that measure: from files to labels beside the published loop, as `fmmt bench` does it, and stages alone.

Stages alone are engine calls one after the other: inputs come from the host, outputs stay on the device, and only the
last call of a sample is waited for. What is real of their FLOPs is all of them: nothing is padded here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from fmmt_deploy.benchmark.bench import witnesses_for
from fmmt_deploy.benchmark.device import device_wait, seconds_of_call
from fmmt_deploy.benchmark.document import FilesTable
from fmmt_deploy.benchmark.files import Figure, offline_figures, single_stream_figures
from fmmt_deploy.benchmark.queries import Query, queries_of
from fmmt_deploy.benchmark.scenarios import Offline, SingleStream
from fmmt_deploy.benchmark.sides import Opened, Side, offline_sides, single_stream_sides
from fmmt_deploy.benchmark.statistics import format_ms
from fmmt_deploy.benchmark.turns import Effort, Haste
from fmmt_deploy.benchmark.validity import Validity, together, watched
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.products import matmul_flops
from fmmt_deploy.engines.protocol import Array, Engines
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.types import FACE_PIXELS, GraphName
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Result
from fmmt_deploy.verification.settings import SCENARIOS, Scenario

__all__ = ["files_to_labels", "stages", "warm_up"]

FIGURES: Mapping[Scenario, Callable[[Sequence[Side], Sequence[Query], Effort], tuple[Figure, ...]]] = {
    "single-stream": single_stream_figures,
    "offline": offline_figures,
}

SHARE_OF_TIME = 0.9
"""Of a step's time: then all turns should be over, and the rest is for one that takes longer than others."""

MOST_CALLS = 20
"""Calls that are on their way at the same time, each of which keeps its outputs."""


def warm_up(context: Context, name: str) -> Result:
    """Lets an engine meet the shapes to come, for half its time: what compiles does it now, by its own deadline."""
    context.engines(name)
    opened, half, start = _opened(context, (name,), {}, published=False), context.seconds_left / 2, perf_counter()
    answered = 0
    with TemporaryDirectory(dir=context.settings.folder) as scratch:
        asked = [
            (side, queries)
            for faces, scenario in product(context.settings.faces, SCENARIOS)
            for side, queries in product(_sides(opened, scenario), _asked(context, Path(scratch), faces, scenario))
        ]
        for side, queries in asked:
            if not answered or context.seconds_left > half:
                side.answering.answer(queries)
                answered += 1
    seconds = perf_counter() - start
    of_all = f"{answered} of {len(asked)} questions"
    return {"summary": f"{of_all} in {seconds:.1f} s", "seconds": seconds, "answered": answered}


def files_to_labels(context: Context, faces: int, scenario: Scenario) -> Result:
    """Every engine in turns with the published loop.

    One that fails is dropped and named, and so is one for which there is no time; see `Haste`.
    """
    settings, dropped = context.settings, dict[str, str]()
    deadline = perf_counter() + SHARE_OF_TIME * context.seconds_left
    opened = _opened(context, context.ready, dropped, published=True)
    sides, figures = _sides(opened, scenario), tuple[Figure, ...]()
    with TemporaryDirectory(dir=settings.folder) as scratch:
        queries = [query for asked in _asked(context, Path(scratch), faces, scenario) for query in asked]
        with watched(witnesses_for([side.choice for side in sides])) as work:
            if sides:
                engines = {side.name: side.choice.name for side in sides}
                effort = Effort(
                    settings.rounds,
                    asks=lambda name: context.asks(engines[name]),
                    advance=work.look,
                    haste=Haste(deadline, dropped.__setitem__),
                )
                figures = FIGURES[scenario](sides, queries, effort)
    baseline = next((side.name for side in sides[:1] if side.name not in dropped), "")
    return {
        "summary": _summary(figures, work.validity),
        "faces": faces,
        "utterances": len(queries),
        "batch_size": settings.offline_batch,
        **FilesTable(scenario, figures, baseline, work.validity).to_json(),
        "dropped": dropped,
    }


def _opened(context: Context, names: Sequence[str], dropped: dict[str, str], *, published: bool) -> Opened:
    """Engines that open; of the others it is kept why they don't."""
    loop = context.choice(context.settings.published)
    wanted = (loop.name, *names) if published else names
    engines, refused = context.opened(tuple(dict.fromkeys(wanted)))
    dropped.update(refused)
    choices = tuple(context.choice(name) for name in names if name in engines)
    baseline = loop if published and loop.name in engines else None
    return Opened(context.bundle(), choices, engines, baseline, context.settings.offline_batch, context.threads)


def _sides(opened: Opened, scenario: Scenario) -> list[Side]:
    """The published loop first; at once, engines work as `fmmt run` does."""
    if scenario == "single-stream":
        return single_stream_sides(opened)
    return [side for side in offline_sides(opened) if side.way != "together"]


def _asked(context: Context, folder: Path, faces: int, scenario: Scenario) -> list[tuple[Query, ...]]:
    """What is asked together: single utterances, or those of many dialogues."""
    settings, alone = context.settings, scenario == "single-stream"
    dialogues = settings.dialogues if alone else settings.offline_dialogues
    queries = queries_of(meld_shaped(context.architecture, folder, dialogues, faces, seed=0 if alone else 1))
    return [(query,) for query in queries] if alone else [queries]


def _summary(figures: Sequence[Figure], table: Validity) -> str:
    """How many figures are valid, and the most telling of every engine."""
    own = [(figure.validity, Validity(figure.ratio.reasons if figure.ratio else ())) for figure in figures]
    valid = sum(together((table, *parts)).valid for parts in own)
    told = [f"{figure.engine} {_told(figure)}" for figure in figures if figure.way in ("alone", "batched")]
    return "; ".join([f"{valid} of {len(figures)} figures VALID", *told]) if figures else "nothing could be measured"


def _told(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f", {figure.ratio.median:.1f}×"
    if isinstance(figure.result, SingleStream):
        return f"{format_ms(figure.result.latency.p50_ms)}{ratio}"
    assert isinstance(figure.result, Offline)
    return f"{median(figure.result.rates):.1f}/s{ratio}"


def stages(context: Context) -> Result:
    """`plm` and `swin` alone, in batches: time, FLOP/s; and what disturbed that."""
    engines, dropped = context.opened(context.ready)
    wait, rng = device_wait(), np.random.default_rng(0)
    vocabulary = context.architecture.plm
    assert vocabulary is not None
    rows: list[dict[str, object]] = []
    with watched(witnesses_for([context.choice(name) for name in engines])) as work:
        for dialogues, tokens in context.settings.text_batches:
            ids = rng.integers(5, vocabulary.vocab_size, (dialogues, tokens))
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            sizes = {"dialogues": dialogues, "tokens": tokens}
            rows += _rows(context, engines, "plm", inputs, sizes, wait, dropped)
            work.look()
        for faces in context.settings.face_batches:
            pixels = rng.integers(0, 256, (faces, FACE_PIXELS, FACE_PIXELS, 3), np.uint8)
            rows += _rows(context, engines, "swin", {"faces": pixels}, {"faces": faces}, wait, dropped)
            work.look()
    summary = f"{len(rows)} measured, {work.validity.word}"
    return {"summary": summary, "validity": work.validity.to_json(), "rows": rows, "dropped": dropped}


def _rows(
    context: Context,
    engines: dict[str, Engines],
    graph: GraphName,
    inputs: dict[str, Array],
    sizes: dict[str, int],
    wait: Callable[[], None],
    dropped: dict[str, str],
) -> list[dict[str, object]]:
    flops = matmul_flops(context.bundle().graph(graph), sizes)
    rows: list[dict[str, object]] = []
    for name, opened in engines.items():
        if context.seconds_left < 0:
            dropped[f"{name} {graph} {sizes}"] = "there was no time left"
            continue
        context.asks(name)
        try:
            seconds = _of_call(opened, graph, inputs, wait)
        except FmmtError as error:
            dropped[f"{name} {graph} {sizes}"] = error.what
            continue
        precision = context.choice(name).precisions[graph]
        rows.append(
            {
                "engine": name,
                "graph": graph,
                "precision": precision,
                **sizes,
                "ms": 1000 * seconds,
                "tflops": flops / seconds / 1e12,
            }
        )
    return rows


def _of_call(engines: Engines, graph: GraphName, inputs: dict[str, Array], wait: Callable[[], None]) -> float:
    last: dict[str, object] = {}

    def call() -> None:
        last["outputs"] = engines[graph].start(inputs)

    def waited() -> None:
        wait()
        last.clear()

    return seconds_of_call(call, waited, most=MOST_CALLS)
