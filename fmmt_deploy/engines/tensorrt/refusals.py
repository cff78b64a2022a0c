"""TensorRT's refusals in our words: which node, what TensorRT said of it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx

from fmmt_deploy.engines.tensorrt.flavour import FlavourName, Message, title
from fmmt_deploy.errors import BundleError, EnvironmentProblem, FmmtError, PrecisionError, UsageError
from fmmt_deploy.types import GraphName

__all__ = ["build_refused", "graph_refused", "plan_refused", "profile_refused"]

_NO_DRIVER = re.compile(r"cudaError 35|CUDA driver version is insufficient|no CUDA-capable device", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out ?of ?memory|OutOfMemory|bad_alloc|cudaErrorMemoryAllocation", re.IGNORECASE)
_NO_SUCH_GPU = re.compile(
    r"does not support this compute capability|unsupported (sm|(gpu )?architecture|compute capability)"
    r"|(gpu|device|architecture|compute capability) is not supported",
    re.IGNORECASE,
)
"""TensorRT-RTX is for RTX GPUs: 1.7 names no data-centre GPU later than the A100 (8.0)."""
_NO_SUCH_TYPE = re.compile(r"HW-specific datatypes|\b(fp8|e4m3)\w* .*(not supported|unsupported)", re.IGNORECASE)
_PROFILE = re.compile(r"profile \d|optimization profile|kMIN|kMAX|kOPT", re.IGNORECASE)


def graph_refused(
    graph: GraphName, path: Path, flavour: FlavourName, parser: Any, messages: Sequence[Message]
) -> BundleError:
    """Why a graph could not be parsed.

    Args:
        graph: Which graph.
        path: Its ONNX file.
        flavour: Which TensorRT.
        parser: The `OnnxParser`, with its errors.
        messages: What was logged.
    """
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    fix = "Export the bundle again with this version of fmmt-deploy, or use a newer TensorRT."
    if not errors:
        why = _joined(message.text for message in messages if message.is_error)
        return BundleError(f"{title(flavour)} can't parse {graph}.", why=why, fix=fix, path=path)
    first = errors[0]
    # of TensorRT's checks by operator it is the function's name that says what was checked, and "false" the result
    said = _joined(error.desc() for error in errors) or "nothing"
    why = f"It says: {said} (in {first.func()})" if first.func() else f"It says: {said}"
    return BundleError(
        f"{title(flavour)} refuses the node {first.node_name() or first.node()} ({first.node_operator()}) of {graph}.",
        why=why,
        fix=fix,
        path=path,
        tensor=first.node_name(),
    )


def profile_refused(graph: GraphName, number: int) -> UsageError:
    """TensorRT did not take a profile that ours found in order."""
    return UsageError(f"TensorRT refuses profile {number} of {graph}.", fix="Use fewer or narrower profiles.")


def build_refused(
    graph: GraphName, path: Path, flavour: FlavourName, errors: Sequence[str], messages: Sequence[Message]
) -> FmmtError:
    """Why no engine came of a parsed graph.

    Args:
        graph: Which graph.
        path: Its ONNX file.
        flavour: Which TensorRT.
        errors: What it reported.
        messages: What it logged.
    """
    name = title(flavour)
    logged = [message.text for message in messages if message.is_error]
    said = _joined([*errors, *logged]) or "It gave no reason."
    if _NO_SUCH_GPU.search(said):
        return _gpu_refused(flavour, said)
    if _NO_SUCH_TYPE.search(said):
        return PrecisionError(
            f"{name} can't build {graph} for this target, which lacks one of its types.",
            why=said,
            fix="Ask for another precision of this graph: FP8 needs compute capability 8.9 or later.",
            path=path,
        )
    if _NO_MEMORY.search(said):
        return EnvironmentProblem(
            f"{name} ran out of memory building {graph}.", why=said, fix="Use a narrower profile, or free memory."
        )
    if _NO_DRIVER.search(said):
        return EnvironmentProblem(
            f"{name} needs an NVIDIA driver to build {graph} like this.", why=said, fix="Install the driver."
        )
    if _PROFILE.search(said):
        return UsageError(f"{name} refuses a profile of {graph}.", why=said, fix="Change it, see engines/README.md.")
    node = _named_node(path, said)
    return BundleError(
        f"{name} can't build {graph}" + (f": it stopped at the node {node}." if node else "."),
        why=said,
        fix="Try a larger --workspace, another precision for this graph, or another version of TensorRT.",
        path=path,
        tensor=node,
    )


def plan_refused(graph: GraphName, path: Path | None, flavour: FlavourName, messages: Sequence[Message]) -> FmmtError:
    """Why an engine could not be loaded.

    Args:
        graph: Which graph.
        path: The engine's file, if it has one.
        flavour: Which TensorRT.
        messages: What was logged.
    """
    said = " | ".join(dict.fromkeys(" ".join(message.text.split()) for message in messages))
    if _NO_SUCH_GPU.search(said):
        return _gpu_refused(flavour, said)
    return BundleError(
        f"{title(flavour)} refuses the engine of {graph}.",
        why=said or "It gave no reason.",
        fix="Build it again: fmmt build --force.",
        path=path,
    )


def _gpu_refused(flavour: FlavourName, said: str) -> EnvironmentProblem:
    other = "trt" if flavour == "trt-rtx" else "ort-cuda"
    return EnvironmentProblem(
        f"{title(flavour)} does not support this GPU.", why=said, fix=f"Use --engine {other}, or torch-cuda."
    )


def _joined(texts: Iterable[str]) -> str:
    """Different texts on one line, without what the missing driver says of itself beside another error."""
    lines = dict.fromkeys(" ".join(line.split()) for text in texts for line in text.splitlines() if line.strip())
    telling = [line for line in lines if not _NO_DRIVER.search(line)]
    return " | ".join(telling or lines)


def _named_node(path: Path, text: str) -> str | None:
    """The node that a message speaks of: of all names in it, the longest."""
    names = [node.name for node in onnx.load(path, load_external_data=False).graph.node if node.name]
    return max((name for name in names if name in text), key=len, default=None)
