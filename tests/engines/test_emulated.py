"""The interpreter computes what ONNX Runtime computes in float32, and rounds as `onnx.reference` and NumPy do."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.emulated.load import engine_from_onnx, engines_from_bundle
from fmmt_deploy.engines.emulated.operators import OPERATORS
from fmmt_deploy.engines.ort.load import engine_from_onnx as ort_engine_from_onnx
from fmmt_deploy.errors import BundleError, FmmtError, UsageError
from tests.models import TINY

Bundles = Callable[[str], Bundle]
FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
TYPES = {"fp16": (HALF, np.dtype(np.float16)), "bf16": (BFLOAT, np.dtype(ml_dtypes.bfloat16))}


@pytest.mark.parametrize("model", TINY)
def test_every_float32_graph_as_ort(tiny_bundle: Bundles, model: str) -> None:
    bundle = tiny_bundle(model)
    stages = read_self_test(bundle.path / "self_test.npz")
    engines = engines_from_bundle(bundle, dict.fromkeys(stages, "fp32"), threads=1)
    assert engines.keys() == stages.keys()
    for graph, stage in stages.items():
        ort = ort_engine_from_onnx(graph, bundle.graph(graph), 1)
        assert dict(engines[graph].inputs) == dict(ort.inputs)
        found, expected = engines[graph].run(stage.inputs), ort.run(stage.inputs)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_allclose(found[name].astype(float), array.astype(float), rtol=0, atol=1e-5)


def save(path: Path, nodes: list[onnx.NodeProto], values: dict[str, np.ndarray], rows: int, columns: int) -> Path:
    """A graph from `vision` float32 (rows, 1, columns) to `y` float32, of nodes between `x` and `y`, both (rows, …)."""
    vision = helper.make_tensor_value_info("vision", FLOAT, [rows, 1, columns])
    y = helper.make_tensor_value_info("y", FLOAT, ["rows", "columns"])
    values = {"shape": np.array([rows, columns]), **values}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    reshape = helper.make_node("Reshape", ["vision", "shape"], ["x"])
    graph = helper.make_graph([reshape, *nodes], "block", [vision], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return engine_from_onnx("unimodal", path, 1).run({"vision": x[:, None]})["y"]


@pytest.mark.parametrize("kind", ["Mul", "Add", "Sub", "Gelu", "Tanh", "Relu", "Softmax"])
def test_halves_round_as_in_the_reference(tmp_path: Path, kind: str) -> None:
    """Equal where NumPy rounds once; the reference takes some functions in several steps, each rounded (1 + erf)."""
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((8, 64), np.float32), rng.standard_normal((8, 64)).astype(np.float16)
    inputs = ["low", "other"] if kind in ("Mul", "Add", "Sub") else ["low"]
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=HALF),
        helper.make_node(kind, inputs, ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=FLOAT),
    ]
    path = save(tmp_path / "block.onnx", nodes, {"other": other}, 8, 64)
    expected = ReferenceEvaluator(str(path)).run(None, {"vision": x[:, None]})[0]
    found = run(path, x)
    if kind in ("Mul", "Add", "Sub", "Relu"):
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=4e-3, atol=5e-4)
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("precision", TYPES)
def test_products_are_rounded_once(tmp_path: Path, precision: str) -> None:
    """float64 on the rounded inputs, rounded to the type; float32's own order of sums may turn a tie."""
    kind, dtype = TYPES[precision]
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 512), (32, 512), (32,)))
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=kind),
        helper.make_node("Gemm", ["low", "w", "b"], ["z"], transB=1),
        helper.make_node("Cast", ["z"], ["y"], to=FLOAT),
    ]
    path = save(tmp_path / "block.onnx", nodes, {"w": w.astype(dtype), "b": b.astype(dtype)}, 16, 512)
    low = [array.astype(dtype).astype(np.float64) for array in (x, w, b)]
    exact = low[0] @ low[1].T + low[2]
    expected = exact.astype(np.float32).astype(dtype).astype(np.float32)
    found = run(path, x)
    assert (found == expected).mean() > 0.99
    np.testing.assert_allclose(found, exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=0)


def test_overflow_is_infinite_as_on_a_device(tmp_path: Path) -> None:
    """300² is beyond float16; ONNX Runtime's CPU provider would answer 300."""
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=HALF),
        helper.make_node("Mul", ["low", "low"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=FLOAT),
    ]
    path = save(tmp_path / "block.onnx", nodes, {}, 1, 2)
    assert run(path, np.array([[255.0, 300.0]], np.float32)).tolist() == [[65024.0, np.inf]]


def test_observers_see_inputs_and_every_node(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("unimodal")
    seen: dict[str, torch.dtype] = {}

    def observe(name: str, tensor: torch.Tensor) -> None:
        assert name not in seen
        seen[name] = tensor.dtype

    engine = engine_from_onnx("unimodal", bundle.graph("unimodal"), 1, observe)
    engine.run(read_self_test(bundle.path / "self_test.npz")["unimodal"].inputs)
    graph = onnx.load(bundle.graph("unimodal"), load_external_data=False).graph
    assert set(seen) == {*(v.name for v in graph.input), *(n.output[0] for n in graph.node)}
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.run({})


def test_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    assert "Sin" not in OPERATORS
    path = save(tmp_path / "sin.onnx", [helper.make_node("Sin", ["x"], ["y"], name="wave")], {}, 2, 2)
    with pytest.raises(BundleError, match="does not know the operator Sin of 'wave'"):
        engine_from_onnx("unimodal", path, 1)
    for content in (b"", b"not a graph"):
        (tmp_path / "broken.onnx").write_bytes(content)
        if content:
            with pytest.raises(BundleError, match="can't be read"):
                engine_from_onnx("unimodal", tmp_path / "broken.onnx", 1)


def test_short_weights_are_refused(tiny_bundle: Bundles, tmp_path: Path) -> None:
    file = tiny_bundle("unimodal").graph("unimodal")
    (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = file.with_suffix(".safetensors")
    (tmp_path / weights.name).write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"bytes in unimodal\.safetensors, found") as caught:
        engine_from_onnx("unimodal", tmp_path / file.name, 1)
    assert caught.value.exit_code == 8


def test_bad_inputs(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    inputs = dict(read_self_test(bundle.path / "self_test.npz")["plm"].inputs)
    engine = engine_from_onnx("plm", bundle.graph("plm"), 1)
    with pytest.raises(FmmtError, match=r"Gather .* can't be computed"):
        engine.run({**inputs, "input_ids": inputs["input_ids"] + 10**6})
    with pytest.raises(UsageError, match="missing"):
        engine.run({"input_ids": inputs["input_ids"]})
