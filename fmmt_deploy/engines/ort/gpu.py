"""Opens a bundle's graphs on one of ONNX Runtime's GPU providers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.ort.binding import BoundOrtEngine
from fmmt_deploy.engines.ort.placement import RECORD, check_placement
from fmmt_deploy.engines.ort.providers import (
    Provider,
    check_precision,
    plugin_devices,
    provider_options,
    require_provider,
)
from fmmt_deploy.engines.ort.session import open_session
from fmmt_deploy.engines.protocol import Engine, Engines
from fmmt_deploy.engines.tensorrt.cache import FOLDER, graph_sha256
from fmmt_deploy.engines.tensorrt.profiles import default_profiles, shapes_of
from fmmt_deploy.types import GraphName

__all__ = ["engine_on_gpu", "engines_on_gpu"]

_FACE_BATCH = 64
"""The most that the default profile takes at once."""


def engines_on_gpu(ort: Any, bundle: Bundle, provider: Provider, precisions: Precisions) -> Engines:
    """Opens every graph of a bundle.

    Args:
        ort: The module `onnxruntime`.
        bundle: The bundle; compiled engines are kept in it.
        provider: Which provider.
        precisions: Of each graph.

    Raises:
        EnvironmentProblem: ONNX Runtime lacks the provider, or it did not start, or left work to the CPU.
        BundleError: ONNX Runtime refuses a graph.
        PrecisionError: The provider has no products in a graph's precision.
    """
    for precision in precisions.values():
        check_precision(provider, precision)
    require_provider(ort, provider)
    profiles = default_profiles(bundle.manifest.architecture)
    engines: dict[GraphName, Engine] = {}
    for graph in graphs_of(bundle.manifest.architecture):
        path, precision = bundle.graph(graph, precisions[graph]), precisions[graph]
        shapes = shapes_of(path, profiles.of(graph)[0])
        cache = None if provider.kind == "ort-cuda" else _cache_folder(bundle, provider, graph, precision)
        options = provider_options(provider, precision, shapes, cache)
        engines[graph] = engine_on_gpu(ort, graph, path, provider, options)
    return Engines(provider.kind, engines, precisions, face_batch=_FACE_BATCH)


def engine_on_gpu(ort: Any, graph: GraphName, path: Path, provider: Provider, options: Mapping[str, str]) -> Engine:
    """Opens one graph.

    Args:
        ort: The module `onnxruntime`.
        graph: Which graph it is.
        path: Its ONNX file, with its weights beside it.
        provider: Which provider; `require_provider` found it.
        options: See `provider_options`.

    Raises:
        EnvironmentProblem: The provider did not start, or left work to the CPU.
        BundleError: ONNX Runtime refuses the graph.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry(RECORD, "1")
    if devices := plugin_devices(ort, provider) if provider.plugin else []:
        settings.add_provider_for_devices(devices, dict(options))
        session = open_session(ort, path, settings, None)
    else:
        also = [provider.also] if provider.also else []
        session = open_session(ort, path, settings, [(provider.name, dict(options)), *also])
    check_placement(graph, path, session, provider)
    return BoundOrtEngine(graph, session, ort.OrtValue, "cuda")


def _cache_folder(bundle: Bundle, provider: Provider, graph: GraphName, precision: Precision) -> Path:
    """Of this graph with these weights alone: ONNX Runtime's own names for cached engines don't know the weights."""
    digest = graph_sha256(bundle, graph, precision)[:16]
    folder = bundle.path / FOLDER / provider.kind / f"{graph}-{precision}-{digest}"
    with disk_problems(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
