"""The pass that stages are timed in: each way does exactly the work it is named for, and work and rates are counted."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.benchmark import stages
from fmmt_deploy.benchmark.choices import Choice, choice_from_option
from fmmt_deploy.benchmark.queries import Query
from fmmt_deploy.benchmark.rates import RateRow, rate_rows
from fmmt_deploy.benchmark.sides import Opened, WayName
from fmmt_deploy.benchmark.stages import StageClock, Staged, stage_rows, staged_pass, staged_ways
from fmmt_deploy.benchmark.workload import meld_shaped, tokens_of_dialogues
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.pipeline.run import StageName
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import GraphName
from tests.benchmark.counting import CountingEngine
from tests.benchmark.fake_clock import FakeClock

Bundles = Callable[[str], Bundle]
TINY = PRESETS["tiny"]
ORT = choice_from_option("ort", TINY)


class Taking:
    """Begins a device's work, or does the host's, in no time, and tells its clock."""

    def __init__(self, clock: StageClock) -> None:
        self.clock = clock

    def ready(self, query: Query) -> None: ...

    def answer(self, _: Sequence[Query]) -> None:
        for stage in ("prepare", "swin", "plm"):
            with self.clock(stage):
                pass


def rows_of(
    choice: Choice, way: WayName, stages_ms: dict[StageName, float], rates: Sequence[RateRow], bundle: Bundle, at: Path
) -> dict[str, stages.StageRow]:
    dataset = meld_shaped(bundle.manifest.architecture, at, 2, 2)
    staged = Staged(choice, way, Taking(StageClock()), StageClock(stages_ms))
    return {row.stage: row for row in stage_rows(staged, dataset, bundle, rates)}


def test_every_way_does_the_work_it_is_named_for(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(TINY, tmp_path, dialogues=1, faces=3)
    (dialogue,) = dataset.dialogues
    utterances, (tokens,) = len(dialogue.utterances), tokens_of_dialogues(bundle, dataset)
    expected: dict[WayName, tuple[list[tuple[int, int]], list[int]]] = {
        "published": ([(1, 512)] * utterances, [1] * utterances),
        "alone": ([(1, tokens)] * utterances, [1] * utterances),
        "cached": ([(1, tokens)], [1] * utterances),
        "batched": ([(1, tokens)], [min(4, utterances - i) for i in range(0, utterances, 4)]),
    }
    with open_engines(bundle, "ort", threads=2) as engines:
        graphs: tuple[GraphName, ...] = ("swin", "plm", "fusion")
        counting = {graph: CountingEngine(engines[graph]) for graph in graphs}
        staged = staged_ways(Opened(bundle, (ORT,), {"ort": Engines("counting", counting)}, ORT, 4, 2))
        assert [one.way for one in staged] == list(expected)
        for one in staged:
            for engine in counting.values():
                engine.shapes.clear()
            staged_pass(one, dataset)
            plm, fused = expected[one.way]
            assert counting["plm"].shapes == plm, one.way
            assert [shape[0] for shape in counting["fusion"].shapes] == fused, one.way
            faces = sum(shape[0] for shape in counting["swin"].shapes)
            assert faces == sum(u.vision_length for u in dialogue.utterances)
            assert one.clock.stages_ms.keys() == {"prepare", "swin", "plm", "fusion"}
            assert all(ms > 0 for ms in one.clock.stages_ms.values())


def test_a_model_of_faces_alone_has_nothing_to_cache(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    choice = choice_from_option("ort", bundle.manifest.architecture)
    dataset = meld_shaped(bundle.manifest.architecture, tmp_path, 1, 1)
    with open_engines(bundle, "ort", threads=1) as engines:
        staged = staged_ways(Opened(bundle, (choice,), {"ort": engines}, None, 4, 1))
        assert [one.way for one in staged] == ["alone", "batched"]
        for one in staged:
            staged_pass(one, dataset)
            (row,) = stage_rows(one, dataset, bundle, ())
            assert (row.stage, row.gflop is None) == ("fusion", False)


def test_only_a_device_is_waited_for_and_in_every_way(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    on_device = choice_from_option("trt", TINY)
    with open_engines(bundle, "ort") as engines:
        staged = staged_ways(Opened(bundle, (ORT, on_device), {"ort": engines, "trt": engines}, on_device, 4, 1))
    assert {(one.choice.name, one.clock.wait is None) for one in staged} == {("ort", True), ("trt", False)}
    assert {one.way for one in staged if one.clock.wait} == {"published", "alone", "cached", "batched"}


def test_stages_of_a_gpu_end_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is begun at once and takes 2 s, which only the wait shows; the host's own work waits for nothing."""
    now, dataset, looks = FakeClock(), meld_shaped(TINY, tmp_path, 1, 1), count()
    monkeypatch.setattr(stages, "perf_counter", now)

    def wait() -> None:
        now.seconds += 2.0

    clock = StageClock({"fusion": 7.0}, wait=wait)
    staged_pass(Staged(choice_from_option("trt", TINY), "batched", Taking(clock), clock), dataset, lambda: next(looks))
    assert clock.stages_ms == {"prepare": 0.0, "swin": 2000.0, "plm": 2000.0}  # and nothing from before
    assert next(looks) == 1


def test_work_and_rates_are_counted(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(TINY, tmp_path, 2, 2)
    tokens, answers = tokens_of_dialogues(bundle, dataset), len(dataset.order)
    rates = rate_rows({"cpu fp32": [0.1, 0.3, 0.2]})
    published = rows_of(ORT, "published", {"plm": 100.0 * answers, "prepare": 1.0}, rates, bundle, tmp_path)
    batched = rows_of(ORT, "batched", {"plm": 1.0 * answers}, rates, bundle, tmp_path)
    alone = rows_of(ORT, "alone", {"plm": 1.0 * answers}, rates, bundle, tmp_path)
    assert published["plm"].ms == pytest.approx(100)
    assert published["prepare"].gflop is None
    assert published["plm"].gflop == pytest.approx(_plm_gflop(TINY, 512))
    once = sum(_plm_gflop(TINY, n) for n in tokens) / answers
    assert batched["plm"].gflop == pytest.approx(once)
    assert batched["plm"].share_of_rate == pytest.approx(once / 1e-3 / 200)
    for_each = sum(_plm_gflop(TINY, n) * len(d.utterances) for n, d in zip(tokens, dataset.dialogues, strict=True))
    assert alone["plm"].gflop == pytest.approx(for_each / answers)


def test_shares_are_of_each_graph_s_own_rate(tiny_bundle: Bundles, tmp_path: Path) -> None:
    choice = choice_from_option("trt:swin=fp16,plm=int8", TINY)
    rates = rate_rows({"cuda fp16": [8.0], "cuda fp32": [2.0, 4.0, 3.0], "cuda bf16": []})
    assert [(row.name, row.gflops) for row in rates] == [("cuda fp16", 8000), ("cuda fp32", 3000)]
    assert rates[1].gflops_range == (2000, 4000)
    times: dict[StageName, float] = {"swin": 10.0, "plm": 10.0, "fusion": 10.0}
    rows = rows_of(choice, "batched", times, rates, tiny_bundle("roberta"), tmp_path)
    for stage, tflops in (("swin", 8.0), ("fusion", 3.0)):
        row = rows[stage]
        assert row.gflop is not None
        assert row.share_of_rate == pytest.approx(row.gflop / row.ms / tflops)
    assert rows["plm"].share_of_rate is None  # nobody measured int8


def _plm_gflop(architecture: Architecture, tokens: int) -> float:
    """The closed formula: layers × 2(T(4h² + 2hf) + 2T²h) and the projection."""
    plm, fusion = architecture.plm, architecture.fusion
    assert plm is not None
    assert fusion is not None
    h, f, t = plm.hidden_size, plm.intermediate_size, tokens
    return (plm.layers * 2 * (t * (4 * h * h + 2 * h * f) + 2 * t * t * h) + 2 * t * h * fusion.hidden_size) / 1e9
