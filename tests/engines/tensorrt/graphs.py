"""Small ONNX graphs, made by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fmmt_deploy.engines.tensorrt.profiles import Profile, Range

PROFILE: Profile = {"utterances": Range(1, 4, 8)}


def saved(path: Path, *nodes: onnx.NodeProto, **weights: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path:
    """A graph from `x` (utterances, 4) to `y`, both float32."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["utterances", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["utterances", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def typed(path: Path) -> Path:
    """Two products: (N, 4) · (4, 5) in float16, then (N, 5) · (5, 3) in float32."""
    return saved(
        path,
        helper.make_node("Cast", ["x"], ["low"], "down", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["low", "first"], ["low_a"], "product.low"),
        helper.make_node("Cast", ["low_a"], ["a"], "up", to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["a", "second"], ["y"], "product.high"),
        first=np.ones((4, 5), np.float16),
        second=np.ones((5, 3), np.float32),
    )


def unsupported(path: Path) -> Path:
    """TensorRT has no `Unique`."""
    return saved(
        path,
        helper.make_node("Unique", ["x"], ["u"], "the.odd.one"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        w=np.ones((4, 3), np.float32),
    )


def mixed(path: Path) -> Path:
    """A product of two types, which no strongly typed network may have."""
    return saved(
        path,
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        w=np.ones((4, 3), np.float16),
    )
