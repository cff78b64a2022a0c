"""The gate on speed fires at an engine ten percent slower than its baseline."""

from collections.abc import Callable, Mapping

import pytest

from fmmt_deploy.benchmark import bench, rates, sides
from fmmt_deploy.benchmark.cold_start import ColdStart, Start
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Engine, EngineKind, Engines, Value
from tests.cli.running import exit_code
from tests.parity.faults import FaultyEngine

Bundles = Callable[[str], Bundle]


class Clock:
    """Time that passes only where an engine computes; the machine slows down all the while, to half its speed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-7
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds * (1 + min(1.0, self.now / 30))


class TimedEngine(FaultyEngine):
    """Takes its time by the row."""

    def __init__(self, engine: Engine, clock: Clock, seconds: float) -> None:
        super().__init__(engine, lambda outputs: outputs)
        self._clock, self._seconds = clock, seconds

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        outputs = super().run(inputs)
        self._clock.spend(self._seconds * max(map(len, outputs.values())))
        return outputs


@pytest.mark.parametrize(("slower", "wanted", "code"), [(1.1, 1.0, 6), (1.0, 0.99, 0)])
def test_ten_percent_slower_than_the_baseline(
    tiny_bundle: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slower: float,
    wanted: float,
    code: int,
) -> None:
    """On a clock of our own, so that a busy machine changes nothing; only `fusion` takes time, 10 ms an utterance."""
    clock = Clock()
    seconds: Mapping[str, float] = {"torch": 0.01, "ort": 0.01 * slower}

    def opened(bundle: Bundle, kind: EngineKind, *args: object) -> Engines:
        engines = open_engines(bundle, kind, *args)  # type: ignore[arg-type]  # as they came
        timed = {graph: engines[graph] for graph in graphs_of(bundle.manifest.architecture)}
        return Engines(kind, {**timed, "fusion": TimedEngine(timed["fusion"], clock, seconds[kind])})

    monkeypatch.setattr(sides, "open_engines", opened)
    monkeypatch.setattr(bench, "perf_counter", clock)
    monkeypatch.setattr(rates, "rates_for", lambda *_: {})
    monkeypatch.setattr(bench, "cold_start", lambda _, choice, *__: ColdStart(choice.name, (Start(1, 1, 1, 1, None),)))
    made = (
        "--dialogues",
        "1",
        "--faces",
        "1",
        "--rounds",
        "2",
        "--scenario",
        "offline",
        "--no-receipt",
        "--allow-invalid",
    )
    engines = ("--engine", "torch", "--engine", "ort")
    bundle = str(tiny_bundle("roberta").path)
    assert exit_code("bench", "-b", bundle, *engines, *made, "--min-speed-up", str(wanted), "--json", "-q") == code
    shown = capsys.readouterr()
    assert ("ort should be 1 times as fast as the baseline, found 0.9" in shown.err) == (code == 6)
