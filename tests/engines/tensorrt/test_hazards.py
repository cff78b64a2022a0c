"""Each mistake with memory or order that a GPU would not always show does show on the simulated one."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import buffers, engine, graphs
from fmmt_deploy.engines.tensorrt.load import RunOptions
from fmmt_deploy.engines.tensorrt.session import Session
from tests.engines.tensorrt.simulated import simulated_engines
from tests.engines.tensorrt.simulated_device import SimulatedDevice, SimulationError

Bundles = Callable[[str], Bundle]


@pytest.fixture
def roberta(tiny_bundle: Bundles) -> Bundle:
    return tiny_bundle("roberta")


def steps(bundle: Bundle, seed: int | None = None) -> None:
    """Batches of all graphs, many on their way, checked against the recorded answers."""
    stages = read_self_test(bundle.path / "self_test.npz")
    with simulated_engines(bundle, device=SimulatedDevice(seed), options=RunOptions(graphs=1)) as engines:
        pending = []
        for number in range(12):
            inputs = {"faces": np.roll(stages["swin"].inputs["faces"], number, axis=0)}
            tensor = engines["swin"].start(inputs, (None, 1, 3)[number % 3])["face_logits"]
            engines["plm"].start({n: a[:, : 8 + number] for n, a in stages["plm"].inputs.items()})
            pending.append((tensor, np.roll(stages["swin"].outputs["face_logits"], number, axis=0)))
        for tensor, expected in pending:
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-5)


def skip_waits(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """One stream no longer waits for events."""
    wait, init = SimulatedDevice.wait, Session.__init__
    skipped: set[int] = set()

    def remembered(self: Session, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        skipped.add(getattr(self, stream))

    monkeypatch.setattr(Session, "__init__", remembered)
    monkeypatch.setattr(SimulatedDevice, "wait", lambda self, s, event: None if s in skipped else wait(self, s, event))


def early_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that were dropped are freed, not reused in the order of the stream."""

    def sort(self: buffers.BlockPool) -> None:
        while self._returned:
            self._release(self._returned.popleft()[1])

    monkeypatch.setattr(buffers.BlockPool, "_sort", sort)


def unaligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ALIGNMENT", 1)


def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a context is captured."""
    add = graphs.Graphs._add

    def captured_at_once(self: graphs.Graphs, shaped: Any) -> None:
        add(self, shaped)
        self._capture(self._captured[shaped])

    monkeypatch.setattr(graphs.Graphs, "_add", captured_at_once)


def shared_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """All graphs of an engine are captured with one context."""
    create = engine.Program.create_context
    made: dict[int, Any] = {}

    def shared(self: Any, profile: int, *, one_shape: bool = False) -> Any:
        return made.setdefault(id(self), create(self, profile, one_shape=one_shape))

    monkeypatch.setattr(engine.Program, "create_context", shared)


HAZARDS: Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "computing does not wait for uploads": (lambda m: skip_waits(m, "compute"), "does not wait for"),
    "uploads do not wait for computing": (lambda m: skip_waits(m, "upload"), "does not wait for"),
    "downloads do not wait for computing": (lambda m: skip_waits(m, "download"), "does not wait for"),
    "memory is freed too early": (early_free, "freed while work uses it"),
    "parts of an output are not aligned": (unaligned, "not aligned"),
    "the first run is captured": (no_warm_up, "right after a change of shapes"),
    "graphs share a context": (shared_context, "has other shapes now"),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_each_hazard_shows(monkeypatch: pytest.MonkeyPatch, roberta: Bundle, hazard: str) -> None:
    sabotage, message = HAZARDS[hazard]
    sabotage(monkeypatch)
    with pytest.raises(SimulationError, match=message):
        steps(roberta)


def test_a_slot_that_is_refilled_before_it_was_uploaded_shows(monkeypatch: pytest.MonkeyPatch, roberta: Bundle) -> None:
    stage = read_self_test(roberta.path / "self_test.npz")["swin"]
    with simulated_engines(roberta, options=RunOptions(graphs=0)) as engines:
        with monkeypatch.context() as patch:
            patch.setattr(SimulatedDevice, "synchronize_event", lambda *_: None)
            first = engines["swin"].start(stage.inputs)["face_logits"]
            for _ in range(2):
                engines["swin"].start({"faces": stage.inputs["faces"][::-1]})
        np.testing.assert_array_equal(first.numpy()[::-1].round(4), stage.outputs["face_logits"].round(4))


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_without_sabotage(roberta: Bundle, seed: int | None) -> None:
    steps(roberta, seed)
