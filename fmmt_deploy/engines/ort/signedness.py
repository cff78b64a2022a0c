"""Whether this CPU adds products of unsigned and signed bytes exactly.

Where it has instructions for that (VNNI, AMX; on ARM, dot products), ONNX Runtime multiplies uint8 inputs and int8
weights fastest. With AVX2 alone it adds pairs of such products in 16 bits, which saturate: a wrong answer without a
word. Products of two unsigned bytes are exact everywhere, and slower. Flags of a CPU don't tell what ONNX Runtime makes
of it, so it is asked for the worst case.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Signedness", "exact_signedness", "explained", "worst_case"]

Signedness: TypeAlias = Literal["signed", "unsigned"]
"""Of the bytes that ONNX Runtime is given as weights."""

_WORDS: dict[Signedness, str] = {
    "signed": "VNNI or its like: products of bytes are summed exactly, int8-fp32 is fast",
    "unsigned": "no VNNI: sums of bytes saturate, so int8-fp32 goes another way, exact but slower",
}


def explained(found: Signedness) -> str:
    """The choice in words for people."""
    return _WORDS[found]


@cache
def exact_signedness(ort: ModuleType) -> Signedness:
    """How weights are given to ONNX Runtime here, found once a process by multiplying the worst operands there are.

    Args:
        ort: The module `onnxruntime`.
    """
    found, exact = worst_case(ort, "signed")
    return "signed" if np.array_equal(found, exact) else "unsigned"


def worst_case(ort: ModuleType, weights: Signedness) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Products of the largest inputs and weights, which saturate 16 bits if any do: ONNX Runtime's, and the exact ones.

    Args:
        ort: The module `onnxruntime`.
        weights: How they are given.

    Returns:
        Both (rows, columns), for one row and for several: these take different ways.
    """
    k, columns = 259, 35  # not a multiple of any vector, and all sums below 2²⁴, so that float32 has them
    signs = np.where(np.arange(columns) % 2, 1, -1)
    right = np.broadcast_to(127 * signs, (k, columns)).astype(np.int8)
    left = np.repeat(np.array([[127], [-128], [127], [0], [126]], np.int8), k, axis=1)
    session = _session(ort, right, weights)
    unsigned = (left.astype(np.int16) + 128).astype(np.uint8)
    found = [session.run(None, {"x": rows})[0] for rows in (unsigned, unsigned[:1], unsigned[1:2])]
    exact = left.astype(np.int64) @ right.astype(np.int64)
    return np.concatenate(found), np.concatenate([exact, exact[:1], exact[1:2]]).astype(np.float32)


def _session(ort: ModuleType, right: NDArray[np.int8], weights: Signedness) -> Any:
    """One product of `x` (rows, K), uint8 with zero point 128, and constant weights (K, N)."""
    from onnx import TensorProto, helper, numpy_helper

    stored = right if weights == "signed" else (right.astype(np.int16) + 128).astype(np.uint8)
    constants = {"w": stored, "one": np.array(1, np.float32), "half": np.array(128, np.uint8)}
    zero = "" if weights == "signed" else "half"
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "one", "one", "half", zero], ["y"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "worst",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", right.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", right.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
