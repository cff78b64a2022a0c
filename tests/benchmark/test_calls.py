"""Recorded calls: what answering calls is what is called again, at both boundaries, and gives the same answers."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from fmmt_deploy.benchmark import calls
from fmmt_deploy.benchmark.calls import Call, Replay, recorded, size_bytes
from fmmt_deploy.benchmark.queries import AllAtOnce, WithoutCache, queries_of_dialogue
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Engines, Tensor, Value
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import Dialogue, GraphName
from tests.benchmark.fake_clock import FakeClock
from tests.engines.tensorrt.simulated import simulated_engines

Bundles = Callable[[str], Bundle]
Way = type[WithoutCache | AllAtOnce]


@pytest.fixture
def dialogue(tmp_path: Path) -> Dialogue:
    (made,) = meld_shaped(PRESETS["tiny"], tmp_path, dialogues=1, faces=2).dialogues
    return made


def answered(bundle: Bundle, way: Way, dialogue: Dialogue, engines: Engines) -> None:
    answering, queries = way(Pipeline(bundle, engines, batch_size=4)), queries_of_dialogue(dialogue)
    for asked in [queries] if way is AllAtOnce else [(query,) for query in queries]:
        answering.answer(asked)


def calls_of(bundle: Bundle, way: Way, dialogue: Dialogue, engines: Engines) -> tuple[Call, ...]:
    graphs = graphs_of(bundle.manifest.architecture)
    return recorded(engines, graphs, partial(answered, bundle, way, dialogue))


def test_one_at_a_time_encodes_again_for_every_utterance(tiny_bundle: Bundles, dialogue: Dialogue) -> None:
    bundle, count = tiny_bundle("roberta"), len(dialogue.utterances)
    with open_engines(bundle, "ort", threads=1) as engines:
        alone, batched = (calls_of(bundle, way, dialogue, engines) for way in (WithoutCache, AllAtOnce))
    counts = [[sum(c.graph == g for c in calls) for g in ("plm", "swin", "fusion")] for calls in (alone, batched)]
    assert counts == [[count, count, count], [1, -(-count // 4), -(-count // 4)]]
    assert size_bytes(batched) < size_bytes(alone)
    faces = sum(len(call.arrays["faces"]) for call in batched if call.graph == "swin")
    assert faces == sum(u.vision_length for u in dialogue.utterances)


def test_what_one_graph_hands_to_another_is_linked(tiny_bundle: Bundles, dialogue: Dialogue) -> None:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=1) as engines:
        calls = calls_of(bundle, AllAtOnce, dialogue, engines)
    for call in calls:
        if call.graph != "fusion":
            assert not call.links
            continue
        found = {name: (calls[number].graph, output) for name, (number, output) in call.links.items()}
        assert found == {"token_states": ("plm", "token_states"), "face_logits": ("swin", "face_logits")}


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("way", [WithoutCache, AllAtOnce])
@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_calls_are_made_again(
    tiny_bundle: Bundles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    way: Way,
    on_device: bool,
) -> None:
    """On a simulated GPU: the same calls, with the same inputs; and with those on the device, nothing goes up."""
    bundle = tiny_bundle(model)
    (talk,) = meld_shaped(bundle.manifest.architecture, tmp_path, dialogues=1, faces=2).dialogues
    graphs, waits = graphs_of(bundle.manifest.architecture), list[int]()
    with simulated_engines(bundle) as engines:
        calls = calls_of(bundle, way, talk, engines)
        again = list[tuple[Call, ...]]()
        replay = Replay(engines, calls, lambda: waits.append(1), on_device)
        if on_device:
            for graph in graphs:
                engine = engines[graph]
                assert isinstance(engine, TensorRTEngine)
                monkeypatch.setattr(engine._session.device, "upload", lambda *_: pytest.fail("copied to the device"))
        again.append(recorded(engines, graphs, lambda e: with_engines(replay, e).all_ms()))
        for graph in graphs:
            assert replay.graph_ms(graph) > 0
    assert len(waits) == 2 * (1 + len(graphs))
    assert [call.graph for call in again[0]] == [call.graph for call in calls]
    for one, other in zip(calls, again[0], strict=True):
        assert one.links == other.links
        for name, array in one.arrays.items():
            np.testing.assert_allclose(other.arrays[name], array, rtol=0, atol=1e-5)


def with_engines(replay: Replay, engines: Engines) -> Replay:
    replay._engines = engines
    return replay


@pytest.mark.parametrize("graph", ["plm", "fusion"])
def test_a_time_is_that_of_the_graphs_own_calls(monkeypatch: pytest.MonkeyPatch, graph: GraphName) -> None:
    """Calls of `plm` take a second each, those of `fusion` a tenth, and what was begun before them is not counted."""
    clock, seconds = FakeClock(), {"plm": 1.0, "fusion": 0.1}
    monkeypatch.setattr(calls, "perf_counter", clock)
    timed = {name: Taking(clock, takes) for name, takes in seconds.items()}
    order: tuple[GraphName, ...] = ("plm", "fusion", "fusion", "plm", "fusion")
    waiting = iter([5.0, 0.25, 0.0, 0.25])

    def wait() -> None:
        clock.seconds += next(waiting)

    replay = Replay(Engines("ort", timed), [Call(name, {}, {}, None) for name in order], wait, on_device=False)
    expected = 1000 * (order.count(graph) * seconds[graph] + 0.25)
    assert replay.graph_ms(graph) == pytest.approx(expected)
    assert replay.all_ms() == pytest.approx(1000 * (2 * 1.0 + 3 * 0.1 + 0.25))


class Taking:
    """An engine that takes its time."""

    inputs: ClassVar = {}

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        raise NotImplementedError

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        assert (dict(inputs), rows) == ({}, None)
        self._clock.seconds += self._seconds
        return {}

    def close(self) -> None: ...


def test_a_graph_alone_needs_no_other(tiny_bundle: Bundles, dialogue: Dialogue) -> None:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=1) as engines:
        calls = calls_of(bundle, AllAtOnce, dialogue, engines)
        fusion = Engines("ort", {"fusion": engines["fusion"]})
        assert Replay(fusion, calls, lambda: None, on_device=False).graph_ms("fusion") > 0


def test_with_copies_answers_come_to_the_host(tiny_bundle: Bundles, dialogue: Dialogue) -> None:
    bundle = tiny_bundle("roberta")
    downloads = list[int]()
    with simulated_engines(bundle) as engines:
        calls = calls_of(bundle, AllAtOnce, dialogue, engines)
        plm = engines["plm"]
        assert isinstance(plm, TensorRTEngine)
        device = plm._session.device
        before = device.download
        device.download = lambda *given: (downloads.append(1), before(*given))[1]  # type: ignore[method-assign]
        for on_device in (True, False):
            downloads.clear()
            Replay(engines, calls, lambda: None, on_device).graph_ms("plm")
            assert len(downloads) == (0 if on_device else sum(call.graph == "plm" for call in calls))
