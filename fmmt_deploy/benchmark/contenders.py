"""Opens what a benchmark compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fmmt_deploy.benchmark.run import Contender
from fmmt_deploy.benchmark.ways import Alone, Batched, Cached, Published, StageClock, Way
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind, Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet

__all__ = ["opened_contenders", "tokens_of_dialogues"]


@contextmanager
def opened_contenders(
    bundle: Bundle, kinds: Sequence[EngineKind], published: bool, batch_size: int, threads: int
) -> Iterator[list[Contender]]:
    """Every engine in every way of working, and the published loop on PyTorch first if it is asked for.

    Raises:
        UsageError: The published loop is asked for with a unimodal model.
        EnvironmentProblem: An engine's packages are missing.
    """
    unimodal = bundle.manifest.architecture.unimodal is not None
    if unimodal and published:
        raise UsageError("The published loop is that of the T+A+V model; this bundle is unimodal.")
    ways: tuple[type[Alone | Cached | Batched], ...] = (Alone, Batched) if unimodal else (Alone, Cached, Batched)
    with ExitStack() as stack:
        wanted: list[EngineKind] = [*kinds, "torch"] if published else [*kinds]
        opened = {
            kind: stack.enter_context(open_engines(bundle, kind, threads=threads)) for kind in dict.fromkeys(wanted)
        }
        contenders = [_published(bundle, opened["torch"])] if published else []
        for kind in dict.fromkeys(kinds):
            for way in ways:
                clock = StageClock()
                pipeline = Pipeline(bundle, opened[kind], batch_size=batch_size, threads=threads, clock=clock)
                made: Way = way(pipeline)
                contenders.append(Contender(kind, made, clock))
        yield contenders


def _published(bundle: Bundle, engines: Engines) -> Contender:
    clock = StageClock()
    return Contender(
        "torch", Published(Pipeline(bundle, engines, batch_size=1, threads=1, clock=clock), engines, clock), clock
    )


def tokens_of_dialogues(bundle: Bundle, dataset: DataSet) -> list[int]:
    """Tokens that are encoded for each dialogue, without padding; zeros for a model that reads none."""
    if bundle.manifest.architecture.plm is None:
        return [0] * len(dataset.dialogues)
    pipeline = Pipeline(bundle, Engines("none", {}))
    parts = (DataSet(d.id, (d,), tuple(u.id for u in d.utterances)) for d in dataset.dialogues)
    return [sum(len(window) for group in pipeline.plan(part) for window in group.windows) for part in parts]
