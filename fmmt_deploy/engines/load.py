"""Opens a bundle with the engine that was asked for."""

from __future__ import annotations

import os
from pathlib import Path

from fmmt_deploy.bundle.precisions import Precisions, float32
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import EngineKind, Engines

__all__ = ["default_threads", "open_engines"]


def open_engines(
    bundle: Bundle,
    kind: EngineKind,
    precisions: Precisions | None = None,
    threads: int | None = None,
    cache: Path | None = None,
) -> Engines:
    """Opens all graphs of a bundle.

    Args:
        bundle: The bundle.
        kind: Which backend; only that one's packages are imported.
        precisions: Which of its graphs; default float32 throughout.
        threads: Threads within an operator, on the CPU; default `default_threads()`.
        cache: Where TensorRT's engines are kept; default in the bundle.

    Raises:
        EnvironmentProblem: The backend's packages, or a GPU, are missing.
        BundleError: The bundle has no graph of that precision, or the backend refuses it.
        UsageError: The backend has no such precision.
        PrecisionError: It has no such 8-bit products, or this GPU has not.
    """
    chosen = precisions or float32(bundle.manifest.graphs)
    threads = threads or default_threads()
    match kind:
        case "ort" | "ort-cuda" | "ort-trt" | "ort-trt-rtx":
            from fmmt_deploy.engines.ort.load import engines_from_bundle as open_ort

            return open_ort(bundle, kind, chosen, threads)
        case "torch" | "torch-cuda" | "torch-compiled":
            from fmmt_deploy.engines.torch.load import engines_from_bundle as open_torch

            return open_torch(bundle, kind, chosen, threads)
        case "emulated":
            from fmmt_deploy.engines.emulated.load import engines_from_bundle as open_emulated

            return Engines(kind, open_emulated(bundle, chosen, threads), chosen)
        case "trt" | "trt-rtx":
            from fmmt_deploy.engines.tensorrt.load import engines_from_bundle as open_tensorrt

            return open_tensorrt(bundle, kind, chosen, cache=cache)


def default_threads() -> int:
    """As many threads as this process may use processors."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
