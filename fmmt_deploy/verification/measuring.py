"""The steps that measure: ways of working end to end, whole data sets, and stages alone.

Stages alone are engine calls one after the other: inputs come from the host, outputs stay on the device, and only the
last call of a sample is waited for. What is real of their FLOPs is all of them: nothing is padded here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from fmmt_deploy.benchmark.contenders import contenders_of, published_contender, tokens_of_dialogues
from fmmt_deploy.benchmark.device import device_wait, seconds_of_call
from fmmt_deploy.benchmark.report import report
from fmmt_deploy.benchmark.run import Contender, measure
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.products import matmul_flops
from fmmt_deploy.engines.protocol import Array, Engines
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import FACE_PIXELS, DataSet, GraphName
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Result

__all__ = ["end_to_end", "stages", "warm_up"]

SHARE_OF_ROUNDS = 0.4
"""Contenders warm up, and rounds are begun, until this share of a step's time is over; the rest is for throughput."""

BATCH = 8
"""Utterances that are fused together where dialogues are answered one after the other, as `fmmt bench` does it."""

MOST_CALLS = 20
"""Calls that are on their way at the same time, each of which keeps its outputs."""


def warm_up(context: Context, name: str) -> Result:
    """Lets an engine meet the shapes to come, for half its time: what compiles does it now, by its own deadline."""
    engines, start, settings = context.engines(name), perf_counter(), context.settings
    half, answered, dialogues = context.seconds_left / 2, 0, settings.dialogues * len(settings.faces)
    with TemporaryDirectory(dir=settings.folder) as scratch:
        contenders = contenders_of(context.bundle(), context.choice(name), engines, BATCH, context.threads)
        for faces in settings.faces:
            dataset = meld_shaped(context.architecture, Path(scratch), settings.dialogues, faces)
            for contender, dialogue in product(contenders, dataset.dialogues):
                contender.clock.running = False
                if not answered or context.seconds_left > half:
                    contender.way.answer(dialogue)
                    answered += 1
    seconds = perf_counter() - start
    of_all = f"{answered} of {len(contenders) * dialogues} dialogues"
    return {"summary": f"{of_all} in {seconds:.1f} s", "seconds": seconds, "answered": answered}


def end_to_end(context: Context, faces: int) -> Result:
    """Latency in every way of working, beside the published loop; then throughput on many dialogues together."""
    settings, bundle = context.settings, context.bundle()
    names = tuple(dict.fromkeys((settings.published, *context.ready)))
    engines, dropped = context.opened(names)
    with TemporaryDirectory(dir=settings.folder) as scratch:
        dataset = meld_shaped(context.architecture, Path(scratch), settings.dialogues, faces)
        contenders = _contenders(context, engines)
        begun = context.seconds_left
        measured, _ = measure(
            contenders,
            dataset,
            settings.rounds,
            {},
            warm_up_rounds=1,
            enough=lambda: context.seconds_left < (1 - SHARE_OF_ROUNDS) * begun,
            dropped=lambda contender, error: dropped.update({f"{contender.engine} {contender.way.name}": error.what}),
        )
        rounds = len(measured[0].dialogues_ms) // len(dataset.dialogues) if measured else 0
        tokens = tokens_of_dialogues(bundle, dataset)
        made = report(measured, {}, dataset, tokens, bundle, rounds, context.threads) if measured else None
        many = meld_shaped(context.architecture, Path(scratch), settings.offline_dialogues, faces, seed=1)
        ours = {name: found for name, found in engines.items() if name in context.ready}
        offline = _offline(context, ours, many, dropped)
    rates = {name: round(rate, 1) for name, rate in offline.items()}
    return {
        "summary": ", ".join(f"{name} {rate}/s" for name, rate in rates.items()) or "nothing could be measured",
        "faces": faces,
        "report": None if made is None else made.to_json(),
        "offline_utterances_per_s": offline,
        "offline_utterances": len(many.order),
        "offline_batch": settings.offline_batch,
        "dropped": dropped,
    }


def _contenders(context: Context, engines: dict[str, Engines]) -> list[Contender]:
    """The published loop first, then everything else; no stage is timed, so nothing waits."""
    settings, bundle, contenders = context.settings, context.bundle(), list[Contender]()
    if settings.published in engines:
        choice = context.choice(settings.published)
        contenders.append(published_contender(bundle, choice, engines[settings.published]))
    for name in context.ready:
        if name in engines:
            contenders += contenders_of(bundle, context.choice(name), engines[name], BATCH, context.threads)
    for contender in contenders:
        contender.clock.running, contender.clock.wait = False, None
    return contenders


def _offline(
    context: Context, engines: dict[str, Engines], dataset: DataSet, dropped: dict[str, str]
) -> dict[str, float]:
    """Utterances a second of `fmmt run`'s way of working, the second time and after, while there is time."""
    found = {}
    for name, opened in engines.items():
        pipeline = Pipeline(
            context.bundle(), opened, batch_size=context.settings.offline_batch, threads=context.threads
        )
        try:
            first = _seconds(pipeline, dataset)
            if context.seconds_left < first:
                dropped[f"{name} offline"] = "there was no time left"
                continue
            seconds = [_seconds(pipeline, dataset)]
            while len(seconds) < 3 and context.seconds_left > 4 * seconds[0] * len(engines):
                seconds.append(_seconds(pipeline, dataset))
        except FmmtError as error:
            dropped[f"{name} offline"] = error.what
            continue
        found[name] = len(dataset.order) / median(seconds)
    return found


def _seconds(pipeline: Pipeline, dataset: DataSet) -> float:
    start = perf_counter()
    for _ in pipeline.run(dataset):
        pass
    return perf_counter() - start


def stages(context: Context) -> Result:
    """`plm` and `swin` alone, in batches: time, FLOP/s."""
    engines, dropped = context.opened(context.ready)
    wait, rng = device_wait(), np.random.default_rng(0)
    vocabulary = context.architecture.plm
    assert vocabulary is not None
    rows: list[dict[str, object]] = []
    for dialogues, tokens in context.settings.text_batches:
        ids = rng.integers(5, vocabulary.vocab_size, (dialogues, tokens))
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        sizes = {"dialogues": dialogues, "tokens": tokens}
        rows += _rows(context, engines, "plm", inputs, sizes, wait, dropped)
    for faces in context.settings.face_batches:
        pixels = rng.integers(0, 256, (faces, FACE_PIXELS, FACE_PIXELS, 3), np.uint8)
        rows += _rows(context, engines, "swin", {"faces": pixels}, {"faces": faces}, wait, dropped)
    return {"summary": f"{len(rows)} measured", "rows": rows, "dropped": dropped}


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
