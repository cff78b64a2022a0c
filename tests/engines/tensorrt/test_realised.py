"""What was realised, told from samples of both forms of layer information, and from a real engine's own listing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.build import plan_from_onnx
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.products import Product
from fmmt_deploy.engines.tensorrt.profiles import default_profiles
from fmmt_deploy.engines.tensorrt.realised import Surprise, layers_from_inspector, realised_from_layers
from fmmt_deploy.engines.tensorrt.target import PORTABLE
from fmmt_deploy.errors import BundleError
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
