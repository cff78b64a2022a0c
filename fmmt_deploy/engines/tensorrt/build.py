"""ONNX graph to TensorRT plan: parse, check, build, with progress and with errors that name the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fmmt_deploy.bundle.products import Product, products_of
from fmmt_deploy.engines.tensorrt.flavour import (
    FlavourName,
    collected,
    create_network,
    error_recorder,
    import_flavour,
    logger,
    title,
)
from fmmt_deploy.engines.tensorrt.layers import EngineLayer, layers_from_log
from fmmt_deploy.engines.tensorrt.network import NetworkFacts, check_network, facts_of_network
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profile, shapes_of, usual_sizes
from fmmt_deploy.engines.tensorrt.refusals import build_refused, graph_refused, profile_refused
from fmmt_deploy.engines.tensorrt.target import PORTABLE, Target, check_has_fp8
from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.types import GraphName

__all__ = ["Plan", "Progress", "plan_from_onnx"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told a phase's name, how many of its steps are done, and how many it has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A built engine, serialised.

    Attributes:
        data: Its bytes, in TensorRT's memory.
        network: What the parsed network has.
        products: The graph's matrix products, which are of the same types in the network: that was checked.
        seconds: How long parsing and building took.
        layers: What became of them in the engine, where TensorRT tells (see `layers`).
        warnings: What TensorRT said meanwhile, each once.
        timing_cache: What TensorRT learned about the speed of kernels here; None from TensorRT-RTX.
    """

    data: memoryview = field(repr=False)
    network: NetworkFacts
    products: tuple[Product, ...]
    seconds: float
    warnings: tuple[str, ...]
    layers: tuple[EngineLayer, ...] = field(default=(), repr=False)
    timing_cache: bytes | None = field(default=None, repr=False)


def plan_from_onnx(
    graph: GraphName,
    path: Path,
    profiles: tuple[Profile, ...],
    flavour: FlavourName,
    options: BuildOptions,
    target: Target,
    progress: Progress = lambda *_: None,
    timing_cache: bytes | None = None,
) -> Plan:
    """Builds an engine.

    Args:
        graph: Which graph it is, for messages.
        path: Its ONNX file, with its weights beside it.
        profiles: At least one.
        flavour: Which TensorRT.
        options: How to build.
        target: What for; a GPU is always this machine's.
        progress: Called from another thread.
        timing_cache: What an earlier build left, for TensorRT only.

    Raises:
        EnvironmentProblem: TensorRT, a driver or memory is missing.
        BundleError: TensorRT refuses the graph, or made something else of its inputs and outputs.
        PrecisionError: A matrix product is not of the type that the graph says, or the target does not have that.
        UsageError: TensorRT refuses a profile.
        KeyboardInterrupt: Ctrl-C; the build was stopped.
    """
    trt = import_flavour(flavour)
    started = time.monotonic()
    with collected(trt) as messages:
        builder, errors = trt.Builder(logger(trt)), error_recorder(trt)
        network = create_network(trt, builder)
        parser = trt.OnnxParser(network, logger(trt))
        if not parser.parse_from_file(str(path)):
            raise graph_refused(graph, path, flavour, parser, messages)
        facts, products = facts_of_network(network), products_of(path, usual_sizes(profiles[0]))
        check_network(path, facts, products)
        if any(product.precision == "fp8" for product in products):
            check_has_fp8(target)
        config = _configured(trt, builder, flavour, options, target)
        _add_profiles(builder, config, graph, path, profiles)
        cache = _timing_cache(config, flavour, timing_cache)
        with _recorded(builder, errors):
            data = _build(trt, builder, network, config, progress)
        if data is None:
            raise build_refused(graph, path, flavour, errors.descriptions, messages)
    learned = None if cache is None else bytes(config.get_timing_cache().serialize())
    warnings = tuple(dict.fromkeys(message.text for message in messages if message.kind == "warning"))
    layers = layers_from_log(message.text for message in messages if message.kind == "layers")
    return Plan(memoryview(data), facts, products, time.monotonic() - started, warnings, layers, learned)


@contextmanager
def _recorded(builder: Any, errors: Any) -> Iterator[None]:
    """Gives a builder its recorder for a while: it does not keep it alive, and would use it once it is gone."""
    builder.error_recorder = errors
    try:
        yield
    finally:
        builder.error_recorder = None


def _configured(trt: Any, builder: Any, flavour: FlavourName, options: BuildOptions, target: Target) -> Any:
    config = builder.create_builder_config()
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or nobody could tell what was realised
    config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits of mantissa are not float32
    if options.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if flavour == "trt-rtx":  # contexts get their memory from us anyhow; without this it refuses CUDA graphs
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if flavour == "trt-rtx" and target != PORTABLE:  # which is what it builds for unless told otherwise
        wanted = ["CURRENT"] if target.gpu else [f"SM{c.replace('.', '')}" for c in target.compute_capabilities]
        config.num_compute_capabilities = len(wanted)
        for number, name in enumerate(wanted):
            known = getattr(trt.ComputeCapability, name, None)
            if known is None or not config.set_compute_capability(known, number):  # it would build for others
                raise EnvironmentProblem(
                    f"{title(flavour)} can't build for {target}.", fix="Use --engine trt, ort-cuda or torch-cuda."
                )
    return config


def _add_profiles(builder: Any, config: Any, graph: GraphName, path: Path, profiles: Iterable[Profile]) -> None:
    for number, profile in enumerate(profiles):
        added = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes_of(path, profile).items():
            added.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(added) != number:
            raise profile_refused(graph, number)


def _timing_cache(config: Any, flavour: FlavourName, content: bytes | None) -> Any:
    """TensorRT-RTX has none: it times nothing at build time, and its calls are deprecated and do nothing."""
    if flavour == "trt-rtx":
        return None
    cache = config.create_timing_cache(content or b"")
    if not config.set_timing_cache(cache, False):  # of another version or GPU after all: begin with an empty one
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _build(trt: Any, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    """Builds in a thread, so that this one hears Ctrl-C; None if TensorRT could not."""
    stop = threading.Event()
    monitor = _monitor(trt, stop, progress)
    config.progress_monitor = monitor
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="tensorrt") as pool:
            building = pool.submit(builder.build_serialized_network, network, config)
            try:
                data = building.result()
            except KeyboardInterrupt:
                stop.set()  # TensorRT gives up at its next step; leaving the block waits for that
                raise
    finally:
        config.progress_monitor = None  # it is not kept alive either
    if monitor.problem is not None:
        raise monitor.problem
    return data


def _monitor(trt: Any, stop: threading.Event, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base class is known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.problem: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self.steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self.steps.get(phase_name, 0))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not stop.is_set()

        def _tell(self, phase: str, done: int) -> None:
            try:
                progress(phase, done, self.steps.get(phase, 0))
            except BaseException as error:  # it may not pass through TensorRT; `_build` raises it
                self.problem = self.problem or error
                stop.set()

    return Monitor()
