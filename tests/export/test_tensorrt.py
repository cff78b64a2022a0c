"""Every graph parses and builds with TensorRT-RTX, which needs no GPU for that."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorrt_rtx as trt

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.flavour import logger as process_logger
from fmmt_deploy.types import GraphName
from tests.models import TINY

Profile = dict[str, list[tuple[int, ...]]]
"""For each input with a dynamic axis the smallest, usual and largest shape."""


def profile(architecture: Architecture, graph: GraphName) -> Profile:
    if graph == "swin":
        return {"faces": [(n, 224, 224, 3) for n in (1, 8, 32)]}
    if graph == "plm":
        return {name: [(1, 2), (8, 128), (32, 512)] for name in ("input_ids", "attention_mask")}
    sizes = architecture.fusion or architecture.unimodal
    rows: dict[str, tuple[int, ...]] = {
        "vision": (sizes.vision_length, sizes.vision_size),
        "vision_mask": (sizes.vision_length,),
    }
    if graph == "unimodal":
        return {name: [(n, *shape) for n in (1, 8, 32)] for name, shape in rows.items()}
    rows |= {"audio": (sizes.audio_length, sizes.audio_size), "face_index": (sizes.vision_length,)}
    rows |= {"noise": (sizes.vision_length, 7), **dict.fromkeys(("text_row", "text_start", "text_length"), ())}
    found: Profile = {name: [(n, *shape) for n in (1, 8, 32)] for name, shape in (*rows.items(), ("audio_length", ()))}
    found["token_states"] = [(d, t, sizes.hidden_size) for d, t in ((1, 2), (8, 128), (32, 512))]
    return found | {"face_logits": [(n, 7) for n in (1, 64, 512)]}


def engine_bytes(onnx: Path, shapes: Profile) -> int:
    """Builds a strongly typed engine; says how large it is."""
    logger = process_logger(trt)  # TensorRT keeps the first of a process
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(onnx))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert {network.get_input(i).name for i in range(network.num_inputs)} == shapes.keys()
    config, chosen = builder.create_builder_config(), builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        chosen.set_shape(name, smallest, usual, largest)
    assert config.add_optimization_profile(chosen) == 0
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return int(engine.nbytes)


@pytest.mark.parametrize("model", TINY)
def test_small_models(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    bundle = tiny_bundle(model)
    for graph in graphs_of(TINY[model]):
        assert engine_bytes(bundle.graph(graph), profile(TINY[model], graph)) > 0
