"""FLOPs by precision, on products whose sizes are known."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fmmt_deploy.bundle.products import flops_by_precision, flops_share, matmul_flops, products_of, weight_bytes
from fmmt_deploy.errors import BundleError

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
