"""Quantised graphs on ONNX Runtime's CPU provider: integers multiplied as such, and the interpreter's answers."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.emulated.load import engine_from_onnx as emulated_from_onnx
from fmmt_deploy.engines.ort import load, signedness
from fmmt_deploy.engines.ort.integer_products import integer_products
from fmmt_deploy.engines.ort.load import engine_from_onnx, is_quantised
from fmmt_deploy.engines.ort.signedness import Signedness, exact_signedness, explained, worst_case
from fmmt_deploy.errors import BundleError, PrecisionError
from fmmt_deploy.types import GraphName
from tests.engines.quantised import block, products_in, quantised_file, quantised_model

Bundles = Callable[[str], Bundle]
BOTH: tuple[Signedness, ...] = ("signed", "unsigned")
ROWS = np.random.default_rng(1).standard_normal((16, 1, 64), np.float32)


def use(monkeypatch: pytest.MonkeyPatch, weights: Signedness) -> None:
    """Has graphs lowered as on a CPU that needs this."""
    if weights == "signed" and exact_signedness(ort) == "unsigned":
        pytest.skip("this CPU has no VNNI: its products of unsigned and signed bytes saturate")
    monkeypatch.setattr(signedness, "exact_signedness", lambda _: weights)


def optimised(model: onnx.ModelProto, folder: Path, beside: Path | None = None) -> Counter[str]:
    """What ONNX Runtime makes of a graph: how many nodes there are of each operator."""
    options, file = ort.SessionOptions(), folder / "optimised.onnx"
    options.log_severity_level = 3
    options.optimized_model_filepath = str(file)
    if beside is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(beside))
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)


@pytest.mark.parametrize("weights", BOTH)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_a_block_as_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Signedness, smooth: bool, beside: bool
) -> None:
    use(monkeypatch, weights)
    path = tmp_path / "g.onnx"
    onnx.save(
        quantised_model(block(), smooth=smooth),
        path,
        save_as_external_data=beside,
        location="g.safetensors" if beside else None,
        size_threshold=256,
    )
    assert is_quantised(path)
    found = engine_from_onnx("unimodal", path, 1).run({"vision": ROWS})["y"]
    np.testing.assert_allclose(
        found, emulated_from_onnx("unimodal", path, 1).run({"vision": ROWS})["y"], rtol=0, atol=2e-6
    )
    lowered = integer_products("unimodal", path, weights)
    assert lowered.products == 3
    kinds = optimised(lowered.model, tmp_path, path.parent)
    assert (kinds["MatMulIntegerToFloat"], kinds["QuantizeLinear"]) == (3, 2)
    assert not kinds.keys() & {"DequantizeLinear", "Gemm", "MatMul", "FusedGemm", "BitwiseXor"}


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_every_product_of_every_graph(tiny_bundle: Bundles, tmp_path: Path, graph: GraphName) -> None:
    """From the integers that go into it, by NumPy in 64 bits; and the whole graph, far nearer than quantising is.

    No nearer: where float32's rounding moves a quotient over a tie, another integer goes on from there.
    """
    bundle = tiny_bundle("roberta")
    inputs = read_self_test(bundle.path / "self_test.npz")[graph].inputs
    path = quantised_file(bundle.graph(graph), tmp_path / f"{graph}.onnx", threshold=8.0)
    lowered = integer_products(graph, path, "signed").model
    products = [node for node in lowered.graph.node if node.op_type == "MatMulIntegerToFloat"]
    wanted = {node.name for node in products_in(onnx.load(bundle.graph(graph), load_external_data=False))}
    assert {node.name for node in products} == wanted
    assert optimised(lowered, tmp_path, tmp_path)["MatMulIntegerToFloat"] == len(wanted) > 5

    answers = watched(lowered, tmp_path, products, inputs)
    constants = {t.name: numpy_helper.to_array(t, str(tmp_path)) for t in lowered.graph.initializer}
    for node in products:
        left, right = answers[node.input[0]].astype(np.int64) - 128, constants[node.input[1]].astype(np.int64)
        exact = left @ right * (constants[node.input[2]] * constants[node.input[3]].astype(float))
        bias = constants[node.input[6]] if node.input[6] else 0
        np.testing.assert_allclose(answers[node.output[0]], exact + bias, rtol=1e-6, atol=1e-6 * np.abs(exact).max())

    found, expected, float32 = (
        engine.run(inputs)
        for engine in (
            engine_from_onnx(graph, path, 1),
            emulated_from_onnx(graph, path, 1),
            emulated_from_onnx(graph, bundle.graph(graph), 1),
        )
    )
    for name, array in expected.items():
        if array.dtype == np.float32:
            assert np.abs(found[name] - array).mean() < 0.5 * np.abs(float32[name] - array).mean()


def watched(
    model: onnx.ModelProto, folder: Path, products: list[onnx.NodeProto], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """What goes into products, and comes out of them."""
    if exact_signedness(ort) == "unsigned":
        pytest.skip("this CPU has no VNNI: its products of unsigned and signed bytes saturate")
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    kinds = {node.input[0]: TensorProto.UINT8 for node in products} | {n.output[0]: TensorProto.FLOAT for n in products}
    for name in kinds.keys() - known:
        seen.graph.output.append(helper.make_tensor_value_info(name, kinds[name], None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(kinds, session.run(list(kinds), dict(inputs)), strict=True))


def worst(path: Path, k: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A product whose operands are all as large as they can be, with scales of 1: a graph, inputs, exact answers."""
    signs = np.where(np.arange(columns) % 2, 1, -1)
    right = np.broadcast_to(127 * signs, (k, columns)).astype(np.int8)
    x = np.repeat(np.array([[127], [-128], [127], [-128], [1e9], [-1e9]], np.float32), k, axis=1)
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    nodes = [
        helper.make_node("Reshape", ["vision", "shape"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["left"]),
        helper.make_node("DequantizeLinear", ["w", "ones"], ["right"], axis=1),
        helper.make_node("Gemm", ["left", "right"], ["y"], name="worst"),
    ]
    constants = [
        one,
        numpy_helper.from_array(np.ones(columns, np.float32), "ones"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
        numpy_helper.from_array(np.array([-1, k]), "shape"),
        numpy_helper.from_array(right, "w"),
    ]
    vision = helper.make_tensor_value_info("vision", TensorProto.FLOAT, ["utterances", 1, k])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["utterances", columns])
    graph = helper.make_graph(nodes, "worst", [vision], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    exact = np.clip(x, -128, 127).astype(np.int64) @ right.astype(np.int64)
    assert np.abs(exact).max() < 2**24, "float32 has them all"
    return x[:, None], exact.astype(np.float32)


@pytest.mark.parametrize("weights", BOTH)
@pytest.mark.parametrize(("k", "columns"), [(4, 1), (96, 32), (1021, 37)])
def test_no_sum_saturates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Signedness, k: int, columns: int
) -> None:
    """Pairs of the largest products are beyond 16 bits; weights have no zero point and a graph no bias here."""
    use(monkeypatch, weights)
    x, exact = worst(tmp_path / "g.onnx", k, columns)
    engine = engine_from_onnx("unimodal", tmp_path / "g.onnx", 2)
    for rows in (slice(None), slice(0, 1), slice(1, 2)):
        np.testing.assert_array_equal(engine.run({"vision": x[rows]})["y"], exact[rows])


def test_the_probe_tells_what_a_cpu_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsigned weights are exact on every CPU; where signed ones are not, they are not used."""
    np.testing.assert_array_equal(*worst_case(ort, "unsigned"))
    found, exact = worst_case(ort, "signed")
    assert exact.max() > 2**15, "it is beyond 16 bits"
    assert exact_signedness(ort) == ("signed" if np.array_equal(found, exact) else "unsigned")
    exact_signedness.cache_clear()
    saturated = np.clip(exact, -(2**15), 2**15 - 1)
    monkeypatch.setattr(signedness, "worst_case", lambda *_: (saturated, exact))
    assert exact_signedness(ort) == "unsigned"
    assert exact_signedness(ort) == "unsigned", "and it is asked once"
    exact_signedness.cache_clear()
    assert [("no VNNI" in explained(weights)) for weights in BOTH] == [False, True]


def test_weights_of_two_products_are_there_once(tmp_path: Path) -> None:
    """Both by name, and referred to where they are."""
    model = block()
    for node in model.graph.node:
        if node.name == "block/k":
            node.input[1] = "q.weight"
    made = quantised_model(model)
    for node in made.graph.node:
        if node.name == "block/k/weight":
            node.input[0] = "block/q/weight/quantized"
    onnx.save(made, tmp_path / "g.onnx", save_as_external_data=True, location="g.safetensors", size_threshold=64)
    for weights in BOTH:
        lowered = integer_products("unimodal", tmp_path / "g.onnx", weights).model
        stored = [t for t in lowered.graph.initializer if t.data_type in (TensorProto.INT8, TensorProto.UINT8)]
        external = [t for t in stored if t.data_location == TensorProto.EXTERNAL]
        assert sorted(tensor.name for tensor in external) == ["block/o/weight/quantized", "block/q/weight/quantized"]
        assert lowered.ByteSize() < 5000
        assert sum(node.op_type == "BitwiseXor" for node in lowered.graph.node) == (2 if weights == "unsigned" else 0)


@pytest.mark.parametrize(("around", "operands"), [("fp16", "int8"), ("fp16", "fp8"), ("fp32", "fp8")])
def test_other_eight_bits_are_refused(tmp_path: Path, around: Any, operands: Any) -> None:
    onnx.save(quantised_model(block(around), operands), tmp_path / "g.onnx")
    with pytest.raises(PrecisionError, match="can't multiply the operands of unimodal") as caught:
        engine_from_onnx("unimodal", tmp_path / "g.onnx", 1)
    assert caught.value.exit_code == 9
    assert "int8-fp32" in caught.value.fix


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in (node.name, node.output[0]))


def constant(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    place = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    place.CopyFrom(numpy_helper.from_array(values, name))


def half_quantised(model: onnx.ModelProto) -> None:
    node(model, "block/q").input[0] = "x"


def scaled(model: onnx.ModelProto) -> None:
    node(model, "block/q").attribute.append(helper.make_attribute("alpha", 2.0))


def by_rows(model: onnx.ModelProto) -> None:
    node(model, "block/o/weight").attribute[0].i = 0


def with_zero_points(model: onnx.ModelProto) -> None:
    constant(model, "x/zero", np.array(3, np.int8))


def with_a_scale_a_column(model: onnx.ModelProto) -> None:
    constant(model, "x/scale", np.full(64, 0.1, np.float32))
    constant(model, "x/zero", np.zeros(64, np.int8))


def with_a_wide_bias(model: onnx.ModelProto) -> None:
    constant(model, "o.bias", np.zeros(1, np.float32))


def read_by_a_sum(model: onnx.ModelProto) -> None:
    node(model, "gelu").input[0] = "block/q/input"


def given_out(model: onnx.ModelProto) -> None:
    node(model, "up").CopyFrom(helper.make_node("Identity", ["block/o/input"], ["y"], name="up"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (half_quantised, r"can't take block/q of unimodal: one operand should be quantised"),
        (scaled, r"can't take block/q of unimodal: .* neither scaled"),
        (by_rows, r"can't take block/o of unimodal: its weights should be a constant \(K, N\)"),
        (with_zero_points, r"can't take x/quantize of unimodal: its zero point should be 0"),
        (with_a_scale_a_column, r"can't take x/quantize of unimodal: it should have one scale"),
        (with_a_wide_bias, r"can't take block/o of unimodal: its bias should be a constant \(N,\)"),
        (read_by_a_sum, r"that is no operand of a Gemm: see g"),
        (given_out, r"that is no operand of a Gemm: see y"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str) -> None:
    model = quantised_model(block())
    change(model)
    onnx.save(model, tmp_path / "g.onnx")
    with pytest.raises(BundleError, match=message) as caught:
        engine_from_onnx("unimodal", tmp_path / "g.onnx", 1)
    assert caught.value.exit_code == 8
    assert caught.value.path == str(tmp_path / "g.onnx")


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"\x00QuantizeLinear")
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        engine_from_onnx("unimodal", tmp_path / "g.onnx", 1)
    assert not is_quantised(tmp_path / "none.onnx")


def test_plain_graphs_are_not_rewritten(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_lowered", lambda *_: pytest.fail("it has nothing quantised"))
    path = tiny_bundle("unimodal").graph("unimodal")
    assert not is_quantised(path)
    engine_from_onnx("unimodal", path, 1)
