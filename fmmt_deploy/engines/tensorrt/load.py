"""Opens a bundle's engines on this machine's GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions, text_from_precisions
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engine, EngineKind, Engines
from fmmt_deploy.engines.tensorrt.cache import EngineFile, EngineKey, Miss, engine_folder, find_runnable, graph_sha256
from fmmt_deploy.engines.tensorrt.device import Device
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.engines.tensorrt.flavour import FLAVOURS, FlavourName, collected, import_flavour, logger, title
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.engines.tensorrt.graphs import MOST_GRAPHS
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import TOKEN_MULTIPLE
from fmmt_deploy.engines.tensorrt.program import Program
from fmmt_deploy.engines.tensorrt.refusals import plan_refused
from fmmt_deploy.engines.tensorrt.runtime_cache import RuntimeCache, runtime_cache_path
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.engines.tensorrt.target import target_of
from fmmt_deploy.engines.tensorrt.trust import check_trusted
from fmmt_deploy.errors import BundleError, UsageError
from fmmt_deploy.types import GraphName

__all__ = ["RunOptions", "engines_from_bundle", "engines_from_plans", "find_engines", "open_device", "runnable_engines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How engines run; the answers are the same.

    Attributes:
        graphs: CUDA graphs that each engine keeps; 0 is none at all.
        poison: Fill outputs with NaN before they are computed, to find what an engine does not write.
    """

    graphs: int = MOST_GRAPHS
    poison: bool = False


def open_device() -> Device:
    """This machine's GPU.

    Raises:
        EnvironmentProblem: There is none, or no driver, or no `cuda-bindings`.
    """
    from fmmt_deploy.engines.tensorrt.cuda import CudaDevice

    return CudaDevice()


def engines_from_bundle(
    bundle: Bundle,
    kind: EngineKind,
    precisions: Precisions,
    *,
    cache: Path | None = None,
    trusted_only: bool = True,
    options: RunOptions | None = None,
) -> Engines:
    """Opens every engine of a bundle, from the files that `fmmt build` wrote into it.

    Args:
        bundle: The bundle.
        kind: `trt` or `trt-rtx`.
        precisions: Of each graph.
        cache: Where the engines are kept; default in the bundle.
        trusted_only: Refuse engines that did not pass the self-consistency gate on this GPU; only the gate does not.
        options: How to run them.

    Raises:
        EnvironmentProblem: There is no GPU, or TensorRT is not installed.
        BundleError: The bundle has no engine that runs here; the message says why those it has don't.
        PrecisionError: The GPU does not have a precision.
        ArtefactError: An engine is not to be trusted.
        UsageError: `kind` is neither.
    """
    flavour = next((name for name in FLAVOURS if name == kind), None)
    if flavour is None:
        raise UsageError(f"{kind} is no TensorRT.", fix=f"Use one of {', '.join(FLAVOURS)}.")
    device = open_device()
    trt = import_flavour(flavour)
    files = find_engines(bundle, flavour, precisions, device.gpu, str(trt.__version__), cache)
    if trusted_only:
        for file in files.values():
            check_trusted(file.path, device.gpu.name)
    plans = {graph: (file.plan, file.path) for graph, file in files.items()}
    return engines_from_plans(flavour, trt, device, plans, precisions, options)


def find_engines(
    bundle: Bundle,
    flavour: FlavourName,
    precisions: Precisions,
    gpu: Gpu,
    version: str,
    cache: Path | None = None,
) -> dict[GraphName, EngineFile]:
    """The best engine of each graph that runs here.

    Args:
        bundle: The bundle.
        flavour: Which TensorRT.
        precisions: Of each graph.
        gpu: This machine's.
        version: The full version of that TensorRT here.
        cache: Where they are kept; default in the bundle.

    Raises:
        BundleError: There is none for one of the graphs.
        PrecisionError: The GPU does not have the precision of one.
    """
    found = {}
    for graph in graphs_of(bundle.manifest.architecture):
        key = EngineKey(
            graph=graph,
            precision=precisions[graph],
            graph_sha256=graph_sha256(bundle, graph, precisions[graph]),
            profiles=(),
            options=BuildOptions(),
            flavour=flavour,
            version=version,
            target=target_of(flavour, gpu, precisions[graph]),
        )
        file = find_runnable(engine_folder(bundle, cache), key)
        if isinstance(file, Miss):
            asked, at = text_from_precisions(precisions), "" if cache is None else f" --cache {cache}"
            raise BundleError(
                f"The bundle {bundle.path} has no {key.precision} engine of {graph} that runs here.",
                why="; ".join(file.reasons) or f"Nothing was built for {title(flavour)} yet.",
                fix=f"fmmt build -b {bundle.path} --engine {flavour} --precision {asked}{at}",
                path=bundle.path,
            )
        found[graph] = file
    return found


def runnable_engines(
    bundle: Bundle, flavour: FlavourName, precisions: Precisions, cache: Path | None = None
) -> dict[GraphName, EngineFile]:
    """The files that `engines_from_bundle` would open here; nothing is opened.

    Raises:
        EnvironmentProblem: There is no GPU, or TensorRT is not installed.
        BundleError: There is none for one of the graphs.
        PrecisionError: The GPU does not have the precision of one.
    """
    version, device = str(import_flavour(flavour).__version__), open_device()
    try:
        return find_engines(bundle, flavour, precisions, device.gpu, version, cache)
    finally:
        device.close()


def engines_from_plans(
    flavour: FlavourName,
    trt: ModuleType | Any,
    device: Device,
    plans: Mapping[GraphName, tuple[memoryview, Path | None]],
    precisions: Precisions | None = None,
    options: RunOptions | None = None,
) -> Engines:
    """Deserialises plans, and opens an engine for each, which share a device.

    Args:
        flavour: Which TensorRT.
        trt: Its module.
        device: Where they run; closed with the last engine, and if opening fails.
        plans: For each graph its plan and the file it is from, beside which compiled kernels are kept; None keeps none.
        precisions: Of each graph, for reports.
        options: How to run them.

    Raises:
        EnvironmentProblem: The GPU has no memory for them, or TensorRT does not support it.
        BundleError: TensorRT refuses a plan.
    """
    chosen = options or RunOptions()
    session = Session(device, poison=chosen.poison)
    session.share()  # until all engines are open; if one can't be, this closes those that are
    opened: dict[GraphName, Engine] = {}
    try:
        programs = {}
        runtime = trt.Runtime(logger(trt))
        for graph, (plan, path) in plans.items():
            programs[graph] = _program(graph, flavour, trt, runtime, plan, path, session)
        session.scratch(max(program.scratch_bytes for program, _ in programs.values()))
        for graph, (program, before_close) in programs.items():
            opened[graph] = TensorRTEngine(program, session, graphs=chosen.graphs, before_close=before_close)
        return Engines(flavour, opened, precisions, face_batch=None, token_multiple=TOKEN_MULTIPLE)
    except BaseException:
        for engine in opened.values():
            engine.close()
        raise
    finally:
        session.release()


def _program(
    graph: GraphName,
    flavour: FlavourName,
    trt: Any,
    runtime: Any,
    plan: memoryview,
    path: Path | None,
    session: Session,
) -> tuple[Program, Callable[[], None]]:
    """Deserialises one engine; also gives what to do before it is closed."""
    with collected(trt) as messages:
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise plan_refused(graph, path, flavour, messages)
    kernels = RuntimeCache(engine, None if path is None else runtime_cache_path(path))
    return Program(graph, trt, engine, runtime, session, kernels.cache), kernels.save
