"""Opens a bundle's PyTorch reference: its graphs' own weights, in the model they were exported from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engine, EngineKind, Engines
from fmmt_deploy.engines.torch.device import AUTOCAST, DeviceEngine
from fmmt_deploy.engines.torch.engine import TorchEngine
from fmmt_deploy.errors import BundleError, CheckpointError, EnvironmentProblem, UsageError
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["DEVICE_FACE_BATCH", "check_cuda", "engines_from_bundle", "engines_from_model", "reference_from_bundle"]

DEVICE_FACE_BATCH = 64
"""Faces that go through `swin` together on a GPU: enough to fill it."""


def engines_from_bundle(
    bundle: Bundle,
    kind: EngineKind,
    precisions: Precisions,
    threads: int,
    device: str = "cuda",
    backend: str = "inductor",
) -> Engines:
    """Opens every part of a bundle's reference model; see `reference_from_bundle`.

    Args:
        bundle: The bundle; only its float32 weights are read.
        kind: `torch` on the CPU, `torch-cuda` as it is on a GPU, `torch-compiled` compiled there when it first runs.
        precisions: Float32, or FP16 and BF16 on a GPU, where they are autocast.
        threads: On the CPU.
        device: What stands in for the GPU, in tests.
        backend: What compiles.

    Raises:
        UsageError: The engine has no such precision.
        EnvironmentProblem: There is no GPU, or PyTorch is missing.
        BundleError: The weights do not fit the bundle's architecture.
    """
    _check_precisions(kind, precisions)
    if kind == "torch":
        return Engines(kind, engines_from_model(reference_from_bundle(bundle), threads))
    if device == "cuda":
        check_cuda(kind)
    model = reference_from_bundle(bundle).to(device)
    graphs = graphs_of(model.architecture)
    if kind == "torch-compiled":
        _compile(model, graphs, backend)
    engines: dict[GraphName, Engine] = {g: DeviceEngine(g, model, device, precisions[g]) for g in graphs}
    return Engines(kind, engines, precisions, DEVICE_FACE_BATCH)


def engines_from_model(model: ReferenceModel, threads: int) -> dict[GraphName, Engine]:
    """Wraps every part of a model as an engine on the CPU."""
    import torch

    torch.set_num_threads(threads)
    return {graph: TorchEngine(graph, model) for graph in graphs_of(model.architecture)}


def reference_from_bundle(bundle: Bundle) -> ReferenceModel:
    """Rebuilds the PyTorch model from the weight files of the bundle's float32 graphs.

    Raises:
        EnvironmentProblem: PyTorch, timm, transformers or safetensors are missing.
        BundleError: The weights do not fit the bundle's architecture.
    """
    try:
        from fmmt_deploy.reference.loading import model_from_weight_files
    except ImportError as error:
        raise _missing(error) from error
    manifest = bundle.manifest
    files = {g: bundle.graph(g).with_suffix(".safetensors") for g in graphs_of(manifest.architecture)}
    try:
        return model_from_weight_files(manifest.architecture, files, manifest.tau, manifest.threshold)
    except CheckpointError as error:
        raise BundleError(error.what, why=error.why, fix="Export the bundle again.", path=bundle.path) from error


def check_cuda(what: str, instead: str = "--engine ort or torch") -> None:
    """Raises EnvironmentProblem where PyTorch, or a GPU that it can use, is missing."""
    try:
        import torch
    except ImportError as error:
        raise _missing(error) from error
    with warnings.catch_warnings(record=True) as said:  # PyTorch warns of a driver that is too old
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    built = torch.version.cuda
    why = str(said[0].message).splitlines()[0] if said else "No NVIDIA driver answers, or it shows no GPU."
    raise EnvironmentProblem(
        f"{what} needs an NVIDIA GPU, and PyTorch {torch.__version__} finds none.",
        why=why if built else "This PyTorch is built without CUDA.",
        fix=f"Run it on a machine with a GPU; on a CPU use {instead}.",
    )


def _compile(model: ReferenceModel, graphs: Iterable[GraphName], backend: str) -> None:
    """Has each graph's layers compiled when they first run, for any size, and once more for a batch of one.

    Layers that are alike are compiled one for all, which takes seconds instead of minutes. Swin's differ from stage to
    stage, more than PyTorch keeps of one kind, so that it is compiled whole.
    """
    for graph in graphs:
        whole = getattr(model, graph)
        lists = [m for name, m in whole.named_modules() if name.rpartition(".")[2] in ("layer", "layers")]
        layers = [layer for each in lists for layer in each] if graph != "swin" else [whole]
        for layer in layers:
            layer.compile(dynamic=True, backend=backend)


def _check_precisions(kind: EngineKind, precisions: Precisions) -> None:
    text = text_from_precisions(precisions)
    if kind == "torch" and set(precisions.values()) != {"fp32"}:
        raise UsageError(
            f"The engine {kind} is the reference and computes in float32, not {text}.",
            fix="Ask for --engine emulated, which rounds as a GPU would, or leave out --precision.",
        )
    if not set(precisions.values()) <= {"fp32", *AUTOCAST}:
        raise UsageError(
            f"The engine {kind} computes in fp32, {' and '.join(AUTOCAST)}, not {text}.",
            fix="Ask for another engine or precision.",
        )


def _missing(error: ImportError) -> EnvironmentProblem:
    return EnvironmentProblem(
        "The PyTorch reference needs packages that are not installed.",
        why=str(error),
        fix="pip install 'fmmt-deploy[torch]'.",
    )
