"""What a caller asks, an utterance, and answering it from files to labels: without and with the dialogue cache.

Without the cache, an utterance's dialogue is encoded again for it, as it must be where a dialogue grows. With it, the
first utterance of a dialogue pays for encoding it, and the others find what it left. Each answers on its own, so that
any of them can be asked for at any time: what an earlier utterance would have left is then made beforehand, untimed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from time import perf_counter
from typing import Protocol

from fmmt_deploy.benchmark.scenarios import drawn
from fmmt_deploy.engines.protocol import Value
from fmmt_deploy.pipeline.plan import Member
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import DataSet, Dialogue, Utterance

__all__ = [
    "AllAtOnce",
    "Answering",
    "Query",
    "WithCache",
    "WithoutCache",
    "dataset_of",
    "drawn_rounds",
    "queries_of",
    "queries_of_dialogue",
    "timed",
]


@dataclass(frozen=True, eq=False)
class Query:
    """One utterance of one dialogue."""

    dialogue: Dialogue
    utterance: Utterance


class Answering(Protocol):
    """Answers queries, from files to labels."""

    def ready(self, query: Query) -> None:
        """Makes what earlier utterances would have left."""
        ...

    def answer(self, queries: Sequence[Query]) -> None:
        """Answers some queries at once; returns when the labels are there."""
        ...


class WithoutCache:
    """Every utterance with its dialogue encoded again for it, also beside others of the same dialogue."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def ready(self, query: Query) -> None:
        """See `Answering.ready`; there is nothing to make."""

    def answer(self, queries: Sequence[Query]) -> None:
        """See `Answering.answer`."""
        for prediction in self._pipeline.run(dataset_of(queries)):
            _ = prediction.label


class WithCache:
    """Every dialogue encoded once; utterances of one dialogue that are asked for together are fused together."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[str, tuple[Member, Value]] = {}
        self._first: set[str] = set()

    def ready(self, query: Query) -> None:
        """See `Answering.ready`."""
        if query.utterance.id not in self._known:
            self._encode(query.dialogue)

    def answer(self, queries: Sequence[Query]) -> None:
        """See `Answering.answer`."""
        for _, group in groupby(queries, key=lambda query: query.dialogue.id):
            together = list(group)
            if any(q.utterance.id not in self._known or q.utterance.id in self._first for q in together):
                self._encode(together[0].dialogue)
            found = [self._known[q.utterance.id] for q in together]
            for states, members in groupby(found, key=lambda pair: pair[1]):
                for prediction in self._pipeline.fuse(self._pipeline.read([m for m, _ in members]), states):
                    _ = prediction.label

    def _encode(self, dialogue: Dialogue) -> None:
        for group in self._pipeline.plan(_dataset((dialogue,))):
            states = self._pipeline.encode(group)
            self._known.update({member.utterance.id: (member, states) for member in group.members})
            self._first.add(group.members[0].utterance.id)


class AllAtOnce:
    """As `fmmt run` works: every dialogue encoded once, utterances of several together."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def ready(self, query: Query) -> None:
        """See `Answering.ready`; there is nothing to make."""

    def answer(self, queries: Sequence[Query]) -> None:
        """See `Answering.answer`; the utterances of a dialogue must follow each other."""
        dialogues = []
        for _, group in groupby(queries, key=lambda query: query.dialogue.id):
            together = list(group)
            dialogues.append(replace(together[0].dialogue, utterances=tuple(q.utterance for q in together)))
        for prediction in self._pipeline.run(_dataset(tuple(dialogues))):
            _ = prediction.label


def queries_of(dataset: DataSet) -> tuple[Query, ...]:
    """One for every utterance."""
    return tuple(query for dialogue in dataset.dialogues for query in queries_of_dialogue(dialogue))


def queries_of_dialogue(dialogue: Dialogue) -> tuple[Query, ...]:
    """One for every utterance, in their order."""
    return tuple(Query(dialogue, utterance) for utterance in dialogue.utterances)


def dataset_of(queries: Sequence[Query]) -> DataSet:
    """A data set in which every query has a dialogue of its own, so that nothing is shared among them."""
    return _dataset(tuple(replace(query.dialogue, utterances=(query.utterance,)) for query in queries))


def drawn_rounds(queries: Sequence[Query], count: int, seed: int = 0) -> Callable[[int], tuple[Query, ...]]:
    """For each round its queries, drawn with replacement: the same for the same number, whoever asks."""
    units = [(query,) for query in queries]
    return lru_cache(maxsize=None)(lambda number: drawn(units, count, seed + number))


def timed(answering: Answering, queries: Sequence[Query], clock: Callable[[], float] = perf_counter) -> list[float]:
    """Milliseconds of each query, sent when the last was answered; what is made beforehand does not count."""
    times = []
    for query in queries:
        answering.ready(query)
        start = clock()
        answering.answer((query,))
        times.append(1000 * (clock() - start))
    return times


def _dataset(dialogues: tuple[Dialogue, ...]) -> DataSet:
    order = tuple(u.id for dialogue in dialogues for u in dialogue.utterances)
    return DataSet(dialogues[0].id, dialogues, order)
