"""The pass that gives products 8-bit operands: what is in its graphs, read with ONNX, and computed by others."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import flops_share, products_of
from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.draft import write_draft
from fmmt_deploy.calibration.formats import EIGHT_BITS, FORMATS
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.quantised import check_quantised_graph
from fmmt_deploy.calibration.read_back import calibration_from_graph
from fmmt_deploy.calibration.scales import Calibration, InputScale
from fmmt_deploy.calibration.sites import Site, sites_of
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.errors import BundleError, PrecisionError, UsageError
from fmmt_deploy.types import GraphName
from tests.calibration.typed import GRAPHS_OF_MODELS, inferred_kinds, makers

Bundles = Callable[[str], Bundle]
KINDS = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}

every_graph = pytest.mark.parametrize(("model", "graph"), GRAPHS_OF_MODELS)
every_precision = pytest.mark.parametrize("precision", EIGHT_BITS)


def sites(bundle: Bundle, graph: GraphName) -> tuple[Site, ...]:
    return sites_of(GraphView(onnx.load(bundle.graph(graph), load_external_data=False)))


def observed(bundle: Bundle, graph: GraphName, smooth: bool = False) -> Calibration:
    """Thresholds that the bundle's self-test reaches."""
    seen: dict[str, float] = {}
    stage = read_self_test(bundle.path / "self_test.npz")[graph]
    engine_from_onnx(
        graph,
        bundle.graph(graph),
        1,
        lambda n, t: seen.__setitem__(n, float(t.float().abs().max()) if t.numel() else 0.0),
    ).run(stage.inputs)
    rng = np.random.default_rng(0)
    found = {}
    for site in sites(bundle, graph):
        smoothing = rng.uniform(0.5, 2, site.rows).astype(np.float32) if smooth else None
        found[site.input] = InputScale(site.input, (2 if smooth else 1) * seen[site.input] or 1.0, smoothing)
    return Calibration(graph, found)


def write(bundle: Bundle, graph: GraphName, precision: Precision, calibration: Calibration, folder: Path) -> Path:
    file = folder / f"{graph}.onnx"
    write_draft(draft_in(graph, bundle.graph(graph), precision, (), calibration), file)
    return file


@every_graph
@every_precision
def test_form(tiny_bundle: Bundles, tmp_path: Path, model: str, graph: GraphName, precision: Precision) -> None:
    """Both operands of every product of weights, but those said; symmetric; nothing else; biases are no integers."""
    bundle, form = tiny_bundle(model), FORMATS[precision]
    file = write(bundle, graph, precision, observed(bundle, graph), tmp_path)
    onnx.checker.check_model(str(file), full_check=True)
    nodes, kinds = inferred_kinds(file)
    made = makers(nodes)
    constants = {tensor.name: tensor for tensor in nodes.initializer}
    eight = KINDS[form.operands or ""]
    quantised = [n for n in nodes.node if n.op_type == "Gemm" and n.input[0] in made and is_dq(made[n.input[0]])]
    assert [n.name for n in quantised] == [site.node for site in sites(bundle, graph)]
    around = TensorProto.FLOAT if form.around == "fp32" else TensorProto.FLOAT16
    for node in quantised:
        operands = [made[name] for name in node.input[:2]]
        assert [n.op_type for n in operands] == ["DequantizeLinear"] * 2
        assert [kinds[n.input[0]] for n in operands] == [eight] * 2
        assert {kinds[name] for name in (*node.input, *node.output)} == {around}
        assert made[operands[0].input[0]].op_type == "QuantizeLinear"
        assert len(constants[operands[1].input[1]].dims) == (1 if form.operands == "int8" else 0)
        for operand in operands:
            assert not any(constants[operand.input[2]].raw_data)
    assert sum(map(is_dq, nodes.node)) == 2 * len(quantised)
    tensors = {made[made[n.input[0]].input[0]].name for n in quantised}
    assert sum(n.op_type == "QuantizeLinear" for n in nodes.node) == len(tensors)  # one a tensor: Q, K, V share it
    shares = flops_share(products_of(onnx.load(file, load_external_data=False)))
    assert shares[precision] > 0.5


def is_dq(node: onnx.NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"


@every_graph
def test_weights(tiny_bundle: Bundles, tmp_path: Path, model: str, graph: GraphName) -> None:
    """Within half a step of the float32 ones, each column reaching 127; and the same in both int8 precisions."""
    bundle, read = tiny_bundle(model), {}
    for precision in ("int8", "int8-fp32"):
        (tmp_path / precision).mkdir()
        file = write(bundle, graph, precision, observed(bundle, graph), tmp_path / precision)
        read[precision] = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    originals = {t.name: numpy_helper.to_array(t) for t in onnx.load(bundle.graph(graph)).graph.initializer}
    for site in sites(bundle, graph):
        found, scale = read["int8-fp32"][f"{site.weight}/int8"], read["int8-fp32"][f"{site.weight}/int8/scale"]
        assert np.array_equal(found, read["int8"][f"{site.weight}/int8"])
        assert np.array_equal(scale, read["int8"][f"{site.weight}/int8/scale"].astype(np.float32))
        assert np.abs(found * scale - originals[site.weight].T).max() <= (0.5 + 1e-6) * scale.max()
        reached = np.abs(found.astype(int)).max(axis=0)
        assert reached.max() <= 127
        assert (reached[np.abs(originals[site.weight]).max(axis=1) > 1e-3] >= 126).all()


def test_weights_of_fp8(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    file = write(bundle, "plm", "fp8", observed(bundle, "plm"), tmp_path)
    constants = {t.name: t for t in onnx.load(file).graph.initializer}
    original = {t.name: numpy_helper.to_array(t) for t in onnx.load(bundle.graph("plm")).graph.initializer}
    for site in sites(bundle, "plm"):
        tensor = constants[f"{site.weight}/fp8"]
        found = np.frombuffer(tensor.raw_data, ml_dtypes.float8_e4m3fn).reshape(tensor.dims).astype(np.float32)
        scale = numpy_helper.to_array(constants[f"{site.weight}/fp8/scale"]).astype(np.float32)
        assert scale.shape == ()
        error = np.abs(found * scale - original[site.weight].T)
        assert (error <= np.abs(original[site.weight].T) / 16 * (1 + 1e-6) + scale * 2**-10).all()  # 3 bits of fraction


@every_graph
@every_precision
@pytest.mark.parametrize("smooth", [False, True])
def test_answers(
    tiny_bundle: Bundles, tmp_path: Path, model: str, graph: GraphName, precision: Precision, smooth: bool
) -> None:
    """Close to float32's, smoothed or not: Σ signal² over Σ noise² is above 15 dB, and not infinite."""
    bundle = tiny_bundle(model)
    stage = read_self_test(bundle.path / "self_test.npz")[graph]
    file = write(bundle, graph, precision, observed(bundle, graph, smooth), tmp_path)
    found = engine_from_onnx(graph, file, 1).run(stage.inputs)
    for name in set(found) - {"kept"}:
        noise = found[name].astype(float) - stage.outputs[name]
        sqnr = 10 * np.log10(np.square(stage.outputs[name].astype(float)).sum() / np.square(noise).sum())
        assert 15 < sqnr < 80  # of float32 itself 120 and more


@every_precision
@pytest.mark.parametrize("smooth", [False, True])
def test_read_back(tiny_bundle: Bundles, tmp_path: Path, precision: Precision, smooth: bool) -> None:
    """The calibration that is read off a graph makes the same graph again, bit for bit."""
    bundle = tiny_bundle("roberta")
    calibration = observed(bundle, "plm", smooth)
    wide = frozenset([sites(bundle, "plm")[3].node]) if precision == "int8" else frozenset()
    calibration = Calibration("plm", calibration.inputs, wide)
    file = write(bundle, "plm", precision, calibration, tmp_path)
    again = calibration_from_graph("plm", file)
    assert again.wide == wide
    (tmp_path / "again").mkdir()
    second = write(bundle, "plm", precision, again, tmp_path / "again")
    assert second.read_bytes() == file.read_bytes()
    assert second.with_suffix(".safetensors").read_bytes() == file.with_suffix(".safetensors").read_bytes()
    with pytest.raises(BundleError, match="no products with operands of 8 bits"):
        calibration_from_graph("plm", bundle.graph("plm"))


def test_wide_products_have_float32_around(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    name = sites(bundle, "plm")[5].node
    calibration = Calibration("plm", observed(bundle, "plm").inputs, frozenset([name]))
    nodes, kinds = inferred_kinds(write(bundle, "plm", "int8", calibration, tmp_path))
    product = next(node for node in nodes.node if node.name == name)
    assert {kinds[n] for n in (*product.input, *product.output)} == {TensorProto.FLOAT}
    assert {kinds[makers(nodes)[n].input[0]] for n in product.input[:2]} == {TensorProto.INT8}


def test_products_are_kept_out_when_asked_for(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    path, calibration = bundle.graph("plm"), observed(bundle, "plm")
    kept = draft_in("plm", path, "int8-fp32", ["plm.encoder.layer.0/*"], calibration)
    precisions = {p.node: p.precision for p in products_of(kept.model)}
    assert {p for n, p in precisions.items() if n.startswith("plm.encoder.layer.0/")} == {"fp32"}
    assert precisions["plm.encoder.layer.1/Gemm"] == "int8-fp32"
    with pytest.raises(UsageError, match=r"'plm.encoder.layer.9/\*' fits no product"):
        draft_in("plm", path, "int8", ["plm.encoder.layer.9/*"], calibration)


@pytest.mark.parametrize(
    ("threshold", "smoothing", "said"),
    [(0.0, None, "has the threshold 0.0"), (np.nan, None, "threshold nan"), (1.0, np.ones(3, np.float32), r"\(3,\)")],
)
def test_calibration_that_makes_no_sense(
    tiny_bundle: Bundles, threshold: float, smoothing: np.ndarray | None, said: str
) -> None:
    bundle = tiny_bundle("roberta")
    inputs = dict(observed(bundle, "plm").inputs)
    first = sites(bundle, "plm")[0].input
    inputs[first] = InputScale(first, threshold, smoothing)
    with pytest.raises(PrecisionError, match=said) as caught:
        draft_in("plm", bundle.graph("plm"), "int8", (), Calibration("plm", inputs))
    assert caught.value.tensor == first
    del inputs[first]
    with pytest.raises(PrecisionError, match="has no threshold"):
        draft_in("plm", bundle.graph("plm"), "int8", (), Calibration("plm", inputs))
    with pytest.raises(ValueError, match="needs its own calibration"):
        draft_in("plm", bundle.graph("plm"), "int8", (), Calibration("swin", inputs))


def test_a_graph_that_is_quantised_already(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    calibration = observed(bundle, "plm")
    file = write(bundle, "plm", "int8-fp32", calibration, tmp_path)
    with pytest.raises(PrecisionError, match="plm is quantised already"):
        draft_in("plm", file, "int8-fp32", (), calibration)


def test_postconditions_fire(tiny_bundle: Bundles) -> None:
    """A product with one operand of 8 bits, one that nobody asked for, one in another type."""
    bundle = tiny_bundle("roberta")
    found = sites(bundle, "plm")
    model = draft_in("plm", bundle.graph("plm"), "int8-fp32", (), observed(bundle, "plm")).model
    check_quantised_graph(model, found, "int8")
    with pytest.raises(PrecisionError, match=r"left .* half done"):
        check_quantised_graph(model, found[1:], "int8")
    with pytest.raises(PrecisionError, match="other operands"):
        check_quantised_graph(model, found, "fp8")
    half = onnx.ModelProto()
    half.CopyFrom(model)
    product = next(n for n in half.graph.node if n.name == found[0].node)
    product.input[0] = found[0].input
    with pytest.raises(PrecisionError, match=r"left .* half done"):
        check_quantised_graph(half, found, "int8")
