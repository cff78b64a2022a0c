"""What the benchmark runs and counts: each way of working does exactly the work it is named for."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.benchmark.contenders import tokens_of_dialogues
from fmmt_deploy.benchmark.matrix_rate import MatrixRate
from fmmt_deploy.benchmark.report import report
from fmmt_deploy.benchmark.run import Contender, Measurement, measure
from fmmt_deploy.benchmark.ways import Alone, Batched, Cached, Published, StageClock, WayName
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.host import started_on_host
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.errors import UnstableError
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import DataSet, Dialogue


class CountingEngine:
    """Passes everything on, and remembers the shapes."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes = engine, list[tuple[int, ...]]()

    @property
    def inputs(self) -> Mapping[str, np.dtype]:
        return self.engine.inputs

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        first = next(name for name in ("faces", "input_ids", "text_row") if name in inputs)
        self.shapes.append(inputs[first].shape)
        return self.engine.run(inputs)

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        self.engine.close()


@pytest.fixture
def dialogue(tmp_path: Path) -> Dialogue:
    (made,) = meld_shaped(PRESETS["tiny"], tmp_path, dialogues=1, faces=3).dialogues
    return made


@pytest.fixture
def counted(tiny_bundle: Callable[[str], Bundle]) -> Iterator[tuple[Bundle, Engines, dict[str, CountingEngine]]]:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=2) as engines:
        counting = {graph: CountingEngine(engines[graph]) for graph in ("swin", "plm", "fusion")}
        yield bundle, Engines("counting", counting), counting


def test_meld_shaped_dialogues_have_melds_lengths(tmp_path: Path) -> None:
    full = PRESETS["full"]
    dataset = meld_shaped(full, tmp_path, dialogues=60, faces=10)
    tokens = [len(d.tokens.input_ids) for d in dataset.dialogues if d.tokens is not None]
    counts = [u.vision_length for d in dataset.dialogues for u in d.utterances]
    assert np.mean(tokens) == pytest.approx(134, rel=0.1)  # MELD's test set: mean 134, longest 510
    assert max(tokens) <= 512
    assert len(counts) / 60 == pytest.approx(9.3, rel=0.1)
    assert np.mean(counts) == pytest.approx(10, rel=0.1)
    assert min(counts) >= 5
    assert max(counts) <= 15


def test_made_dialogues_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, two = (meld_shaped(PRESETS["tiny"], tmp_path, 2, 4, seed=3) for _ in range(2))
    for a, b in zip(one.dialogues, two.dialogues, strict=True):
        assert a.tokens is not None
        assert b.tokens is not None
        np.testing.assert_array_equal(a.tokens.input_ids, b.tokens.input_ids)
        assert [u.faces for u in a.utterances] == [u.faces for u in b.utterances]


def test_every_way_does_the_work_it_is_named_for(
    counted: tuple[Bundle, Engines, dict[str, CountingEngine]], dialogue: Dialogue
) -> None:
    bundle, engines, counting = counted
    count, tokens = len(dialogue.utterances), len(dialogue.tokens.input_ids) if dialogue.tokens else 0
    pipeline = Pipeline(bundle, engines, batch_size=4)
    expected: dict[WayName, tuple[list[tuple[int, int]], list[int]]] = {
        "published": ([(1, 512)] * count, [1] * count),
        "alone": ([(1, tokens)] * count, [1] * count),
        "cached": ([(1, tokens)], [1] * count),
        "batched": ([(1, tokens)], [min(4, count - i) for i in range(0, count, 4)]),
    }
    for way in (Published(pipeline, engines, StageClock()), Alone(pipeline), Cached(pipeline), Batched(pipeline)):
        for engine in counting.values():
            engine.shapes.clear()
        times = way.answer(dialogue)
        plm, fused = expected[way.name]
        assert counting["plm"].shapes == plm, way.name
        assert [shape[0] for shape in counting["fusion"].shapes] == fused, way.name
        assert sum(shape[0] for shape in counting["swin"].shapes) == sum(u.vision_length for u in dialogue.utterances)
        assert len(times) == count
        assert all(time > 0 for time in times)


class FakeWay:
    """Takes a given time, and writes down that it was its turn."""

    name: WayName = "alone"

    def __init__(self, label: str, ms: Callable[[], float], turns: list[str]) -> None:
        self._label, self._ms, self._turns = label, ms, turns

    def answer(self, dialogue: Dialogue) -> list[float]:
        self._turns.append(self._label)
        return [self._ms()] * len(dialogue.utterances)


def test_contenders_take_turns_in_changing_order(tmp_path: Path) -> None:
    dataset = meld_shaped(PRESETS["tiny"], tmp_path, 2, 1)
    turns: list[str] = []
    contenders = [
        Contender("a", FakeWay("a", lambda: 20.0, turns), StageClock()),
        Contender("b", FakeWay("b", lambda: 10.0, turns), StageClock()),
    ]
    measured, rates = measure(contenders, dataset, rounds=2, rates={"cpu fp32": MatrixRate(64).sample})
    assert "".join(turns[-8:]) == "abbaabba"
    assert {name: len(samples) for name, samples in rates.items()} == {"cpu fp32": 4}
    counts = [len(d.utterances) for d in dataset.dialogues] * 2
    assert measured[0].dialogues_ms == [20.0 * n for n in counts]
    assert measured[1].answers_ms == [10.0] * sum(counts)


def test_a_contender_that_never_settles_is_an_error(tmp_path: Path) -> None:
    dataset = meld_shaped(PRESETS["tiny"], tmp_path, 1, 1)
    ever_slower = iter(2.0 ** np.arange(200))
    way = FakeWay("a", lambda: float(next(ever_slower)), [])
    with pytest.raises(UnstableError, match="never settled"):
        measure([Contender("a", way, StageClock())], dataset, 1, {"cpu fp32": MatrixRate(64).sample})


def test_the_report_counts_work_rates_and_ratios(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(bundle.manifest.architecture, tmp_path, 2, 2)
    tokens = tokens_of_dialogues(bundle, dataset)
    assert tokens == [len(d.tokens.input_ids) for d in dataset.dialogues if d.tokens is not None]
    answers = sum(len(d.utterances) for d in dataset.dialogues)
    slow = Measurement("torch", "published", [30.0] * answers, [60.0, 90.0], {"plm": 100.0 * answers, "prepare": 1.0})
    fast = Measurement("ort", "batched", [3.0] * answers, [6.0, 9.0], {"plm": 1.0 * answers})
    made = report([slow, fast], {"cpu fp32": [0.1, 0.3, 0.2]}, dataset, tokens, bundle, rounds=1, threads=2)
    assert made.matrix_gflops == pytest.approx(200)
    assert made.ways[0].speed_up is None
    assert made.ways[1].speed_up is not None
    assert made.ways[1].speed_up.median == pytest.approx(10)
    assert made.ways[1].per_second == pytest.approx(1000 * answers / 15)
    published, batched = (
        next(s for s in made.stages if s.way == w and s.stage == "plm") for w in ("published", "batched")
    )
    assert published.ms == pytest.approx(100)
    assert published.gflop is not None
    assert batched.gflop is not None
    assert published.gflop == pytest.approx(_plm_gflop(bundle.manifest.architecture, 512))
    once = sum(_plm_gflop(bundle.manifest.architecture, n) for n in tokens) / answers
    assert batched.gflop == pytest.approx(once)
    assert batched.share_of_rate == pytest.approx(once / 1e-3 / 200)


def _plm_gflop(architecture: Architecture, tokens: int) -> float:
    """The closed formula: layers × 2(T(4h² + 2hf) + 2T²h) and the projection."""
    plm, fusion = architecture.plm, architecture.fusion
    assert plm is not None
    assert fusion is not None
    h, f, t = plm.hidden_size, plm.intermediate_size, tokens
    return (plm.layers * 2 * (t * (4 * h * h + 2 * h * f) + 2 * t * t * h) + 2 * t * h * fusion.hidden_size) / 1e9


def test_dataset_of_made_dialogues_is_in_order(tmp_path: Path) -> None:
    dataset: DataSet = meld_shaped(PRESETS["tiny"], tmp_path, 3, 1)
    assert dataset.order == tuple(u.id for d in dataset.dialogues for u in d.utterances)
