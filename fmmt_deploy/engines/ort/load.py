"""Opens a bundle's graphs in ONNX Runtime."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.ort.engine import OrtEngine
from fmmt_deploy.engines.ort.providers import provider_of
from fmmt_deploy.engines.ort.session import open_session
from fmmt_deploy.engines.protocol import Engine, EngineKind, Engines
from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.types import GraphName

__all__ = ["engine_from_onnx", "engines_from_bundle", "import_onnxruntime", "is_quantised"]

PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def engines_from_bundle(bundle: Bundle, kind: EngineKind, precisions: Precisions, threads: int) -> Engines:
    """Opens every graph of a bundle, on the CPU or on the GPU provider that `kind` asks for.

    Raises:
        EnvironmentProblem: ONNX Runtime or its provider is missing, or does not compute where it was asked to.
        BundleError: ONNX Runtime refuses a graph.
        PrecisionError: It has no 8-bit products of that kind there.
    """
    if (provider := provider_of(kind)) is not None:
        from fmmt_deploy.engines.ort.gpu import engines_on_gpu  # which imports onnx: on the CPU it is not needed

        return engines_on_gpu(import_onnxruntime(), bundle, provider, precisions)
    engines: dict[GraphName, Engine] = {
        graph: engine_from_onnx(graph, bundle.graph(graph, precisions[graph]), threads)
        for graph in graphs_of(bundle.manifest.architecture)
    }
    return Engines(kind, engines, precisions)


def engine_from_onnx(graph: GraphName, path: Path, threads: int) -> Engine:
    """Opens one graph on the CPU.

    Args:
        graph: Which graph it is.
        path: Its ONNX file, with its weights beside it; if it is quantised, its products are computed on integers.
        threads: Threads within an operator.

    Raises:
        EnvironmentProblem: ONNX Runtime is not installed, or installed twice.
        BundleError: ONNX Runtime refuses the graph, or it is quantised in a way that ours are not.
        PrecisionError: It is quantised, but not int8 with float32 around.
    """
    ort = import_onnxruntime()
    content = _lowered(ort, graph, path) if is_quantised(path) else None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # machines are shared
    return OrtEngine(graph, open_session(ort, path, options, ["CPUExecutionProvider"], content))


def is_quantised(path: Path) -> bool:
    """Whether a graph has quantised tensors, told without `onnx` from names of operators, which are in it as text."""
    content = path.read_bytes() if path.is_file() else b""
    return any(name in content for name in (b"QuantizeLinear", b"DequantizeLinear"))


def _lowered(ort: ModuleType, graph: GraphName, path: Path) -> bytes:
    from fmmt_deploy.engines.ort.integer_products import integer_products
    from fmmt_deploy.engines.ort.signedness import exact_signedness

    lowered: bytes = integer_products(graph, path, exact_signedness(ort)).model.SerializeToString()
    return lowered


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


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
