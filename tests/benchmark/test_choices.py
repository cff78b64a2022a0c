"""`--engine KIND[:PRECISION]`, the baseline beside it, and the rates that engines are held against."""

from collections.abc import Callable

import pytest

from fmmt_deploy.benchmark import device
from fmmt_deploy.benchmark.choices import choice_from_option, published_choice, rate_name
from fmmt_deploy.benchmark.device import DeviceMatrixRate, copy_rate, device_wait, seconds_of_call
from fmmt_deploy.benchmark.rates import copy_rate_for, rates_for
from fmmt_deploy.benchmark.sides import opened
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import EnvironmentProblem, UsageError
from fmmt_deploy.reference.presets import PRESETS
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
    choices = [choice_from_option(text, TINY) for text in ("ort", "ort:int8-fp32", "trt:fp16")]
    assert rates_for(choices, 1).keys() == {"cpu fp32"}
    assert copy_rate_for(choices) is None
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


def test_one_engine_in_two_precisions(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    choices = [choice_from_option(text, TINY) for text in ("ort", "torch", "ort:fp32")]
    with opened(bundle, choices, False, 4, 1) as found:
        assert [choice.name for choice in found.choices] == ["ort", "torch"]
        assert set(found.engines) == {"ort", "torch"}


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
