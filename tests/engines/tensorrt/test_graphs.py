"""CUDA graphs: which shapes become one, which are let go, and what happens where none can be made."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import graphs
from fmmt_deploy.engines.tensorrt.device import OutOfMemoryError
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.engines.tensorrt.load import RunOptions
from fmmt_deploy.engines.tensorrt.program import Context, Program
from tests.engines.tensorrt.simulated import SimulatedTensorRT, simulated_engines
from tests.engines.tensorrt.simulated_device import SimulatedDevice, SimulationError

Bundles = Callable[[str], Bundle]


def runs(bundle: Bundle, trt: SimulatedTensorRT, counts: list[int], **options: Any) -> list[int]:
    """Runs batches of so many rows, checks the answers, and tells after each how many were launched as graphs."""
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    launches = []
    with simulated_engines(bundle, trt=trt, options=RunOptions(**options)) as engines:
        unimodal = engines["unimodal"]
        assert isinstance(unimodal, TensorRTEngine)
        for count in counts:
            rows = np.arange(count) % len(stage.outputs["logits"])
            found = unimodal.start({name: array[rows] for name, array in stage.inputs.items()})["logits"]
            np.testing.assert_allclose(found.numpy(), stage.outputs["logits"][rows], rtol=0, atol=1e-5)
            launches.append(unimodal.graph_launches)
        assert unimodal.runs == len(counts)
    assert trt.device.leaks() == []
    return launches


@pytest.fixture
def trt() -> SimulatedTensorRT:
    return SimulatedTensorRT(SimulatedDevice())


def test_the_second_run_of_a_shape_is_captured(tiny_bundle: Bundles, trt: SimulatedTensorRT) -> None:
    bundle = tiny_bundle("unimodal")
    assert runs(bundle, trt, [1, 1, 1, 1, 2, 1, 2, 2]) == [0, 0, 1, 2, 2, 3, 3, 4]


def test_none_if_none_are_wanted(tiny_bundle: Bundles, trt: SimulatedTensorRT) -> None:
    assert runs(tiny_bundle("unimodal"), trt, [1] * 4, graphs=0) == [0] * 4


def test_the_least_recently_used_goes_and_must_wait_longer_to_return(
    tiny_bundle: Bundles, trt: SimulatedTensorRT
) -> None:
    bundle = tiny_bundle("unimodal")
    counts = [1, 1, 2, 2, 1, 3, 3]  # 1 and 2 are captured, 1 is used, 3 takes the place of 2
    assert runs(bundle, trt, [*counts, 1, 3, 2, 2, 2, 2, 2], graphs=2) == [0, 0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4]
    alternating = runs(bundle, SimulatedTensorRT(SimulatedDevice()), [1, 2] * 40, graphs=1)
    assert 0 < alternating[-1] < 80


def test_contexts_of_graphs_that_were_let_go_are_freed(tiny_bundle: Bundles, trt: SimulatedTensorRT) -> None:
    bundle = tiny_bundle("unimodal")
    with simulated_engines(bundle, trt=trt, options=RunOptions(graphs=1)) as engines:
        stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
        for count in (1, 2, 3, 4, 5):
            for _ in range(3):
                engines["unimodal"].start({name: array[:count] for name, array in stage.inputs.items()})
        assert len(trt.contexts) == 3  # the ordinary one, the graph's, and one that may still be running
        assert len(trt.device.graphs) == 2
    assert len(trt.contexts) == 0


@pytest.mark.parametrize("problem", ["not capturable", "spoilt", "refused", "no memory"])
def test_where_no_graph_can_be_made(
    tiny_bundle: Bundles,
    trt: SimulatedTensorRT,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
) -> None:
    """Runs go on without, and it is said once."""
    trt.capturable = problem != "not capturable"
    trt.spoils_captures = problem == "spoilt"
    if problem == "refused":
        begin, end = SimulatedDevice.begin_capture, SimulatedDevice.end_capture

        def refusing(self: SimulatedDevice, stream: int) -> None:
            begin(self, stream)
            trt.refuses.add("execute_async_v3")

        def ended(self: SimulatedDevice, stream: int) -> int:
            trt.refuses.clear()
            return end(self, stream)

        monkeypatch.setattr(SimulatedDevice, "begin_capture", refusing)
        monkeypatch.setattr(SimulatedDevice, "end_capture", ended)
    if problem == "no memory":
        create = Program.create_context

        def short(self: Program, profile: int, *, one_shape: bool = False) -> Context:
            if one_shape:
                raise OutOfMemoryError("The GPU has no memory left.")
            return create(self, profile)

        monkeypatch.setattr(Program, "create_context", short)
    with caplog.at_level(logging.WARNING):
        assert runs(tiny_bundle("unimodal"), trt, [1, 1, 1, 1, 2, 2, 2]) == [0] * 7
    said = [record.getMessage() for record in caplog.records if record.name == graphs.__name__]
    assert len(said) == 1
    assert said[0].startswith("unimodal runs without CUDA graphs, and so slower: ")


def test_a_graph_that_is_destroyed_too_early_shows(
    tiny_bundle: Bundles, trt: SimulatedTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    retire = graphs.Graphs._retire

    def at_once(self: graphs.Graphs, item: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SimulatedDevice, "synchronize_event", lambda *_: None)
            retire(self, item)
            self._bury()

    with simulated_engines(bundle, trt=trt, options=RunOptions(graphs=1)) as engines:
        monkeypatch.setattr(graphs.Graphs, "_retire", at_once)
        started = [
            engines["unimodal"].start({name: array[:count] for name, array in stage.inputs.items()})
            for count in (5, 5, 5, 2, 2)
        ]
        with pytest.raises(SimulationError, match=r"destroyed before it ran|context of a run is gone"):
            started[-1]["logits"].numpy()
        monkeypatch.undo()
        for stream in trt.device.streams.values():  # so that the rest can be closed
            stream.queue.clear()
            stream.done = stream.number


def test_ctrl_c_in_a_capture_ends_it(
    tiny_bundle: Bundles, trt: SimulatedTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    begin = SimulatedDevice.begin_capture

    def interrupted(self: SimulatedDevice, stream: int) -> None:
        begin(self, stream)
        monkeypatch.setattr(SimulatedDevice, "work", _interrupt)

    with simulated_engines(bundle, trt=trt) as engines:
        engines["unimodal"].run(stage.inputs)
        with monkeypatch.context() as patch:
            patch.setattr(SimulatedDevice, "begin_capture", interrupted)
            with pytest.raises(KeyboardInterrupt):
                engines["unimodal"].run(stage.inputs)
        monkeypatch.undo()
        assert not trt.device.is_capturing
        found = engines["unimodal"].run(stage.inputs)["logits"]
        np.testing.assert_allclose(found, stage.outputs["logits"], rtol=0, atol=1e-5)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
