"""What TensorRT-RTX says itself of an engine that it built here, held against the graph it was built from."""

from collections.abc import Callable

import onnx
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.build import plan_from_onnx
from fmmt_deploy.engines.tensorrt.layers import EngineLayer, layers_from_log
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import default_profiles
from fmmt_deploy.engines.tensorrt.target import PORTABLE
from tests.models import TINY

PRODUCTS = ("MatMul", "Gemm", "Conv")


@pytest.mark.parametrize("model", TINY)
def test_every_product_of_the_graph_is_in_a_layer_of_its_type(tiny_bundle: Callable[[str], Bundle], model: str) -> None:
    bundle, profiles = tiny_bundle(model), default_profiles(TINY[model])
    for graph in graphs_of(TINY[model]):
        path = bundle.graph(graph)
        layers = plan_from_onnx(graph, path, profiles.of(graph), "trt-rtx", BuildOptions(), PORTABLE).layers
        found = {node: layer for layer in layers if layer.multiplies for node in layer.nodes}
        nodes = [node for node in onnx.load(path, load_external_data=False).graph.node if node.op_type in PRODUCTS]
        big = [node.name for node in nodes if not node.name.startswith(("gate/", "attention/"))]  # a few FLOPs each
        assert big
        assert not [name for name in big if name not in found]
        assert {precision for name in big for precision in found[name].inputs} == {"fp32"}
        assert not any(layer.is_attention for layer in layers)  # TensorRT has no fused attention in float32


def test_a_log_without_a_listing() -> None:
    assert layers_from_log(["Parsing node", "Engine generation completed in 0.3 seconds."]) == ()


def test_a_fused_attention() -> None:
    """As TensorRT-RTX 1.7.1.116 logged it for RoBERTa-large in float16, shortened."""
    half = "{ Name: a_myl0, Dimensions: [-1,-1,64], Datatype: Half, Format: (Linear) Row major linear format }"
    text = (
        "Layers:\n"
        f"Name: _gemm_mha_v2_myl0_14, LayerType: kgen, Inputs: [ {half}, {half}], Constants: [], Outputs: [ {half}], "
        "TacticName: _gemm_mha_v2_0xdb, StreamId: 0, "
        "Metadata: [ONNX Layer: plm.encoder.layer.0/MatMul_1][ONNX Layer: plm.encoder.layer.0/Softmax]\n"
        "Name: __mye23899_myl0_3, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 1, Metadata: \n"
        f"Name: __myl_ReshTranReshCast_myl0_38, LayerType: kgen, Inputs: [ {half}], Constants: [], "
        f"Outputs: [ {half.replace('Half', 'Float')}], TacticName: x, StreamId: 0, Metadata: [ONNX Layer: cast_out]\n"
    )
    attention, signal, cast = layers_from_log(["before", text])
    nodes = ("plm.encoder.layer.0/MatMul_1", "plm.encoder.layer.0/Softmax")
    assert attention == EngineLayer("_gemm_mha_v2_myl0_14", "kgen", ("fp16", "fp16"), ("fp16",), nodes)
    assert attention.is_attention
    assert attention.multiplies
    assert not signal.computes
    assert cast.only_casts
    assert (cast.inputs, cast.outputs) == (("fp16",), ("fp32",))
