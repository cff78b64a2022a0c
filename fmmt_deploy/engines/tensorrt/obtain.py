"""An engine from the cache, or built and put there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.products import flops_share
from fmmt_deploy.bundle.sealed import only_builder
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.build import Plan, Progress, plan_from_onnx
from fmmt_deploy.engines.tensorrt.cache import (
    EngineAbout,
    EngineFile,
    EngineKey,
    Miss,
    engine_path,
    find_engine,
    graph_sha256,
    write_engine,
)
from fmmt_deploy.engines.tensorrt.flavour import FlavourName, import_flavour
from fmmt_deploy.engines.tensorrt.gpu import Gpu
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profiles
from fmmt_deploy.engines.tensorrt.realised import Realised, inspected, layers_from_inspector, realised_from_layers
from fmmt_deploy.engines.tensorrt.target import target_of
from fmmt_deploy.engines.tensorrt.timing import read_timings, write_timings
from fmmt_deploy.errors import BundleError, EnvironmentProblem, PrecisionError
from fmmt_deploy.types import GraphName

__all__ = ["Obtained", "engine_key", "obtain_engine"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Obtained:
    """An engine.

    Attributes:
        file: It.
        plan: What was built, or None where the engine was there already.
        instead_of: Engines of the same graph and precision that did not fit, and why.
    """

    file: EngineFile
    plan: Plan | None
    instead_of: tuple[str, ...] = ()


def engine_key(
    bundle: Bundle,
    graph: GraphName,
    precision: Precision,
    profiles: Profiles,
    options: BuildOptions,
    flavour: FlavourName,
    gpu: Gpu | None,
) -> EngineKey:
    """The key of an engine that would be built here.

    Raises:
        EnvironmentProblem: This TensorRT is missing, or can't build without a GPU.
        PrecisionError: The GPU does not have it.
        BundleError: The bundle has no such graph.
        UsageError: There is no profile for it.
    """
    return EngineKey(
        graph=graph,
        precision=precision,
        graph_sha256=graph_sha256(bundle, graph, precision),
        profiles=profiles.of(graph),
        options=options,
        flavour=flavour,
        version=str(import_flavour(flavour).__version__),
        target=target_of(flavour, gpu, precision),
    )


def obtain_engine(
    bundle: Bundle, key: EngineKey, folder: Path, force: bool = False, progress: Progress = lambda *_: None
) -> Obtained:
    """Finds an engine, or builds it; of two processes that want the same one, one builds and the other waits for it.

    Args:
        bundle: The bundle, opened with its hashes checked.
        key: Which engine.
        folder: Where engines are kept.
        force: Whether to build it even if it is there.
        progress: See `plan_from_onnx`, also for what else may be raised.

    Raises:
        EnvironmentProblem: The disk is full, or the folder can't be written.
        BundleError: The bundle was replaced meanwhile.
        PrecisionError: A matrix product is of another type in the engine than in the graph; it is not kept.
    """
    if not force and isinstance(found := find_engine(folder, key), EngineFile):
        return Obtained(found, None)  # without the lock, which a folder that is read only would not give
    with only_builder(engine_path(folder, key)):
        found = find_engine(folder, key)
        if isinstance(found, EngineFile) and not force:
            return Obtained(found, None)
        path = bundle.graph(key.graph, key.precision)
        timings = read_timings(folder, key) if key.flavour == "trt" else None
        plan = plan_from_onnx(key.graph, path, key.profiles, key.flavour, key.options, key.target, progress, timings)
        _check_unchanged(bundle, key)
        realised = _realised(plan, key)
        about = EngineAbout(
            key=key, build_seconds=plan.seconds, flops_share=flops_share(plan.products), realised=realised
        )
        written = write_engine(folder, about, plan.data)
    if plan.timing_cache is not None:
        _keep_timings(folder, key, plan.timing_cache)
    return Obtained(written, plan, found.reasons if isinstance(found, Miss) else ())


def _realised(plan: Plan, key: EngineKey) -> Realised | None:
    """What became of the graph; None where TensorRT does not tell."""
    layers = plan.layers
    if not layers and key.flavour == "trt":  # it lists none, but built on a GPU, where its engines can be inspected
        try:
            layers = layers_from_inspector(inspected(import_flavour(key.flavour), plan.data))
        except BundleError as error:
            _log.warning("what was realised in %s is not known: %s %s", key.graph, error.what, error.why)
    if not layers:
        return None
    realised = realised_from_layers(layers, plan.products)
    for surprise in realised.surprises:
        raise PrecisionError(
            f"{surprise.node} of {key.graph} is asked for in {surprise.asked}, in the engine it is in "
            f"{' and '.join(surprise.found)}.",
            why=f"{len(realised.surprises)} matrix products are of another type than asked for.",
            fix="Build with another version of TensorRT, or ask for another precision of this graph.",
            tensor=surprise.node,
        )
    return realised


def _check_unchanged(bundle: Bundle, key: EngineKey) -> None:
    """An engine must not get the key of another graph: its bundle may have been replaced while TensorRT read it."""
    if graph_sha256(Bundle.open(bundle.path, verify=False), key.graph, key.precision) != key.graph_sha256:
        raise BundleError(
            f"The bundle {bundle.path} was replaced while {key.graph} was being built.",
            fix="Build again.",
            path=bundle.path,
        )


def _keep_timings(folder: Path, key: EngineKey, content: bytes) -> None:
    try:
        write_timings(folder, key, content)
    except EnvironmentProblem as error:  # the engine is there; only the next build will be slower
        _log.warning("the timing cache was not kept: %s", error.what)
