"""What typed graphs are, read off the files by ONNX's own type inference and not by the pass's records."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import flops_by_precision, flops_share, products_of
from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.decisions import GraphView, decide
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.typed_graph import check_typed_graph
from fmmt_deploy.calibration.weights import lowered
from fmmt_deploy.engines.emulated.load import engine_from_onnx
from fmmt_deploy.engines.ort.load import engine_from_onnx as ort_engine_from_onnx
from fmmt_deploy.errors import BundleError, PrecisionError
from fmmt_deploy.export.export import graph_from_weights
from fmmt_deploy.parity.run import accept_graph
from fmmt_deploy.reference.loading import parts_of_model
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import GraphName
from tests.calibration.typed import GRAPHS_OF_MODELS, LOW, PRECISIONS, TypedFiles, inferred_kinds, makers, write_typed
from tests.export.test_graphs import hollow_weights
from tests.export.test_tensorrt import engine_bytes, profile
from tests.models import TINY

Bundles = Callable[[str], Bundle]
FLOAT = TensorProto.FLOAT

every_graph = pytest.mark.parametrize(("model", "graph"), GRAPHS_OF_MODELS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@every_graph
@every_precision
def test_valid_and_with_the_same_ends(
    typed_file: TypedFiles, tiny_bundle: Bundles, model: str, graph: GraphName, precision: Precision
) -> None:
    file, original = typed_file(model, graph, precision), tiny_bundle(model).graph(graph)
    onnx.checker.check_model(str(file), full_check=True)
    ends = [onnx.load(path, load_external_data=False).graph for path in (file, original)]
    assert [list(g.input) for g in ends[:1]] == [list(ends[1].input)]
    assert list(ends[0].output) == list(ends[1].output)
    names = [[node.name for node in g.node] for g in ends]
    assert [name for name in names[0] if "/to_" not in name] == names[1]


@every_graph
@every_precision
def test_what_must_stay_in_float32(typed_file: TypedFiles, model: str, graph: GraphName, precision: Precision) -> None:
    nodes, kinds = inferred_kinds(typed_file(model, graph, precision))
    made = makers(nodes)
    for node in nodes.node:
        floats = {
            kinds[name] for name in (*node.input, *node.output) if name and kinds[name] in (FLOAT, LOW[precision])
        }
        if node.op_type in ("LayerNormalization", "Softmax", "ReduceMax", "ReduceSum"):
            assert floats == {FLOAT}
        if node.op_type == "Softmax" and (before := made[node.input[0]]).op_type == "Add":
            assert {kinds[name] for name in before.input} == {FLOAT}  # scores and mask
        if node.name.startswith("gate/") and "/to_" not in node.name:
            assert LOW[precision] not in floats
        if node.op_type != "Cast":
            assert len(floats) <= 1 or node.op_type == "Shape"
    last = next(n for n in reversed(nodes.node) if n.op_type == "Gemm")
    if graph != "plm":
        assert {kinds[name] for name in (*last.input, *last.output)} == {FLOAT}


@every_graph
@every_precision
def test_attention_keeps_the_form_that_fuses(
    typed_file: TypedFiles, model: str, graph: GraphName, precision: Precision
) -> None:
    """MatMul – Cast – (Add) – Softmax – Cast – MatMul, the products low."""
    nodes, kinds = inferred_kinds(typed_file(model, graph, precision))
    made, found = makers(nodes), 0
    for node in nodes.node:
        chain = [node]
        if node.op_type != "MatMul" or kinds[node.output[0]] != LOW[precision]:
            continue
        while chain[-1].input[0] in made and len(chain) < 6:
            chain.append(made[chain[-1].input[0]])
        kinds_of_nodes = [n.op_type for n in chain]
        if kinds_of_nodes[:3] == ["MatMul", "Cast", "Softmax"]:
            found += 1
            rest = kinds_of_nodes[3:]
            assert rest[: 3 if rest[0] == "Add" else 2] in (["Add", "Cast", "MatMul"], ["Cast", "MatMul"])
    assert found == sum(node.op_type == "Gelu" for node in nodes.node)  # one a transformer layer


@every_graph
@every_precision
def test_no_cast_is_needless(typed_file: TypedFiles, model: str, graph: GraphName, precision: Precision) -> None:
    nodes, kinds = inferred_kinds(typed_file(model, graph, precision))
    made, floats = makers(nodes), {FLOAT, LOW[precision]}
    casts = [node for node in nodes.node if node.op_type == "Cast"]
    assert len({(node.input[0], kinds[node.output[0]]) for node in casts}) == len(casts)  # one a tensor and type
    read = {name for node in nodes.node for name in node.input}
    for node in casts:
        before = made.get(node.input[0])
        assert kinds[node.input[0]] != kinds[node.output[0]]
        assert node.output[0] in read
        if before is not None and before.op_type == "Cast":
            assert not {kinds[before.input[0]], kinds[node.input[0]], kinds[node.output[0]]} <= floats
    norms = sum(node.op_type in ("LayerNormalization", "Softmax") for node in nodes.node)
    ends = len(nodes.input) + len(nodes.output)
    assert len(casts) <= 2 * norms + ends + 10  # two around each, and at the borders


@every_graph
@every_precision
def test_emulated_answers_are_accepted(
    typed_file: TypedFiles, tiny_bundle: Bundles, model: str, graph: GraphName, precision: Precision
) -> None:
    stage = read_self_test(tiny_bundle(model).path / "self_test.npz")[graph]
    engine = engine_from_onnx(graph, typed_file(model, graph, precision), 1)
    accept_graph(graph, engine, stage, precision)
    for name, array in engine.run(stage.inputs).items():  # and it really was computed in fewer digits
        same = np.abs(array.astype(float) - stage.outputs[name]).max() < 1e-5
        assert same == (name == "kept")


@every_graph
def test_ort_opens_float16(typed_file: TypedFiles, tiny_bundle: Bundles, model: str, graph: GraphName) -> None:
    """It computes in float32 inside, so it is no judge, but it reads the same file the same way."""
    stage = read_self_test(tiny_bundle(model).path / "self_test.npz")[graph]
    accept_graph(graph, ort_engine_from_onnx(graph, typed_file(model, graph, "fp16"), 1), stage, "fp16")


def test_ort_refuses_bfloat16(typed_file: TypedFiles) -> None:
    """Its CPU provider has no bfloat16 products (1.32), and says so instead of computing something else."""
    with pytest.raises(BundleError, match="ONNX Runtime refuses"):
        ort_engine_from_onnx("plm", typed_file("roberta", "plm", "bf16"), 1)


@every_graph
@every_precision
def test_tensorrt_builds_it(
    typed_file: TypedFiles, tiny_bundle: Bundles, model: str, graph: GraphName, precision: Precision
) -> None:
    shapes, original = profile(TINY[model], graph), tiny_bundle(model).graph(graph)
    built = engine_bytes(typed_file(model, graph, precision), shapes)
    if graph == "swin":  # kernels are most of the other small models
        assert built < 0.85 * engine_bytes(original, shapes)


@every_graph
@every_precision
def test_weights_are_the_rounded_ones(
    typed_file: TypedFiles, tiny_bundle: Bundles, model: str, graph: GraphName, precision: Precision
) -> None:
    """PyTorch rounds, and the safetensors package reads."""
    file = typed_file(model, graph, precision)
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    weights = tiny_bundle(model).graph(graph).with_suffix(".safetensors")
    with safe_open(weights, "pt") as before, safe_open(file.with_suffix(".safetensors"), "pt") as after:
        kinds = set()
        for name in after.keys():  # noqa: SIM118 - it is no mapping
            tensor = after.get_tensor(name)
            kinds.add(tensor.dtype)
            whole, *rows = re.split(r"\[(\d+):(\d+)\]", name.removesuffix(f"/{precision}"))
            original = before.get_tensor(whole)[slice(*map(int, rows[:2])) if rows else slice(None)].reshape(
                tensor.shape
            )
            assert torch.equal(tensor, original.to(tensor.dtype))
    assert kinds == {low, torch.float32}
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {item.key: item.value for item in tensor.external_data}
            assert entry["location"] == file.with_suffix(".safetensors").name
            assert int(entry["offset"]) % (4 if tensor.data_type == FLOAT else 2) == 0


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
@every_precision
def test_share_of_flops_at_full_size(tmp_path: Path, graph: GraphName, precision: Precision) -> None:
    """Only form matters: weights are all zero and take no room."""
    with torch.device("meta"):
        part = parts_of_model(ReferenceModel(PRESETS["full"]))[graph]
    weights = hollow_weights(part, tmp_path / f"{graph}.safetensors")
    onnx.save(graph_from_weights(PRESETS["full"], graph, weights, 1.0, 0.2), tmp_path / f"{graph}.onnx")
    typed = draft_in(graph, tmp_path / f"{graph}.onnx", precision)
    shares = flops_share(products_of(typed.model))
    assert shares[precision] >= 0.99
    assert sum(shares.values()) == pytest.approx(1)
    original = onnx.load(tmp_path / f"{graph}.onnx", load_external_data=False)
    assert (
        sum(flops_by_precision(products_of(typed.model)).values()) == flops_by_precision(products_of(original))["fp32"]
    )
    assert typed.size_bytes < 0.55 * (tmp_path / f"{graph}.safetensors").stat().st_size


def test_nodes_are_kept_when_asked_for(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle, pattern = tiny_bundle("roberta"), "CrossModalTrans_TA.layers.0/Gemm*"
    file = write_typed(bundle, "fusion", "fp16", tmp_path, pattern)
    nodes, kinds = inferred_kinds(file)
    held = {n.name: kinds[n.output[0]] for n in nodes.node if n.op_type == "Gemm"}
    assert {kind for name, kind in held.items() if name.startswith("CrossModalTrans_TA.layers.0/")} == {FLOAT}
    assert held["CrossModalTrans_TA.layers.1/Gemm"] == TensorProto.FLOAT16
    stage = read_self_test(bundle.path / "self_test.npz")["fusion"]
    accept_graph("fusion", engine_from_onnx("fusion", file, 1), stage, "fp16")


def test_a_weight_that_is_needed_in_both_types_is_there_twice(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """The cross-modal layers are applied in both directions: one of them can stay in float32."""
    bundle = tiny_bundle("roberta")
    nodes = [n for n in onnx.load(bundle.graph("fusion"), load_external_data=False).graph.node if n.op_type == "Gemm"]
    weight, readers = Counter(n.input[1] for n in nodes).most_common(1)[0]
    assert readers == 2
    kept = next(n.name for n in nodes if n.input[1] == weight)
    file = write_typed(bundle, "fusion", "fp16", tmp_path, kept)
    with safe_open(file.with_suffix(".safetensors"), "pt") as stored:
        assert {stored.get_tensor(name).dtype for name in (weight, f"{weight}/fp16")} == {torch.float32, torch.float16}
    stage = read_self_test(bundle.path / "self_test.npz")["fusion"]
    accept_graph("fusion", engine_from_onnx("fusion", file, 1), stage, "fp16")


def model_of(*nodes: onnx.NodeProto, kind: int = FLOAT) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, kind, [2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_node_without_a_rule_is_named() -> None:
    view = GraphView(
        model_of(helper.make_node("Sin", ["x"], ["z"], name="wave"), helper.make_node("Identity", ["z"], ["y"]))
    )
    with pytest.raises(PrecisionError, match="'typed graph' has no rule for Sin 'wave'"):
        decide(view)


def test_only_float32_graphs_are_taken(typed_file: TypedFiles) -> None:
    with pytest.raises(PrecisionError, match=r"takes float32 graphs, but .* is float16"):
        draft_in("plm", typed_file("roberta", "plm", "fp16"), "fp16")
    with pytest.raises(ValueError, match="needs its own calibration"):
        draft_in("plm", typed_file("roberta", "plm", "fp16"), "int8")


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Cast", "x", "z", FLOAT)], "needless cast"),
        ([("Cast", "x", "w", TensorProto.FLOAT16), ("Cast", "w", "z", FLOAT)], "needless cast"),
        ([("Cast", "x", "z", TensorProto.FLOAT16)], "types clash"),
    ],
)
def test_postconditions_fire(nodes: list[tuple[str, str, str, int]], words: str) -> None:
    made = [helper.make_node(kind, [a], [b], name=b, to=to) for kind, a, b, to in nodes]
    model = model_of(*made, helper.make_node("Identity", ["z"], ["y"]))
    with pytest.raises(PrecisionError, match=words):
        check_typed_graph(model, model)
    with pytest.raises(PrecisionError, match="changed the graph's inputs"):
        check_typed_graph(model, model_of(kind=TensorProto.FLOAT16))


@every_precision
def test_numbers_are_rounded_as_pytorch_rounds_them(precision: Precision) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    limit = 60000 if precision == "fp16" else 3e38
    values = np.append(
        values[np.isfinite(values) & (np.abs(values) < limit)], np.float32([1 + 2**-8, 1 + 3 * 2**-8, 0])
    )
    expected = torch.from_numpy(values).to(torch.float16 if precision == "fp16" else torch.bfloat16)
    found = lowered(values, precision, "w")
    assert np.array_equal(found.view(np.uint16), expected.view(torch.uint16).numpy())


@pytest.mark.parametrize(
    ("precision", "value"), [("fp16", 65520.0), ("fp16", np.inf), ("bf16", 3.4e38), ("bf16", np.nan)]
)
def test_a_weight_that_overflows_is_named(precision: Precision, value: float) -> None:
    said = "overflows" if np.isfinite(value) else "has values that are not finite"
    with pytest.raises(PrecisionError, match=rf"The weight encoder\.w {said}") as caught:
        lowered(np.float32([1, value]), precision, "encoder.w")
    assert (caught.value.exit_code, caught.value.tensor) == (9, "encoder.w")
    assert lowered(np.float32([65519.0]), "fp16", "w").tolist() == [65504.0]


def test_every_decision_has_a_reason(tiny_bundle: Bundles) -> None:
    for model, architecture in TINY.items():
        assert isinstance(architecture, Architecture)
        for graph in tiny_bundle(model).manifest.graphs:
            original = onnx.load(tiny_bundle(model).graph(graph), load_external_data=False)
            decisions = decide(GraphView(original))
            assert [(d.node, d.operator) for d in decisions] == [(n.name, n.op_type) for n in original.graph.node]
            assert all(d.reason for d in decisions)


def test_constants_in_the_graph_are_typed_too(typed_file: TypedFiles) -> None:
    graph = onnx.load(typed_file("roberta", "fusion", "fp16"), load_external_data=False).graph
    halves = [t for t in graph.initializer if t.data_type == TensorProto.FLOAT16 and t.raw_data]
    assert halves
    assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in halves)
