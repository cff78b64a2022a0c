"""Eight bits, against ml_dtypes number by number and against ONNX's reference of QuantizeLinear."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fmmt_deploy.calibration.formats import LARGEST, EightBits
from fmmt_deploy.calibration.quantisers import levels, quantised, rounded, sqnr_db

NUMBERS = arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e4, 1e4, width=32))
SCALES = st.floats(0.0009765625, 1000, width=32)
TYPES = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def by_onnx(values: np.ndarray, scale: float, operands: EightBits) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear by onnx.reference."""
    zero = helper.make_tensor("zero", TYPES[operands], [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(values)]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [zero, helper.make_tensor("scale", 1, [], [scale])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return ReferenceEvaluator(model).run(None, {"x": values})[0]


@pytest.mark.parametrize("operands", ["int8", "fp8"])
def test_rounding_is_quantizelinears(operands: EightBits) -> None:
    rng = np.random.default_rng(3)
    ties = np.array([0.5, 1.5, 2.5, -0.5, -3.5, 17, 19, 21, 2.0**-10, 3 * 2.0**-10], np.float32)
    values = np.concatenate([ties, rng.normal(0, 40, 2000).astype(np.float32), np.float32([500, -500, 1e6, 0])])
    for scale in (1.0, 0.37):
        within = values[values > -127.4 * scale] if operands == "int8" else values  # ONNX's int8 goes on to -128
        np.testing.assert_array_equal(rounded(within, scale, operands), by_onnx(within, scale, operands))


def test_int8_is_symmetric_and_ties_go_to_even() -> None:
    found = quantised([-1e9, -127.6, -2.5, -0.5, 0.5, 1.5, 2.5, 126.5, 1e9], 1.0, "int8")
    assert found.dtype == np.int8
    assert found.tolist() == [-127, -127, -2, 0, 0, 2, 2, 126, 127]


def test_fp8_saturates_instead_of_nan() -> None:
    found = quantised([449.0, 1e9, -np.inf, np.nan], 1.0, "fp8").astype(np.float32)
    np.testing.assert_array_equal(found, np.float32([448, 448, -448, np.nan]))


def test_nan_has_no_int8() -> None:
    with pytest.raises(ValueError, match="NaN has no int8"):
        quantised([1.0, np.nan], 1.0, "int8")


@pytest.mark.parametrize("operands", ["int8", "fp8"])
@given(values=NUMBERS, scale=SCALES)
def test_the_quick_way_is_quantising_and_dequantising(operands: EightBits, values: np.ndarray, scale: float) -> None:
    slow = quantised(values, scale, operands).astype(np.float32) * np.float32(scale)
    np.testing.assert_array_equal(rounded(values, scale, operands), slow)


def test_quick_e4m3_on_every_number_and_between_any_two() -> None:
    grid = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    grid = np.sort(grid[np.isfinite(grid)])
    middles = (grid[1:] + grid[:-1]) / 2
    near = np.concatenate([grid, middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, -grid[-1])])
    np.testing.assert_array_equal(rounded(near, 1, "fp8"), near.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))


@pytest.mark.parametrize("operands", ["int8", "fp8"])
def test_a_scale_a_column(operands: EightBits) -> None:
    weight, scales = np.float32([[1, -20], [0.3, 7.7]]), np.float32([0.01, 0.2])
    whole = rounded(weight, scales, operands)
    for column in range(2):
        np.testing.assert_array_equal(whole[:, column], rounded(weight[:, column], scales[column], operands))


def test_levels_are_all_numbers_that_are_not_negative() -> None:
    assert levels("int8").tolist() == list(range(128))
    # OCP 8-bit floating point specification, table 2: smallest 2^-9, smallest normal 2^-6, largest 448 = S.1111.110
    assert levels("fp8")[[0, 1, 8, -1]].tolist() == [0, 2**-9, 2**-6, 448]
    assert len(levels("fp8")) == 127
    assert all(levels(operands)[-1] == LARGEST[operands] for operands in ("int8", "fp8"))


def test_sqnr_of_a_uniform_signal() -> None:
    # A full-scale uniform signal in b bits: 6.02·b dB (Bennett, 1948); int8 with a sign: 127.5 steps a side
    values = np.random.default_rng(0).uniform(-127.5, 127.5, 200_000)
    assert sqnr_db(values, rounded(values, 1, "int8")) == pytest.approx(20 * math.log10(255), abs=0.1)


def test_sqnr_by_hand_and_at_its_ends() -> None:
    assert sqnr_db([3, 4], [3, 4.5]) == pytest.approx(20)
    assert sqnr_db([1, 2], [1, 2]) == sqnr_db([0], [0]) == math.inf
    assert sqnr_db([0, 0], [0, 1]) == sqnr_db([1], [np.nan]) == sqnr_db([1], [np.inf]) == -math.inf
    assert math.isnan(sqnr_db([np.nan], [1]))
    assert math.isnan(sqnr_db([np.inf], [1]))
