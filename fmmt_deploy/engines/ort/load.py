"""Opens a bundle's graphs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from fmmt_deploy.bundle.disk import disk_problems
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.ort.binding import BoundOrtEngine
from fmmt_deploy.engines.ort.engine import OrtEngine
from fmmt_deploy.engines.ort.placement import RECORD, check_placement
from fmmt_deploy.engines.ort.providers import (
    Provider,
    plugin_devices,
    provider_of,
    provider_options,
    require_provider,
)
from fmmt_deploy.engines.protocol import Engine, EngineKind, Engines
from fmmt_deploy.engines.tensorrt.cache import FOLDER, graph_sha256
from fmmt_deploy.engines.tensorrt.profiles import default_profiles, shapes_of
from fmmt_deploy.errors import BundleError, EnvironmentProblem
from fmmt_deploy.types import GraphName

__all__ = ["engine_from_onnx", "engine_on_gpu", "engines_from_bundle", "import_onnxruntime"]

PACKAGES = ("onnxruntime", "onnxruntime-gpu")

_GPU_FACE_BATCH = 64
"""The most that the default profile takes at once."""


def engines_from_bundle(bundle: Bundle, kind: EngineKind, precisions: Precisions, threads: int) -> Engines:
    """Opens every graph of a bundle, on the CPU or on the GPU provider that `kind` asks for.

    Raises:
        EnvironmentProblem: ONNX Runtime or its provider is missing, or does not compute where it was asked to.
        BundleError: ONNX Runtime refuses a graph.
    """
    graphs = graphs_of(bundle.manifest.architecture)
    if (provider := provider_of(kind)) is None:
        on_cpu = {graph: engine_from_onnx(graph, bundle.graph(graph, precisions[graph]), threads) for graph in graphs}
        return Engines(kind, on_cpu, precisions)
    require_provider(import_onnxruntime(), provider)
    profiles = default_profiles(bundle.manifest.architecture)
    on_gpu: dict[GraphName, Engine] = {}
    for graph in graphs:
        path = bundle.graph(graph, precisions[graph])
        shapes = shapes_of(path, profiles.of(graph)[0])
        cache = None if provider.kind == "ort-cuda" else _cache_folder(bundle, kind, graph, precisions[graph])
        on_gpu[graph] = engine_on_gpu(
            graph, path, provider, provider_options(provider, precisions[graph], shapes, cache)
        )
    return Engines(kind, on_gpu, precisions, face_batch=_GPU_FACE_BATCH)


def engine_from_onnx(graph: GraphName, path: Path, threads: int) -> Engine:
    """Opens one graph on the CPU.

    Args:
        graph: Which graph it is.
        path: Its ONNX file, with its weights beside it.
        threads: Threads within an operator.

    Raises:
        EnvironmentProblem: ONNX Runtime is not installed, or installed twice.
        BundleError: ONNX Runtime refuses the graph.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # machines are shared
    return OrtEngine(graph, _session(ort, path, options, ["CPUExecutionProvider"]))


def engine_on_gpu(graph: GraphName, path: Path, provider: Provider, options: Mapping[str, str]) -> Engine:
    """Opens one graph on a GPU provider, which `require_provider` found.

    Args:
        graph: Which graph it is.
        path: Its ONNX file, with its weights beside it.
        provider: Which one.
        options: See `provider_options`.

    Raises:
        EnvironmentProblem: The provider did not start, or left work to the CPU.
        BundleError: ONNX Runtime refuses the graph.
    """
    ort = import_onnxruntime()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry(RECORD, "1")
    if devices := plugin_devices(ort, provider) if provider.plugin else []:
        settings.add_provider_for_devices(devices, dict(options))
        session = _session(ort, path, settings, None)
    else:
        also = [provider.also] if provider.also else []
        session = _session(ort, path, settings, [(provider.name, dict(options)), *also])
    check_placement(graph, path, session, provider)
    return BoundOrtEngine(graph, session, ort.OrtValue, "cuda")


def import_onnxruntime() -> ModuleType:
    """Imports ONNX Runtime.

    Raises:
        EnvironmentProblem: It is not installed, or installed twice: two packages hold this one module, and which
            of them is imported is chance.
    """
    if len(installed := [name for name in PACKAGES if _is_installed(name)]) > 1:
        raise EnvironmentProblem(
            f"Both {' and '.join(installed)} are installed, and they overwrite each other's files.",
            fix="Uninstall both, then install one: pip install 'fmmt-deploy[cpu]' or 'fmmt-deploy[gpu]'.",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentProblem(
            "ONNX Runtime is not installed.",
            why=str(error),
            fix="pip install 'fmmt-deploy[cpu]' (or 'fmmt-deploy[gpu]' for an NVIDIA GPU).",
        ) from error
    module: ModuleType = onnxruntime
    return module


def _session(ort: Any, path: Path, options: Any, providers: list[Any] | None) -> Any:
    try:
        # without its own fallback: after an error it would try again on the CPU, and print that on stdout
        return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise BundleError(
            f"ONNX Runtime refuses the graph {path}.", why=str(error), fix="Export the bundle again.", path=path
        ) from error


def _cache_folder(bundle: Bundle, kind: str, graph: GraphName, precision: Precision) -> Path:
    """Of this graph with these weights alone: ONNX Runtime's own names for cached engines don't know the weights."""
    digest = graph_sha256(bundle, graph, precision)[:16]
    folder = bundle.path / FOLDER / kind / f"{graph}-{precision}-{digest}"
    with disk_problems(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
