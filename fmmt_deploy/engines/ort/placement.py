"""Where ONNX Runtime placed a graph's nodes: what a provider does not take it gives to the CPU without a word.

Its option `session.disable_cpu_ep_fallback` forbids that, but also what is right: computing shapes, a few integers, on
the CPU, where they are needed. So the nodes are asked for by name instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmmt_deploy.engines.ort.providers import Provider
from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.types import GraphName

__all__ = ["RECORD", "check_placement", "shape_nodes"]

RECORD = "session.record_ep_graph_assignment_info"
"""The session option without which placements are not recorded."""

_CPU = "CPUExecutionProvider"
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv"})
_SHOWN = 5


def check_placement(graph: GraphName, path: Path, session: Any, provider: Provider) -> None:
    """Refuses a session that does not compute where it was asked to.

    Args:
        graph: Which graph.
        path: Its ONNX file.
        session: An `onnxruntime.InferenceSession`, opened with `RECORD`.
        provider: What was asked for.

    Raises:
        EnvironmentProblem: The provider did not start; or nodes that compute more than shapes are on the CPU, or matrix
            products on another provider; the message names them.
    """
    if provider.name not in session.get_providers():
        raise EnvironmentProblem(
            f"{provider.name} did not start, and ONNX Runtime took {', '.join(session.get_providers())} instead.",
            why="A library of CUDA's or TensorRT is missing or of another version, or there is no GPU or driver.",
            fix=f"Run `fmmt doctor`; install what {provider.kind} needs: {provider.install}",
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise EnvironmentProblem(
            "This ONNX Runtime does not tell where it computes, so that the CPU might do it unnoticed.",
            fix="pip install -U onnxruntime-gpu (or onnxruntime, for ort-trt-rtx).",
        )
    placed = [
        (part.ep_name, node.name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    shapes = shape_nodes(path)
    astray = [
        f"{kind} {name}"
        for where, name, kind in placed
        if (where == _CPU and name not in shapes) or (where != provider.name and kind in _PRODUCTS)
    ]
    if astray or not any(where == provider.name for where, _, _ in placed):
        shown = ", ".join(astray[:_SHOWN]) + (f" and {len(astray) - _SHOWN} more" if len(astray) > _SHOWN else "")
        raise EnvironmentProblem(
            f"{provider.name} does not take all of {graph}: {len(astray) or len(placed)} of {len(placed)} nodes are "
            "elsewhere.",
            why=f"On the CPU, or matrix products on another provider: {shown or 'all of them'}.",
            fix="Use another version of ONNX Runtime, or another engine.",
            path=path,
        )


def shape_nodes(path: Path) -> frozenset[str]:
    """Names of the nodes that compute from shapes and constants only, never from a tensor's values.

    Weights are not dequantised there, though they are constants: that belongs to their product.

    Args:
        path: An ONNX file; its weights are not read.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    known = {tensor.name for tensor in graph.initializer} | {""}
    names = set()
    for node in graph.node:  # every one comes after those it reads from
        from_constants = all(name in known for name in node.input) and node.op_type != "DequantizeLinear"
        if node.op_type in ("Shape", "Size") or from_constants:
            known.update(node.output)
            names.add(node.name)
    return frozenset(names)
