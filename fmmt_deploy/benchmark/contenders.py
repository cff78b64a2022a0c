"""Every way of working with engines that are open."""

from __future__ import annotations

from collections.abc import Callable

from fmmt_deploy.benchmark.choices import Choice
from fmmt_deploy.benchmark.device import device_wait
from fmmt_deploy.benchmark.run import Contender
from fmmt_deploy.benchmark.ways import Alone, Batched, Cached, Published, StageClock, Way
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet

__all__ = ["contenders_of", "published_contender", "tokens_of_dialogues"]


def contenders_of(bundle: Bundle, choice: Choice, engines: Engines, batch_size: int, threads: int) -> list[Contender]:
    """Engines in every way of working."""
    unimodal = bundle.manifest.architecture.unimodal is not None
    ways: tuple[type[Alone | Cached | Batched], ...] = (Alone, Batched) if unimodal else (Alone, Cached, Batched)
    made = []
    for way in ways:
        clock = StageClock(wait=_wait(choice))
        pipeline = Pipeline(bundle, engines, batch_size=batch_size, threads=threads, clock=clock)
        working: Way = way(pipeline)
        made.append(Contender(choice.name, working, clock, choice.device, choice.precisions))
    return made


def published_contender(bundle: Bundle, choice: Choice, engines: Engines) -> Contender:
    """The published loop."""
    clock = StageClock(wait=_wait(choice))
    way = Published(Pipeline(bundle, engines, batch_size=1, threads=1, clock=clock), engines, clock)
    return Contender(choice.name, way, clock, choice.device, choice.precisions)


def tokens_of_dialogues(bundle: Bundle, dataset: DataSet) -> list[int]:
    """Tokens that are encoded for each dialogue, without padding; zeros for a model that reads none."""
    if bundle.manifest.architecture.plm is None:
        return [0] * len(dataset.dialogues)
    pipeline = Pipeline(bundle, Engines("none", {}))
    parts = (DataSet(d.id, (d,), tuple(u.id for u in d.utterances)) for d in dataset.dialogues)
    return [sum(len(window) for group in pipeline.plan(part) for window in group.windows) for part in parts]


def _wait(choice: Choice) -> Callable[[], None] | None:
    return None if choice.device == "cpu" else device_wait()
