"""The graphs are fit for TensorRT: which operators, how many of them, of which ranks, on which weights.

The full-size graphs are built on a file of nothing but a header, since only their form is looked at.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors import safe_open

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.products import matmul_flops, weight_bytes
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.export.builder import WeightFile
from fmmt_deploy.export.export import graph_from_weights
from fmmt_deploy.reference.loading import parts_of_model
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import GraphName
from tests.models import TINY, tiny_model

COMMON = {"Add", "Cast", "Gelu", "Gemm", "Identity", "LayerNormalization", "MatMul", "Mul", "Reshape", "Softmax"}
COMMON |= {"Transpose"}
ALLOWED: dict[GraphName, set[str]] = {
    "swin": COMMON | {"Gather", "Relu"},
    "plm": COMMON | {"Concat", "Gather", "Shape", "Slice", "Unsqueeze"},
    "fusion": COMMON
    | {"Concat", "Equal", "Gather", "GatherND", "Greater", "Less", "ReduceMax", "ReduceSum", "Shape", "Slice", "Sub"}
    | {"Tanh", "Unsqueeze"},
    "unimodal": COMMON | {"ReduceMax", "Sub", "Tanh", "Unsqueeze"},
}
"""All of them have been in TensorRT's parser for years, none depends on values for its shape or control flow."""

LARGE = 64 * 1024
"""Weights of so many bytes or more stay in the weight file."""

MODELS: dict[str, Architecture] = {**TINY, "full": PRESETS["full"]}
CASES: list[tuple[str, GraphName]] = [
    *((model, graph) for model in ("roberta", "bert", "full") for graph in ("swin", "plm", "fusion")),
    ("unimodal", "unimodal"),
]
Graphs = Callable[[str, GraphName], Path]


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Gives the ONNX file of a graph of `MODELS`, on weights that are all zero and take no room on the disk."""
    folder = tmp_path_factory.mktemp("graphs")

    def graph(model: str, name: GraphName) -> Path:
        path = folder / f"{model}-{name}.onnx"
        if not path.exists():
            with torch.device("meta"):
                part = parts_of_model(ReferenceModel(MODELS[model]))[name]
            weights = hollow_weights(part, path.with_suffix(".safetensors"))
            onnx.save(graph_from_weights(MODELS[model], name, weights, 1.0, 0.2), path)
        return path

    return graph


def hollow_weights(part: torch.nn.Module, path: Path) -> WeightFile:
    header, offset = {}, 0
    for name, tensor in part.state_dict().items():
        if tensor.is_floating_point():
            end = offset + 4 * tensor.numel()
            header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    return WeightFile.open(path)


def expected_counts(architecture: Architecture, name: GraphName) -> dict[str, int]:
    """By the papers: an attention has one Softmax and two products, a transformer layer one GELU and two LayerNorms."""
    swin, plm, fusion, unimodal = architecture.swin, architecture.plm, architecture.fusion, architecture.unimodal
    if name == "swin":
        blocks, merges = sum(swin.depths), len(swin.depths) - 1
        return counts(blocks, norms=2 * blocks + merges + 2, linears=6 * blocks + merges + 4)
    if name == "plm":
        return counts(plm.layers, norms=2 * plm.layers + 1, linears=6 * plm.layers + 1)
    if name == "unimodal":
        layers = unimodal.vision_layers
        return counts(layers, norms=2 * layers, linears=6 * layers + 4, pooling=1)
    encoders, crossed = fusion.audio_layers + fusion.vision_layers, 4 * fusion.crossmodal_layers
    norms = 2 * encoders + 3 * crossed + 4  # query and key rows are normalised apart; four stacks end in one each
    found = counts(encoders + crossed, norms=norms, linears=6 * (encoders + crossed) + 5, pooling=1)
    found["Softmax"] += 1  # of the faces' probabilities
    found["MatMul"] += 1  # counts kept faces, a triangle of ones
    return found


def counts(layers: int, norms: int, linears: int, pooling: int = 0) -> dict[str, int]:
    """Of transformer layers, and the additive attention that pools rows: a Softmax, a product and a Tanh."""
    return {
        "Gelu": layers,
        "LayerNormalization": norms,
        "Gemm": linears,
        "Softmax": layers + pooling,
        "MatMul": 2 * layers + pooling,
        "Tanh": pooling,
    }


@pytest.mark.parametrize(("model", "name"), CASES)
def test_operators(graph_file: Graphs, model: str, name: GraphName) -> None:
    graph = onnx.load(graph_file(model, name), load_external_data=False)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found.keys() <= ALLOWED[name]
    expected = expected_counts(MODELS[model], name)
    assert {kind: found[kind] for kind in expected} == expected
    assert [(opset.domain, 17 <= opset.version <= 20) for opset in graph.opset_import] == [("", True)]
    assert {node.domain for node in graph.graph.node} == {""}
    assert all(node.output[0].startswith(node.name) or node.op_type == "Identity" for node in graph.graph.node)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_ranks(graph_file: Graphs, model: str, name: GraphName) -> None:
    graph = onnx.load(graph_file(model, name), load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True, strict_mode=True).graph
    values = {value.name: value for value in (*inferred.value_info, *inferred.input, *inferred.output)}
    ranks = {name: len(value.type.tensor_type.shape.dim) for name, value in values.items()}
    nodes = {node.output[0]: node for node in graph.graph.node}
    assert nodes.keys() <= ranks.keys()
    assert {name for name, rank in ranks.items() if rank > 4 and not name.startswith("backbone.patch_embed/")} == set()

    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    fused = [node for node in products if is_attention(node, nodes)]
    expected = expected_counts(MODELS[model], name)["Gelu"]
    assert len(fused) == expected  # of the values; and as many of the scores before them
    for node in fused:
        assert ranks[node.output[0]] == ranks[node.input[0]] == ranks[node.input[1]] == 4
        scores = nodes[nodes[node.input[0]].input[0]]
        product = nodes[scores.input[0]] if scores.op_type == "Add" else scores
        assert product.op_type == "MatMul"
        assert [ranks[name] for name in (*product.input, product.output[0])] == [4, 4, 4]
        scaled = nodes[product.input[0]]
        while scaled.op_type in ("Reshape", "Transpose"):
            scaled = nodes[scaled.input[0]]
        assert scaled.op_type == "Mul"  # the scale is on the query, before the product


def is_attention(node: onnx.NodeProto, nodes: dict[str, onnx.NodeProto]) -> bool:
    before = nodes.get(node.input[0])
    return before is not None and before.op_type == "Softmax"


@pytest.mark.parametrize(("model", "name"), CASES)
def test_sizes_are_fixed_but_for_the_promised(graph_file: Graphs, model: str, name: GraphName) -> None:
    graph = onnx.load(graph_file(model, name), load_external_data=False).graph
    found = {v.name: dims(v) for v in (*graph.input, *graph.output)}
    architecture = MODELS[model]
    if name == "swin":
        expected = {"faces": ("faces", 224, 224, 3), "face_logits": ("faces", 7)}
    elif name == "plm":
        text = ("dialogues", "tokens")
        size = architecture.fusion.hidden_size
        expected = {"input_ids": text, "attention_mask": text, "token_states": (*text, size)}
    else:
        expected = expected_dims(architecture, name)
    assert found == expected


def dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)


def expected_dims(architecture: Architecture, name: GraphName) -> dict[str, tuple[int | str, ...]]:
    each = "utterances"
    sizes = architecture.fusion or architecture.unimodal
    rows = {"vision": (each, sizes.vision_length, sizes.vision_size), "vision_mask": (each, sizes.vision_length)}
    if name == "unimodal":
        return {**rows, "logits": (each, 7)}
    return {
        **rows,
        "token_states": ("dialogues", "tokens", sizes.hidden_size),
        **dict.fromkeys(("text_row", "text_start", "text_length", "audio_length"), (each,)),
        "audio": (each, sizes.audio_length, sizes.audio_size),
        "face_logits": ("faces", 7),
        "face_index": (each, sizes.vision_length),
        "noise": (each, sizes.vision_length, 7),
        "logits": (each, 7),
        "kept": (each, sizes.vision_length),
    }


@pytest.mark.parametrize("model", TINY)
def test_weights_are_the_checkpoints_own_bytes(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    bundle = tiny_bundle(model)
    for name, part in parts_of_model(tiny_model(model)).items():
        file = bundle.graph(name)
        state = {key: tensor.numpy() for key, tensor in part.state_dict().items()}
        outside = [t for t in onnx.load(file, load_external_data=False).graph.initializer if t.external_data]
        assert outside
        for tensor in outside:
            found = numpy_helper.to_array(tensor, str(file.parent))
            key, _, rows = tensor.name.partition("[")
            first, last = (int(row) for row in rows[:-1].split(":")) if rows else (0, None)
            assert found.tobytes() == state[key][first:last].tobytes(), tensor.name
        with safe_open(file.with_suffix(".safetensors"), "numpy") as weights:
            for key in weights.keys():  # noqa: SIM118  # it is no mapping
                assert weights.get_tensor(key).tobytes() == state[key].tobytes()


@pytest.mark.parametrize(("model", "name"), CASES)
def test_only_computed_constants_are_in_the_graph(graph_file: Graphs, model: str, name: GraphName) -> None:
    graph = onnx.load(graph_file(model, name), load_external_data=False).graph
    inside = [tensor for tensor in graph.initializer if not tensor.external_data]
    assert all(tensor.name.startswith("constant_") for tensor in inside)
    large = [tuple(tensor.dims) for tensor in inside if 4 * np.prod(tensor.dims) >= LARGE]
    if name == "swin":  # relative-position bias, with the shift mask in it: one a block
        assert all(shape[0] == 1 and shape[2:] == (49, 49) for shape in large)
        assert sum(len(tensor.dims) == 4 for tensor in inside) <= sum(MODELS[model].swin.depths)
    elif name == "fusion":  # sinusoids, and the triangle that counts kept faces
        sizes = MODELS[model].fusion
        lengths = (sizes.text_length, sizes.audio_length, sizes.vision_length, sizes.text_length + sizes.audio_length)
        faces = sizes.vision_length
        assert set(large) <= {(faces, faces), *((length, sizes.hidden_size) for length in lengths)}
    else:
        assert large == []


def test_flops_of_the_full_model_are_those_of_the_closed_formulas(graph_file: Graphs) -> None:
    """FLOPs = 2 × MAC of matrix products; formulas by hand from the papers' layers, not from our graphs."""
    tokens, h, f = 134, 1024, 4096
    plm = 24 * (2 * tokens * (4 * h * h + 2 * h * f) + 4 * tokens**2 * h) + 2 * tokens * h * 768
    dims = {"dialogues": 1, "tokens": tokens, "utterances": 1, "faces": 1}
    assert matmul_flops(graph_file("full", "plm"), dims) == plm
    assert plm == pytest.approx(83e9, rel=0.01)

    # Liu et al. (2021), equation 2: 4hwC² + 2M²hwC an attention, 8hwC² an MLP of ratio 4; merging 4C → 2C
    stages = [(56, 96, 2), (28, 192, 2), (14, 384, 6), (7, 768, 2)]
    macs = 56**2 * 48 * 96 + sum(n * (12 * g * g * c * c + 2 * 49 * g * g * c) for g, c, n in stages)
    macs += sum((g // 2) ** 2 * 4 * c * 2 * c for g, c, _ in stages[:3])
    macs += 49 * 768 * 512 + 512 * 64 + 64 * 7
    assert matmul_flops(graph_file("full", "swin"), dims) == 2 * macs
    assert 2 * macs == pytest.approx(9.0e9, rel=0.02)

    assert matmul_flops(graph_file("full", "fusion"), dims) == fusion_flops(768, 38, 132, 130)
    assert fusion_flops(768, 38, 132, 130) == pytest.approx(28e9, rel=0.05)


def fusion_flops(h: int, words: int, a: int, v: int) -> int:
    def encoder(rows: int, layers: int) -> int:
        return layers * (12 * rows * h * h + 2 * rows * rows * h)

    def crossed(x: int, other: int, layers: int = 2) -> int:
        return layers * (2 * x * h * h + 2 * other * h * h + 2 * x * other * h + 8 * x * h * h)

    pooled = words + a + v
    macs = a * 768 * h + v * (512 + 7) * h + encoder(a, 5) + encoder(v, 2)
    macs += crossed(words, a) + crossed(a, words) + crossed(words + a, v) + crossed(v, words + a)
    macs += pooled * (h * h + h + h) + 7 * h  # P, value and the weighted sum; the classifier
    return 2 * (macs + v * v)  # and how many faces are kept before each


def test_weights_of_the_full_model(graph_file: Graphs) -> None:
    """About 355 M parameters of RoBERTa-large, 47.5 M of Swin-T and its head, 70 M of fusion."""
    with torch.device("meta"):
        parts = parts_of_model(ReferenceModel(PRESETS["full"]))
    for name, millions in (("swin", 47.5), ("plm", 355), ("fusion", 70)):
        parameters = sum(p.numel() for p in parts[name].parameters())
        assert parameters / 1e6 == pytest.approx(millions, rel=0.15 if name == "fusion" else 0.02)
        # Constants beside the weights: biases of all windows, sinusoids; without what was folded into them.
        assert weight_bytes(graph_file("full", name)) == pytest.approx(4 * parameters, rel=0.03)
