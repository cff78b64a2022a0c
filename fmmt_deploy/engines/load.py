"""Opens a bundle with the engine that was asked for."""

from __future__ import annotations

import os

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import EngineKind, Engines

__all__ = ["default_threads", "open_engines"]


def open_engines(bundle: Bundle, kind: EngineKind, threads: int | None = None) -> Engines:
    """Opens all graphs of a bundle.

    Args:
        bundle: The bundle.
        kind: Which backend; only that one's packages are imported.
        threads: Threads within an operator; default `default_threads()`.

    Raises:
        EnvironmentProblem: The backend's packages are missing.
        BundleError: The backend refuses a graph.
    """
    if kind == "ort":
        from fmmt_deploy.engines.ort.load import engines_from_bundle
    else:
        from fmmt_deploy.engines.torch.load import engines_from_bundle
    return Engines(kind, engines_from_bundle(bundle, threads or default_threads()))


def default_threads() -> int:
    """As many threads as this process may use processors."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
