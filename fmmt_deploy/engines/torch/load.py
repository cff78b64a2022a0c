"""Opens a bundle's PyTorch reference: its graphs' own weights, in the model they were exported from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engine, EngineKind, Engines
from fmmt_deploy.engines.torch.engine import TorchEngine
from fmmt_deploy.errors import BundleError, CheckpointError, EnvironmentProblem, UsageError
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    from fmmt_deploy.training.model import ReferenceModel

__all__ = ["engines_from_bundle", "engines_from_model", "reference_from_bundle"]


def engines_from_bundle(bundle: Bundle, kind: EngineKind, precisions: Precisions, threads: int) -> Engines:
    """Opens every part of a bundle's reference model; see `reference_from_bundle`.

    Raises:
        UsageError: Another precision than float32 is asked for: this is the reference.
    """
    if set(precisions.values()) != {"fp32"}:
        raise UsageError(
            f"The engine {kind} is the reference and computes in float32, not {text_from_precisions(precisions)}.",
            fix="Ask for --engine emulated, which rounds as a GPU would, or leave out --precision.",
        )
    return Engines(kind, engines_from_model(reference_from_bundle(bundle), threads))


def engines_from_model(model: ReferenceModel, threads: int) -> dict[GraphName, Engine]:
    """Wraps every part of a model as an engine."""
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
        from fmmt_deploy.training.loading import model_from_weight_files
    except ImportError as error:
        raise EnvironmentProblem(
            "The PyTorch reference needs packages that are not installed.",
            why=str(error),
            fix="pip install 'fmmt-deploy[torch]'.",
        ) from error
    manifest = bundle.manifest
    files = {g: bundle.graph(g).with_suffix(".safetensors") for g in graphs_of(manifest.architecture)}
    try:
        return model_from_weight_files(manifest.architecture, files, manifest.tau, manifest.threshold)
    except CheckpointError as error:
        raise BundleError(error.what, why=error.why, fix="Export the bundle again.", path=bundle.path) from error
