"""FLOPs by precision, on products whose sizes are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from fmmt_deploy.bundle.products import (
    flops_by_precision,
    flops_share,
    matmul_flops,
    products_of,
    read_bytes,
    weight_bytes,
)
from fmmt_deploy.errors import BundleError
from tests.engines.quantised import block, quantised_model

FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


def model(low: int, weight: int) -> onnx.ModelProto:
    """(rows, 8) · (8, 4) in float32, then (rows, 4) · (4, 16) in the low type."""
    x = helper.make_tensor_value_info("x", FLOAT, ["faces", 8])
    y = helper.make_tensor_value_info("y", low, ["faces", 16])
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["z"], name="first"),
        helper.make_node("Cast", ["z"], ["c"], to=low),
        helper.make_node("MatMul", ["c", "w"], ["y"], name="second"),
    ]
    constants = [
        helper.make_tensor("v", FLOAT, [8, 4], bytes(4 * 32), raw=True),
        helper.make_tensor("w", weight, [4, 16], bytes(64 * (4 if weight == FLOAT else 2)), raw=True),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("kind", "name"), [(HALF, "fp16"), (BFLOAT, "bf16")])
def test_each_product_counts_for_its_type(tmp_path: Path, kind: int, name: str) -> None:
    made = model(kind, kind)
    assert flops_by_precision(products_of(made, {"faces": 3})) == {"fp32": 2 * 3 * 8 * 4, name: 2 * 3 * 4 * 16}
    assert flops_share(products_of(made, {"faces": 5})) == {name: pytest.approx(2 / 3), "fp32": pytest.approx(1 / 3)}
    assert next(iter(flops_share(products_of(made)))) == name
    onnx.save(made, tmp_path / "g.onnx")
    assert weight_bytes(tmp_path / "g.onnx") == 4 * 32 + 2 * 64
    assert matmul_flops(tmp_path / "g.onnx", {"faces": 3}) == 576


def test_mixed_types_are_no_precision() -> None:
    with pytest.raises(BundleError, match=r"second .*should multiply numbers of one .* type, found FLOAT, FLOAT16"):
        products_of(model(HALF, FLOAT), {"faces": 3})


@pytest.mark.parametrize(
    ("around", "operands", "precision", "wide"),
    [
        ("fp32", "int8", "int8-fp32", 4),
        ("fp16", "int8", "int8", 2),
        ("fp16", "fp8", "fp8", 2),
        ("fp32", "fp8", "fp8", 4),
    ],
)
def test_dequantised_operands_count_for_what_they_are_stored_in(
    tmp_path: Path, around: Any, operands: Any, precision: str, wide: int
) -> None:
    """Two products of (rows, 8) · (8, 16) in eight bits, and one of (rows, 16) · (16, 8) in the type around them."""
    made = quantised_model(block(around, 8, 16), operands, products=["block/q", "block/k"])
    flops = {product.node: (product.precision, product.flops) for product in products_of(made, {"utterances": 3})}
    low = (precision, 2 * 3 * 8 * 16)
    assert flops == {"block/q": low, "block/k": low, "block/o": (around, 2 * 3 * 16 * 8)}
    assert flops_share(products_of(made)) == {precision: pytest.approx(2 / 3), around: pytest.approx(1 / 3)}
    onnx.save(made, tmp_path / "g.onnx")
    scales = 2 * 16 * (wide + 1) if operands == "int8" else 2 * (wide + 1)  # with zero points
    weights = 2 * 8 * 16 + scales + (wide + 1) + 16 * 8 * wide
    assert weight_bytes(tmp_path / "g.onnx") == weights + (16 + 16 + 8) * wide + 2 * 8  # biases, and a shape


def changed(what: Callable[[onnx.NodeProto, dict[str, onnx.TensorProto]], object]) -> onnx.ModelProto:
    made = quantised_model(block("fp32", 8, 16))
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    what(next(node for node in made.graph.node if node.name == "block/q"), constants)
    return made


def unsigned(_: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    for name in ("quantized", "zero"):
        constants[f"block/q/weight/{name}"].data_type = TensorProto.UINT8


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (lambda node, _: node.input.__setitem__(0, "x"), "found FLOAT · INT8 in FLOAT"),
        (lambda node, _: node.input.__setitem__(1, "q.weight.T"), "found INT8 · FLOAT in FLOAT"),
        (unsigned, "found INT8 · UINT8 in FLOAT"),
    ],
)
def test_other_mixtures_are_no_precision(what: Any, found: str) -> None:
    made = changed(what)
    made.graph.initializer.append(helper.make_tensor("q.weight.T", FLOAT, [8, 16], bytes(4 * 128), raw=True))
    with pytest.raises(BundleError, match=rf"block/q .*both of its operands should be dequantised .*{found}"):
        products_of(made, {"utterances": 3})


def test_a_table_that_rows_are_taken_from_is_not_read_as_a_whole(tmp_path: Path) -> None:
    table = helper.make_tensor("table", FLOAT, [1000, 4], bytes(16_000), raw=True)
    weight = helper.make_tensor("w", FLOAT, [4, 8], bytes(128), raw=True)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [2])
    out = helper.make_tensor_value_info("y", FLOAT, [2, 8])
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [ids], [out], [table, weight])), tmp_path / "g.onnx")
    assert (weight_bytes(tmp_path / "g.onnx"), read_bytes(tmp_path / "g.onnx")) == (16_128, 128)
