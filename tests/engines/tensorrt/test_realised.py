"""What was realised, told from samples of both forms of layer information, and from a real engine's own listing."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tensorrt_rtx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import Product
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt import obtain
from fmmt_deploy.engines.tensorrt.build import Plan, plan_from_onnx
from fmmt_deploy.engines.tensorrt.layers import EngineLayer
from fmmt_deploy.engines.tensorrt.network import NetworkFacts
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import default_profiles
from fmmt_deploy.engines.tensorrt.realised import Surprise, layers_from_inspector, realised_from_layers
from fmmt_deploy.engines.tensorrt.target import PORTABLE
from fmmt_deploy.errors import BundleError, PrecisionError
from tests.engines.tensorrt.engine_files import KEY
from tests.models import TINY

SAMPLES = Path(__file__).parent / "samples"
PRODUCTS = (
    Product("block/Gemm", "Gemm", "fp16", 600),
    Product("block/MatMul", "MatMul", "fp16", 100),
    Product("block/MatMul_1", "MatMul", "fp16", 100),
    Product("head/Gemm", "Gemm", "fp32", 200),
)


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.json").read_text(encoding="utf-8")


def test_tensorrt_10() -> None:
    found = realised_from_layers(layers_from_inspector(sample("tensorrt-10")), PRODUCTS)
    assert found.flops_share == {"fp32": 0.2, "fp16": 0.8}
    assert (found.unseen_share, found.surprises) == (0, ())
    assert (found.attention_products, found.fused_products) == (2, 2)
    assert (found.casts, found.reformats) == (0, 1)
    assert found.layers == {"Reformat": 1, "gemm": 1, "kgen": 1, "CaskGemmMatrixMultiply": 1}
    assert found.layer_share == {"fp32": 0.25, "fp16": 0.75}


def test_tensorrt_11() -> None:
    """The attention is not fused, and in float32 though bfloat16 was asked for; the head is nowhere."""
    asked = tuple(replace(p, precision="bf16") if p.precision == "fp16" else p for p in PRODUCTS)
    found = realised_from_layers(layers_from_inspector(sample("tensorrt-11")), asked)
    assert found.flops_share == {"fp32": 0.2, "bf16": 0.6}
    assert found.unseen_share == 0.2
    assert found.surprises == (
        Surprise("block/MatMul", "bf16", ("fp32",)),
        Surprise("block/MatMul_1", "bf16", ("fp32",)),
    )
    assert (found.attention_products, found.fused_products) == (2, 0)
    assert (found.casts, found.reformats) == (1, 0)
    assert found.layer_share == {"fp32": 0.25, "bf16": 0.75}, "the shape_call computes nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "of no form known"),
        ("[]", "of no form known"),
        ('{"Layer": []}', "of no form known"),
        ('{"Layers": [3]}', "of no form known"),
        ('{"Layers": [{"Name": "a"}]}', "of no form known"),
        ('{"Layers": [{"Name": "a", "Inputs": [{"Name": "x"}], "Outputs": []}]}', "of no form known"),
        ('{"Layers": ["block/Gemm"]}', "without detailed layer information"),
    ],
)
def test_other_forms(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        layers_from_inspector(text)


@pytest.mark.parametrize(
    ("word", "precision"),
    [
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("Float", "fp32"),
        ("Row major linear FP16 format", "fp16"),
        ("Row major linear BF16 format", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear FP8 format", "fp8"),
        ("FP8", "fp8"),
        ("UInt8", None),
        ("Row major linear UInt8 format", None),
        ("Int64", None),
        ("Bool", None),
    ],
)
def test_words_for_types(word: str, precision: str | None) -> None:
    tensor = f'[{{"Name": "x", "Format/Datatype": "{word}"}}]'
    (layer,) = layers_from_inspector(f'{{"Layers": [{{"Name": "a", "Inputs": {tensor}, "Outputs": []}}]}}')
    assert layer.inputs == (() if precision is None else (precision,))


def test_a_real_engine(tiny_bundle: Callable[[str], Bundle]) -> None:
    """TensorRT-RTX lists what it built; all that is asked for in float32 is float32."""
    bundle = tiny_bundle("unimodal")
    profiles = default_profiles(TINY["unimodal"]).of("unimodal")
    plan = plan_from_onnx("unimodal", bundle.graph("unimodal"), profiles, "trt-rtx", BuildOptions(), PORTABLE)
    found = realised_from_layers(plan.layers, plan.products)
    assert found.surprises == ()
    assert found.flops_share.keys() == {"fp32"}
    assert found.flops_share["fp32"] + found.unseen_share == pytest.approx(1)
    assert found.unseen_share < 0.05


class FakeRuntime:
    """TensorRT's runtime on a GPU, with one engine, or none that it can load."""

    information: str | None = None

    def __init__(self, _: object) -> None: ...

    def deserialize_cuda_engine(self, _: memoryview) -> "FakeRuntime | None":
        return None if self.information is None else self

    def create_engine_inspector(self) -> "FakeRuntime":
        return self

    def get_engine_information(self, kind: object) -> str | None:
        assert kind == tensorrt_rtx.LayerInformationFormat.JSON
        return self.information


def unlisted() -> Plan:
    """A plan of whose layers the builder said nothing."""
    facts = NetworkFacts((), (), {}, {})
    return Plan(memoryview(b"plan"), facts, PRODUCTS, 1.0, ())


def test_tensorrt_s_engines_are_inspected(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It lists no layers when it builds, but builds on a GPU."""
    monkeypatch.setattr(tensorrt_rtx, "Runtime", FakeRuntime)
    monkeypatch.setattr(tensorrt_rtx, "__version__", "11.4.0")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    key = replace(KEY, flavour="trt")
    monkeypatch.setattr(FakeRuntime, "information", sample("tensorrt-10"))
    found = obtain._realised(unlisted(), key)
    assert found is not None
    assert found.fused_products == 2
    monkeypatch.setattr(FakeRuntime, "information", sample("tensorrt-11"))
    with pytest.raises(PrecisionError, match=r"block/Gemm of swin is asked for in fp16, in the engine it is in bf16"):
        obtain._realised(unlisted(), key)
    for unknown in ("{}", None):
        monkeypatch.setattr(FakeRuntime, "information", unknown)
        caplog.clear()
        assert obtain._realised(unlisted(), key) is None
        assert "what was realised in swin is not known" in caplog.text
    assert obtain._realised(unlisted(), KEY) is None, "TensorRT-RTX would need a GPU, and lists them itself"


@pytest.mark.parametrize(("precision", "word"), [("int8", "int8"), ("int8-fp32", "int8"), ("fp8", "fp8")])
def test_a_quantised_product_that_runs_in_half_is_a_surprise(precision: Precision, word: Precision) -> None:
    """One whose layer takes 8 bits, with a residual in half beside or without, is what was asked for."""
    product = Product("n", "Gemm", precision, 10)
    gemm = EngineLayer("n_myl0_4", "gemm", (word,), ("fp16",), ("n", "n/input", "n/weight"))
    after = EngineLayer("__myl_MulAddCast_myl0_5", "kgen", ("fp16",), ("fp32",), gemm.nodes)
    for layers in ([gemm, after], [replace(gemm, inputs=(word, "fp16")), after]):
        found = realised_from_layers(layers, [product])
        assert (found.flops_share, found.surprises) == ({precision: 1}, ())
    for inputs in (("fp16",), ("fp32",), ("fp16", "fp32")):
        found = realised_from_layers([replace(gemm, inputs=inputs), after], [product])
        assert found.surprises == (Surprise("n", precision, inputs),)
        assert found.flops_share == {inputs[0]: 1}
    other = replace(gemm, inputs=("fp8" if word == "int8" else "int8",))
    assert realised_from_layers([other], [product]).surprises, "other bits are not those asked for"


def test_layers_that_do_not_tell() -> None:
    """A generated layer that casts before it multiplies hides its type; the only layer of a node computes it."""
    product = Product("n", "Gemm", "fp32", 10)
    casting = EngineLayer("__myl_CasFcAdd_myl0_1", "runtime_fusion", ("fp16",), ("fp32",), ("n",))
    assert realised_from_layers([casting], [product]).unseen_share == 1
    expanded = EngineLayer("__myl_SlicSlicMulMulAdd_myl0_1", "kgen", ("fp32",), ("fp32",), ("n",))
    assert realised_from_layers([expanded], [product]).flops_share == {"fp32": 1}
    reshaped = replace(expanded, name="__myl_ReshTran_myl0_2")
    assert realised_from_layers([expanded, reshaped], [product]).unseen_share == 1
