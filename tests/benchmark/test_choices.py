"""`--engine KIND[:PRECISION]`, the baseline beside it, and the GPU's stages timed by themselves."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fmmt_deploy.benchmark import device
from fmmt_deploy.benchmark.choices import choice_from_option, published_choice, rate_name
from fmmt_deploy.benchmark.contenders import contenders_of
from fmmt_deploy.benchmark.device import DeviceMatrixRate, copy_rate, device_wait, seconds_of_call
from fmmt_deploy.benchmark.rates import copy_rate_for, rates_for
from fmmt_deploy.benchmark.report import report
from fmmt_deploy.benchmark.run import Contender, Measurement, measure
from fmmt_deploy.benchmark.sides import opened
from fmmt_deploy.benchmark.ways import StageClock, WayName
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import Dialogue
from tests.cli.running import exit_code

Bundles = Callable[[str], Bundle]
TINY = PRESETS["tiny"]


@pytest.mark.parametrize(
    ("text", "name", "device"),
    [
        ("ort", "ort", "cpu"),
        ("ort:fp32", "ort", "cpu"),
        ("emulated:fp16", "emulated:fp16", "cpu"),
        ("trt:fp16", "trt:fp16", "cuda"),
        ("trt: swin=fp16, plm=bf16", "trt:swin=fp16,plm=bf16,fusion=fp32", "cuda"),
        ("trt-rtx:swin=fp16,plm=fp16,fusion=fp16", "trt-rtx:fp16", "cuda"),
        ("torch-compiled:bf16", "torch-compiled:bf16", "cuda"),
    ],
)
def test_an_engine_in_a_precision(text: str, name: str, device: str) -> None:
    choice = choice_from_option(text, TINY)
    assert (choice.name, choice.device) == (name, device)
    assert choice_from_option(choice.name, TINY) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt", "--engine tensorrt: there is no engine 'tensorrt'."),
        ("", "--engine : there is no engine ''."),
        ("trt:fp17", "--engine trt:fp17: there is no precision 'fp17'."),
        ("trt:", "--engine trt:: there is no precision ''."),
        ("trt:swim=fp16", "--engine trt:swim=fp16: there is no graph 'swim'."),
        ("trt:swin=fp16,swin=fp32", "--engine trt:swin=fp16,swin=fp32: swin is named twice."),
    ],
)
def test_what_is_no_engine(text: str, message: str, tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        choice_from_option(text, TINY)
    assert caught.value.what == message
    assert exit_code("bench", "-b", str(tiny_bundle("roberta").path), "--engine", text) == 2
    assert message in capsys.readouterr().err


def test_the_published_loop_is_where_the_others_are() -> None:
    host, gpu = (choice_from_option(text, TINY) for text in ("ort", "trt:fp16"))
    assert published_choice([host], TINY).name == "torch"
    assert published_choice([host, gpu], TINY).name == "torch-cuda:fp16"


def test_rates_are_those_of_the_place_and_precision() -> None:
    assert rate_name("cuda", "fp16") == "cuda fp16"
    assert rate_name("cpu", "fp16") == "cpu fp32"  # emulated: computed in float32


def test_a_gpu_that_is_not_there_has_no_rate(tiny_bundle: Bundles) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("says what happens without a GPU")
    contenders = [
        Contender("ort", FakeWay(), StageClock()),
        Contender("trt", FakeWay(), StageClock(), "cuda", choice_from_option("trt:fp16", TINY).precisions),
    ]
    assert rates_for(contenders, 1).keys() == {"cpu fp32"}
    assert copy_rate_for(contenders) is None
    assert device_wait()() is None
    for measured in (lambda: DeviceMatrixRate("fp16"), copy_rate):
        with pytest.raises(EnvironmentProblem, match=r"rate needs an NVIDIA GPU"):
            measured()
    bundle = tiny_bundle("roberta")
    assert exit_code("bench", "-b", str(bundle.path), "--engine", "torch-cuda:fp16", "--baseline", "published") == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_device_s_matrix_rate_is_counted_from_its_time(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 n³ operations in the seconds that a product took, here a given time."""
    monkeypatch.setattr("fmmt_deploy.benchmark.device._seconds", lambda *_: 0.001)
    rate = DeviceMatrixRate(precision, size=64, device="cpu")  # type: ignore[arg-type]
    assert rate.sample() == pytest.approx(2 * 64**3 / 0.001 / 1e12)
    assert copy_rate(10**6, device="cpu") == pytest.approx(2 * 10**6 / 0.001 / 1e9)


def test_the_device_s_rates_are_measured() -> None:
    assert 0 < DeviceMatrixRate("fp32", size=64, device="cpu").sample() < 100
    assert 0 < copy_rate(2**20, samples=2, device="cpu") < 10_000
    with pytest.raises(EnvironmentProblem, match="no matrix product in int8"):
        DeviceMatrixRate("int8", device="cpu")


class FakeWay:
    """Work of a device: begun at once, done when somebody waits; the whole overlaps, so that it takes half."""

    name: WayName = "batched"

    def __init__(self) -> None:
        self.clock = StageClock(wait=self.wait)
        self.waited, self.turns = 0, list[bool]()

    def wait(self) -> None:
        self.waited += 1
        time.sleep(0.002)

    def answer(self, dialogue: Dialogue) -> list[float]:
        self.turns.append(self.clock.running)
        with self.clock("prepare"):
            pass
        for stage in ("swin", "plm"):
            with self.clock(stage):  # type: ignore[arg-type]
                pass
        return [4.0 if self.clock.running else 2.0] * len(dialogue.utterances)


def test_stages_of_a_gpu_are_timed_in_turns_of_their_own(tmp_path: Path) -> None:
    dataset = meld_shaped(TINY, tmp_path, 1, 1)
    way = FakeWay()
    (measured,), _ = measure([Contender("trt", way, way.clock, "cuda")], dataset, 3, {})
    assert way.turns[-6:] == [False, True] * 3
    assert set(measured.answers_ms) == {2.0}  # none of the turns that waited
    assert measured.stages_ms.keys() == {"prepare", "swin", "plm"}
    assert measured.stages_ms["swin"] >= 3 * 2.0
    assert measured.stages_ms["prepare"] < 1.0  # the host's own work waits for nothing


def test_stages_of_the_host_need_no_second_turn(tmp_path: Path) -> None:
    way = FakeWay()
    way.clock.wait = None
    measure([Contender("ort", way, way.clock)], meld_shaped(TINY, tmp_path, 1, 1), 3, {})
    assert way.turns[-3:] == [True] * 3


def test_shares_are_of_each_graph_s_own_rate(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(TINY, tmp_path, 1, 1)
    precisions = choice_from_option("trt:swin=fp16,plm=int8", TINY).precisions
    n = sum(len(d.utterances) for d in dataset.dialogues)
    stages = dict.fromkeys(("swin", "plm", "fusion"), 10.0)
    only = Measurement("trt:fp16", "batched", [1.0] * n, [float(n)], stages, "cuda", precisions)  # type: ignore[arg-type]
    rates = {"cuda fp16": [8.0], "cuda fp32": [2.0, 4.0, 3.0]}
    made = report([only], rates, dataset, [20], bundle, 1, 1, copy_gb_per_s=4300.0)
    by_stage = {row.stage: row for row in made.stages}
    for stage, tflops in (("swin", 8.0), ("fusion", 3.0)):
        row = by_stage[stage]
        assert row.gflop is not None
        assert row.share_of_rate == pytest.approx(row.gflop / row.ms / tflops)
    assert by_stage["plm"].share_of_rate is None  # nobody measured int8
    assert [(row.name, row.gflops) for row in made.rates] == [("cuda fp16", 8000), ("cuda fp32", 3000)]
    assert made.copy_gb_per_s == 4300
    assert made.baseline == "dialogue cached, batched on trt:fp16"


def test_one_engine_in_two_precisions(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    choices = [choice_from_option(text, TINY) for text in ("ort", "torch", "ort:fp32")]
    with opened(bundle, choices, False, 4, 1) as found:
        assert [choice.name for choice in found.choices] == ["ort", "torch"]
        assert set(found.engines) == {"ort", "torch"}
    with open_engines(bundle, "ort") as engines:
        made = contenders_of(bundle, choices[0], engines, 4, 1)
    assert all(c.clock.wait is None for c in made)
    with open_engines(bundle, "ort") as engines:
        made = contenders_of(bundle, choice_from_option("trt", TINY), engines, 4, 1)
    assert all(c.clock.wait is not None for c in made)


def test_a_contender_that_fails_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    class Broken(FakeWay):
        def answer(self, dialogue: Dialogue) -> list[float]:
            raise UsageError(f"no engine for {dialogue.id}")

    dataset, good, bad = meld_shaped(TINY, tmp_path, 2, 1), FakeWay(), Broken()
    contenders = [Contender("bad", bad, bad.clock), Contender("good", good, good.clock)]
    dropped: list[str] = []
    measured, _ = measure(
        contenders,
        dataset,
        5,
        {},
        warm_up_rounds=1,
        enough=lambda: len(good.turns) > 8,
        dropped=lambda contender, error: dropped.append(f"{contender.engine}: {error.what}"),
    )
    assert dropped == ["bad: no engine for dia0"]
    assert [m.engine for m in measured] == ["good"]
    assert len(measured[0].dialogues_ms) == 2  # enough was asked after the first whole round
    with pytest.raises(UsageError, match="no engine"):
        measure(contenders, dataset, 1, {})
    none, _ = measure(contenders[1:], dataset, 1, {}, enough=lambda: True, dropped=lambda _, e: dropped.append(e.what))
    assert (none, dropped[-1]) == ([], "There was no time to warm it up.")


def test_time_may_be_over_while_a_contender_meets_its_shapes(tmp_path: Path) -> None:
    dataset, slow = meld_shaped(TINY, tmp_path, 3, 1), FakeWay()
    contenders, dropped = [Contender("slow", slow, slow.clock)], list[str]()
    measured, _ = measure(
        contenders,
        dataset,
        1,
        {},
        warm_up_rounds=100,
        enough=lambda: len(slow.turns) > 5,  # it settles in 4
        dropped=lambda contender, error: dropped.append(f"{contender.engine}: {error.what}"),
    )
    assert (measured, dropped) == ([], ["slow: There was no time to warm it up."])
    assert len(slow.turns) < 100


def test_a_call_is_measured_when_it_is_as_fast_as_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call compiles, the second captures a graph; neither tells how many make a sample."""
    calls: list[int] = []
    now = [0.0]
    monkeypatch.setattr(device, "perf_counter", lambda: now[0])

    def call() -> None:
        calls.append(len(calls))
        now[0] += 0.05 if len(calls) < 3 else 0.0001

    assert seconds_of_call(call, lambda: None, samples=2, most=10) < 0.01
    assert len(calls) == 2 + 1 + 2 * 10
