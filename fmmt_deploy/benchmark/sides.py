"""What is compared from files to labels: every engine without and with the dialogue cache, and the published loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fmmt_deploy.benchmark.choices import Choice, published_choice
from fmmt_deploy.benchmark.published import Published
from fmmt_deploy.benchmark.queries import AllAtOnce, Answering, WithCache, WithoutCache
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.errors import UsageError
from fmmt_deploy.pipeline.run import Pipeline

__all__ = [
    "DESCRIPTIONS",
    "Opened",
    "Side",
    "WayName",
    "offline_sides",
    "opened",
    "server_sides",
    "single_stream_sides",
]

WayName: TypeAlias = Literal["published", "alone", "cached", "together", "batched"]

DESCRIPTIONS: Mapping[str, str] = {
    "published": "the published loop",
    "alone": "each utterance alone, no cache",
    "cached": "dialogue cached, batch 1",
    "together": "no cache, batched",
    "batched": "dialogue cached, batched",
}
"""Of every `WayName`."""


@dataclass(frozen=True)
class Opened:
    """Engines that are measured.

    Attributes:
        bundle: Whose.
        choices: Which, in the order they were asked for.
        engines: By the choice's name, opened.
        published: What the published loop runs on; None where it is not measured.
        batch_size: Utterances that are fused together, where a way does so.
        threads: That decode faces.
    """

    bundle: Bundle
    choices: tuple[Choice, ...]
    engines: Mapping[str, Engines]
    published: Choice | None
    batch_size: int
    threads: int

    def pipeline(self, choice: Choice, batch_size: int) -> Pipeline:
        """Batched inference with an engine."""
        return Pipeline(self.bundle, self.engines[choice.name], batch_size=batch_size, threads=self.threads)

    @property
    def reads_text(self) -> bool:
        """Whether there is a dialogue to be encoded, and so something to cache."""
        return self.bundle.manifest.architecture.plm is not None


@dataclass(frozen=True)
class Side:
    """One way of working with one engine.

    Attributes:
        choice: The engine.
        way: How.
        cache: Whether a dialogue is encoded once; None for a model that reads no text.
        answering: Answers.
    """

    choice: Choice
    way: WayName
    cache: bool | None
    answering: Answering

    @property
    def name(self) -> str:
        """Of its own among those that are compared."""
        return f"{self.choice.name} {self.way}"


@contextmanager
def opened(
    bundle: Bundle, choices: Sequence[Choice], published: bool, batch_size: int, threads: int, cache: Path | None = None
) -> Iterator[Opened]:
    """Opens engines, and the published loop's if it is asked for.

    Raises:
        UsageError: The published loop is asked for with a unimodal model.
        EnvironmentProblem: An engine's packages, or its GPU, are missing.
    """
    architecture = bundle.manifest.architecture
    if architecture.unimodal is not None and published:
        raise UsageError("The published loop is that of the T+A+V model; this bundle is unimodal.")
    baseline = published_choice(choices, architecture) if published else None
    by_name = {choice.name: choice for choice in choices}
    wanted = by_name if baseline is None else {**by_name, baseline.name: baseline}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(open_engines(bundle, c.kind, c.precisions, threads, cache))
            for name, c in wanted.items()
        }
        yield Opened(
            bundle, tuple({choice.name: choice for choice in choices}.values()), engines, baseline, batch_size, threads
        )


def single_stream_sides(found: Opened) -> list[Side]:
    """One utterance at a time; the first of them is the baseline."""
    sides = _published(found)
    for choice in found.choices:
        without = WithoutCache(found.pipeline(choice, 1))
        sides.append(Side(choice, "alone", False if found.reads_text else None, without))
        if found.reads_text:
            sides.append(Side(choice, "cached", True, WithCache(found.pipeline(choice, 1))))
    return sides


def offline_sides(found: Opened) -> list[Side]:
    """All utterances at once; the published loop answers them one after the other, as it does."""
    sides = _published(found)
    for choice in found.choices:
        pipeline = found.pipeline(choice, found.batch_size)
        if found.reads_text:
            sides.append(Side(choice, "together", False, WithoutCache(pipeline)))
        sides.append(Side(choice, "batched", True if found.reads_text else None, AllAtOnce(pipeline)))
    return sides


def server_sides(found: Opened) -> list[Side]:
    """What answers in batches as queries arrive; the published loop has no such way."""
    sides = []
    for choice in found.choices:
        pipeline = found.pipeline(choice, found.batch_size)
        sides.append(Side(choice, "together", False if found.reads_text else None, WithoutCache(pipeline)))
        if found.reads_text:
            sides.append(Side(choice, "batched", True, WithCache(pipeline)))
    return sides


def _published(found: Opened) -> list[Side]:
    if found.published is None:
        return []
    pipeline = Pipeline(found.bundle, found.engines[found.published.name], batch_size=1, threads=1)
    return [Side(found.published, "published", False, Published(pipeline))]
