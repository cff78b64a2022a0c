"""The ways of working that are compared: the published one, and ours with and without what it saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, Protocol

import numpy as np

from fmmt_deploy.engines.protocol import Engines, Value
from fmmt_deploy.pipeline.inputs import fusion_inputs
from fmmt_deploy.pipeline.noise import no_noise
from fmmt_deploy.pipeline.run import Pipeline, StageName
from fmmt_deploy.types import DataSet, Dialogue

__all__ = ["Alone", "Batched", "Cached", "Published", "StageClock", "Way", "WayName"]

WayName = Literal["published", "alone", "cached", "together", "batched"]
PUBLISHED_TOKENS = 512


@dataclass
class StageClock:
    """Adds up the milliseconds of each stage.

    An engine on a GPU returns before it has computed. Whoever times its stages must wait after each, and so takes away
    what it gains by overlapping them: so its stages are timed in turns of their own, while `running`, and the whole
    in others, while not.

    Attributes:
        stages_ms: What was added up.
        wait: Waits until all that was begun is done; None where it always is.
        running: Whether to time stages, and to wait for them.
    """

    stages_ms: dict[StageName, float] = field(default_factory=dict)
    wait: Callable[[], None] | None = None
    running: bool = True

    def __call__(self, stage: StageName) -> AbstractContextManager[object]:
        """Encloses a stage's work."""
        return self._timed(stage) if self.running else nullcontext()

    @contextmanager
    def _timed(self, stage: StageName) -> Iterator[None]:
        start = perf_counter()
        yield
        if self.wait is not None and stage != "prepare":  # which is the host's work, perhaps in a thread of its own
            self.wait()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + 1000 * (perf_counter() - start)


class Way(Protocol):
    """Answers all utterances of a dialogue."""

    name: WayName

    def answer(self, dialogue: Dialogue) -> list[float]:
        """Milliseconds until each answer was there, from when it could begin; their sum is the dialogue's time."""
        ...


class Alone:
    """Every utterance by itself: its dialogue is encoded again for it, without padding; batch 1."""

    name: WayName = "alone"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def answer(self, dialogue: Dialogue) -> list[float]:
        """See `Way.answer`."""
        return [_timed(self._pipeline, _dataset(dialogue, (u.id,))) for u in dialogue.utterances]


class Cached:
    """Every utterance by itself, but its dialogue is encoded once; the first answer waits for that."""

    name: WayName = "cached"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def answer(self, dialogue: Dialogue) -> list[float]:
        """See `Way.answer`."""
        if "plm" not in self._pipeline.engines:
            return Alone(self._pipeline).answer(dialogue)
        times = []
        start = perf_counter()
        for group in self._pipeline.plan(_dataset(dialogue)):
            states = self._pipeline.encode(group)
            for member in group.members:
                self._pipeline.fuse(self._pipeline.read((member,)), states)
                times.append(1000 * (perf_counter() - start))
                start = perf_counter()
        return times


class Batched:
    """As `fmmt run` does it: utterances together, faces read ahead; every answer is there when the last one is."""

    name: WayName = "batched"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def answer(self, dialogue: Dialogue) -> list[float]:
        """See `Way.answer`; here the dialogue's time, shared out."""
        count = len(dialogue.utterances)
        return [_timed(self._pipeline, _dataset(dialogue)) / count] * count


class Published:
    """The published evaluation's way: the whole dialogue, padded to 512, again for every utterance; batch 1.

    Args:
        pipeline: Prepares the same inputs as for the others; its engines should be PyTorch's.
        clock: Times the stages.
    """

    name: WayName = "published"

    def __init__(self, pipeline: Pipeline, engines: Engines, clock: StageClock) -> None:
        self._pipeline, self._engines, self._clock = pipeline, engines, clock

    def answer(self, dialogue: Dialogue) -> list[float]:
        """See `Way.answer`."""
        return [self._answer_one(dialogue, u.id) for u in dialogue.utterances]

    def _answer_one(self, dialogue: Dialogue, utterance: str) -> float:
        start = perf_counter()
        sizes = self._pipeline.architecture.fusion
        assert sizes is not None
        (group,) = self._pipeline.plan(_dataset(dialogue, (utterance,)))
        step = self._pipeline.read(group.members)
        with self._clock("prepare"):
            ids = np.zeros((1, PUBLISHED_TOKENS), np.int64)
            ids[0, : len(group.windows[0])] = group.windows[0]
            mask = (np.arange(PUBLISHED_TOKENS) < len(group.windows[0])).astype(np.int64)[None]
        with self._clock("swin"):
            logits: Value = np.empty((0, 7), np.float32)
            if len(step.faces):
                logits = self._engines["swin"].start({"faces": step.faces})["face_logits"]
        with self._clock("plm"):
            states = self._engines["plm"].start({"input_ids": ids, "attention_mask": mask})["token_states"]
        with self._clock("fusion"):
            answer = self._engines["fusion"].start(fusion_inputs(step.members, sizes, states, logits, no_noise))
            answer["logits"].numpy()
        return 1000 * (perf_counter() - start)


def _timed(pipeline: Pipeline, dataset: DataSet) -> float:
    start = perf_counter()
    for _ in pipeline.run(dataset):
        pass
    return 1000 * (perf_counter() - start)


def _dataset(dialogue: Dialogue, only: tuple[str, ...] | None = None) -> DataSet:
    chosen = tuple(u for u in dialogue.utterances if only is None or u.id in only)
    part = Dialogue(dialogue.id, dialogue.texts, dialogue.tokens, chosen)
    return DataSet(dialogue.id, (part,), tuple(u.id for u in chosen))
