"""Quantising and dequantising in the interpreter: as `onnx.reference`, and for integers as ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.engines.emulated.operators import OPERATORS
from tests.engines.quantised import block, quantised_model

INT8, E4M3 = np.dtype(np.int8), np.dtype(ml_dtypes.float8_e4m3fn)
FLOATS = (np.dtype(np.float32), np.dtype(np.float16))
HARD = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.4, 127.5, 128, -128.4, -128.5, -129, 1e4, -1e4, 449, 464, 465]


def tensor(array: NDArray[Any]) -> torch.Tensor:
    if array.dtype == E4M3:
        return torch.from_numpy(array.view(np.uint8)).view(torch.float8_e4m3fn)
    return torch.from_numpy(array)


def numbers(value: torch.Tensor) -> NDArray[Any]:
    return value.float().numpy()


def reference(kind: str, inputs: Sequence[NDArray[Any]], **attributes: Any) -> onnx.ModelProto:
    """One node, all of whose inputs are the graph's."""
    names = ["x", "scale", "zero"][: len(inputs)]
    types = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
    values = [helper.make_tensor_value_info(*of) for of in zip(names, types, [a.shape for a in inputs], strict=True)]
    made = types[2] if kind == "QuantizeLinear" else types[1]
    y = helper.make_tensor_value_info("y", made, inputs[0].shape)
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **attributes)], "g", values, [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def referred(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    (answer,) = ReferenceEvaluator(model).run(None, dict(inputs))
    return np.asarray(answer)


def feeds(inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return dict(zip(("x", "scale", "zero"), inputs, strict=False))


@pytest.mark.parametrize("around", FLOATS, ids=str)
@pytest.mark.parametrize("stored", [INT8, E4M3], ids=str)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_as_the_reference(around: np.dtype[Any], stored: np.dtype[Any], axis: int | None) -> None:
    """Bit for bit, ties, subnormals and saturation included; integers also as ONNX Runtime has them."""
    rng = np.random.default_rng(0)
    width = len(HARD)
    x = np.concatenate([[HARD], rng.standard_normal((63, width)) * np.exp2(rng.integers(-12, 10, (63, width)))])
    scale = np.asarray(rng.uniform(0.5, 2, () if axis is None else x.shape[axis]))
    scale.flat[0] = 1
    given = [x.astype(around), scale.astype(around), np.zeros(scale.shape, stored)]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}

    quantize = reference("QuantizeLinear", given, **attributes)
    expected = referred(quantize, feeds(given))
    found = OPERATORS["QuantizeLinear"](attributes, *map(tensor, given))
    np.testing.assert_array_equal(numbers(found), expected.astype(np.float32))

    back = [expected, given[1], given[2]]
    dequantize = reference("DequantizeLinear", back, **attributes)
    restored = referred(dequantize, feeds(back))
    again = OPERATORS["DequantizeLinear"](attributes, *map(tensor, back))
    assert again.numpy().dtype == around == restored.dtype
    np.testing.assert_array_equal(again.numpy(), restored)

    if stored == INT8 and around == np.float32:
        for model, inputs, right in ((quantize, given, expected), (dequantize, back, restored)):
            session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            np.testing.assert_array_equal(session.run(None, feeds(inputs))[0], right)


def test_every_byte_is_dequantised() -> None:
    every = np.arange(256, dtype=np.uint8)
    for stored in (INT8, E4M3):
        x = every.view(stored)
        found = OPERATORS["DequantizeLinear"]({}, tensor(x), torch.tensor(0.5), None)
        np.testing.assert_array_equal(found.numpy(), x.astype(np.float32) / 2)


def test_other_zero_points() -> None:
    """Unsigned without one; with one it is added after rounding."""
    x, scale = torch.tensor([-300.0, -3.0, 0.4, 2.5, 3.5, 300.0]), torch.tensor(1.0)
    assert OPERATORS["QuantizeLinear"]({}, x, scale).tolist() == [0, 0, 0, 2, 4, 255]
    zero = torch.tensor(100, dtype=torch.int8)
    found = OPERATORS["QuantizeLinear"]({}, x, scale, zero)
    assert found.tolist() == [-128, 97, 100, 102, 104, 127]
    assert OPERATORS["DequantizeLinear"]({}, found, scale, zero).tolist() == [-228, -3, 0, 2, 4, 27]


def test_what_is_not_finite() -> None:
    x, scale = torch.tensor([float("nan"), float("inf"), -float("inf")]), torch.tensor(1.0)
    assert OPERATORS["QuantizeLinear"]({}, x, scale, torch.tensor(0, dtype=torch.int8)).tolist() == [0, 127, -128]
    low = OPERATORS["QuantizeLinear"]({}, x, scale, torch.zeros(()).to(torch.float8_e4m3fn)).float().tolist()
    assert np.isnan(low[0])
    assert low[1:] == [448, -448]


@pytest.mark.parametrize("around", ["fp32", "fp16"])
@pytest.mark.parametrize("operands", ["int8", "fp8"])
def test_whole_graphs(tmp_path: Path, around: Any, operands: Any) -> None:
    """As the reference; weights in the graph or beside it.

    Of float16 the reference rounds every step of a sum, so that now and then a quotient rounds to the next number.
    """
    model = quantised_model(block(around), operands, smooth=operands == "int8")
    x = np.random.default_rng(1).standard_normal((16, 1, 64), np.float32)
    expected = referred(model, {"vision": x})
    onnx.save(model, tmp_path / "inside.onnx")
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="g.safetensors", size_threshold=64)
    seen: dict[str, torch.dtype] = {}
    engine = engine_from_onnx("unimodal", tmp_path / "g.onnx", 1, lambda name, value: seen.update({name: value.dtype}))
    found = engine.run({"vision": x})["y"]
    np.testing.assert_array_equal(
        found, engine_from_onnx("unimodal", tmp_path / "inside.onnx", 1).run({"vision": x})["y"]
    )
    assert seen["x/quantize"] == {"int8": torch.int8, "fp8": torch.float8_e4m3fn}[operands]
    assert seen["block/q/weight"] == {"fp32": torch.float32, "fp16": torch.float16}[around]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if around == "fp32" else 0.1)
    assert np.abs(found - expected).mean() < 2e-3


def test_what_it_does_not_have() -> None:
    with pytest.raises(RuntimeError, match="only quantising that saturates"):
        OPERATORS["QuantizeLinear"]({"saturate": 0}, torch.ones(1), torch.ones(()))
    with pytest.raises(KeyError):
        OPERATORS["Cast"]({"to": TensorProto.FLOAT8E4M3FN}, torch.ones(1))
