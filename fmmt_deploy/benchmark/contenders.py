"""Opens what a benchmark compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fmmt_deploy.benchmark.choices import Choice, published_choice
from fmmt_deploy.benchmark.device import device_wait
from fmmt_deploy.benchmark.run import Contender
from fmmt_deploy.benchmark.ways import Alone, Batched, Cached, Published, StageClock, Way
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet

__all__ = ["contenders_of", "opened_contenders", "published_contender", "tokens_of_dialogues"]


@contextmanager
def opened_contenders(
    bundle: Bundle, choices: Sequence[Choice], published: bool, batch_size: int, threads: int, cache: Path | None = None
) -> Iterator[list[Contender]]:
    """Every engine in every way of working, and the published loop on PyTorch first if it is asked for.

    Raises:
        UsageError: The published loop is asked for with a unimodal model.
        EnvironmentProblem: An engine's packages, or its GPU, are missing.
    """
    architecture = bundle.manifest.architecture
    if architecture.unimodal is not None and published:
        raise UsageError("The published loop is that of the T+A+V model; this bundle is unimodal.")
    by_name = {choice.name: choice for choice in choices}
    baseline = published_choice(choices, architecture)
    with ExitStack() as stack:
        wanted = {**by_name, baseline.name: baseline} if published else by_name
        opened = {
            name: stack.enter_context(open_engines(bundle, choice.kind, choice.precisions, threads, cache))
            for name, choice in wanted.items()
        }
        contenders = [published_contender(bundle, baseline, opened[baseline.name])] if published else []
        for name, choice in by_name.items():
            contenders += contenders_of(bundle, choice, opened[name], batch_size, threads)
        yield contenders


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
