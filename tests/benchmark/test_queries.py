"""Queries: each way of answering does exactly the work it is named for, and answers what the pipeline answers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.published import Published
from fmmt_deploy.benchmark.queries import (
    AllAtOnce,
    Answering,
    Query,
    WithCache,
    WithoutCache,
    drawn_rounds,
    queries_of,
    timed,
)
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import DataSet
from tests.benchmark.counting import CountingEngine
from tests.benchmark.fake_clock import FakeClock

Bundles = Callable[[str], Bundle]


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    return meld_shaped(PRESETS["tiny"], tmp_path, dialogues=2, faces=2)


class Counted:
    """A bundle whose engines remember the shapes they were called with."""

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.counting = {graph: CountingEngine(engines[graph]) for graph in ("swin", "plm", "fusion")}
        self.engines = Engines("counting", self.counting)
        self.bundle = bundle

    def pipeline(self, batch_size: int) -> Pipeline:
        return Pipeline(self.bundle, self.engines, batch_size=batch_size)

    def shapes(self, graph: str) -> list[int]:
        """Rows of every call since the last time."""
        found = [shape[0] for shape in self.counting[graph].shapes]  # type: ignore[index]
        self.counting[graph].shapes.clear()  # type: ignore[index]
        return found


@pytest.fixture
def counted(tiny_bundle: Bundles) -> Iterator[Counted]:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=1) as engines:
        yield Counted(bundle, engines)


def test_without_the_cache_a_dialogue_is_encoded_for_every_utterance(counted: Counted, dataset: DataSet) -> None:
    queries = queries_of(dataset)[:3]
    answering = WithoutCache(counted.pipeline(8))
    for query in queries:
        answering.answer((query,))
    assert (counted.shapes("plm"), counted.shapes("fusion")) == ([1, 1, 1], [1, 1, 1])
    answering.answer(queries)
    assert (counted.shapes("plm"), counted.shapes("fusion")) == ([3], [3])  # in one batch, and still three times
    answering.answer((queries[0], queries[0]))
    assert counted.shapes("plm") == [2]


def test_with_the_cache_the_first_of_a_dialogue_pays(counted: Counted, dataset: DataSet) -> None:
    first, second, third = queries_of(dataset)[:3]
    answering = WithCache(counted.pipeline(8))
    answering.ready(third)
    assert counted.shapes("plm") == [1]  # untimed: what the first would have left
    for query, encoded in ((third, []), (second, []), (first, [1]), (first, [1])):
        answering.ready(query)
        assert counted.shapes("plm") == []
        answering.answer((query,))
        assert counted.shapes("plm") == encoded
    counted.shapes("fusion")
    answering.answer((second, third))
    assert (counted.shapes("plm"), counted.shapes("fusion")) == ([], [2])


def test_dialogues_beside_each_other_have_their_own_states(counted: Counted, dataset: DataSet) -> None:
    queries = queries_of(dataset)
    here, there = (
        queries[1],
        next(q for q in queries if q.dialogue.id != queries[1].dialogue.id and q.utterance.position),
    )
    answering = WithCache(counted.pipeline(8))
    answering.answer((here, there))
    assert sorted(counted.shapes("plm")) == [1, 1]
    assert counted.shapes("fusion") == [1, 1]


def test_all_at_once_is_what_run_does(counted: Counted, dataset: DataSet) -> None:
    queries = queries_of(dataset)
    AllAtOnce(counted.pipeline(4)).answer(queries)
    run = (counted.shapes("plm"), counted.shapes("fusion"))
    for _ in counted.pipeline(4).run(dataset):
        pass
    assert run == (counted.shapes("plm"), counted.shapes("fusion"))
    assert sum(run[1]) == len(queries)


def test_the_published_loop_answers_one_after_the_other(counted: Counted, dataset: DataSet) -> None:
    Published(counted.pipeline(1)).answer(queries_of(dataset)[:2])
    assert counted.counting["plm"].shapes == [(1, 512)] * 2
    assert counted.shapes("fusion") == [1, 1]


@pytest.mark.parametrize("kind", ["without", "with", "all"])
def test_answers_are_those_of_the_pipeline(
    counted: Counted, dataset: DataSet, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    expected = {p.utterance: p.logits for p in counted.pipeline(8).run(dataset)}
    found: dict[str, np.ndarray] = {}
    prediction = type(next(iter(counted.pipeline(8).run(dataset))))
    label = prediction.label.fget

    def noted(self: object) -> str:
        found[self.utterance] = self.logits  # type: ignore[attr-defined]
        return str(label(self))

    monkeypatch.setattr(prediction, "label", property(noted))
    kinds: dict[str, Callable[[Pipeline], Answering]] = {"without": WithoutCache, "with": WithCache, "all": AllAtOnce}
    kinds[kind](counted.pipeline(8)).answer(queries_of(dataset))
    assert found.keys() == expected.keys()
    for utterance, logits in expected.items():
        np.testing.assert_allclose(found[utterance], logits, rtol=0, atol=1e-5)


def test_what_is_made_beforehand_does_not_count() -> None:
    clock = FakeClock()

    class Slow:
        def ready(self, _: Query) -> None:
            clock.seconds += 100

        def answer(self, _: object) -> None:
            clock.seconds += 0.25

    assert timed(Slow(), [None, None], clock) == [250.0, 250.0]  # type: ignore[list-item]


def test_rounds_are_the_same_for_whoever_asks(dataset: DataSet) -> None:
    queries = queries_of(dataset)
    one, other = drawn_rounds(queries, 8), drawn_rounds(queries, 8)
    assert len(one(0)) == 8
    assert [q.utterance.id for q in one(3)] == [q.utterance.id for q in other(3)]
    assert [q.utterance.id for q in one(0)] != [q.utterance.id for q in one(1)]
    drawn = {q.utterance.id for number in range(40) for q in one(number)}
    assert drawn == {q.utterance.id for q in queries}
