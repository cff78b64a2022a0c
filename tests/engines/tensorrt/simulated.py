"""A TensorRT that computes with ONNX Runtime, on the memory of a simulated GPU; and a bundle's engines on both.

It refuses what TensorRT refuses, in TensorRT's way (False, None, a logged line), and a few things TensorRT would only
compute wrongly: addresses that are not aligned, a capture right after a change of shapes, and a captured graph whose
context has seen other shapes since.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import Precisions, float32
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt import load
from fmmt_deploy.engines.tensorrt.cache import FOLDER, EngineAbout, EngineFile, EngineKey, graph_sha256, write_engine
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT
from fmmt_deploy.engines.tensorrt.flavour import FlavourName
from fmmt_deploy.engines.tensorrt.load import RunOptions, engines_from_plans
from fmmt_deploy.engines.tensorrt.options import BuildOptions
from fmmt_deploy.engines.tensorrt.profiles import Profile, Profiles, default_profiles, shapes_of
from fmmt_deploy.engines.tensorrt.target import Target
from fmmt_deploy.engines.tensorrt.trust import write_verdict
from fmmt_deploy.types import GraphName
from tests.engines.tensorrt.simulated_device import GPU, Access, SimulatedDevice, SimulationError

VERSION = "1.7.1.116"
_MAGIC = b"simulated plan "
_TYPES = {"tensor(float)": "FLOAT", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8", "tensor(bool)": "BOOL"}
_SIZES = {"FLOAT": np.float32, "INT64": np.int64, "UINT8": np.uint8, "BOOL": np.bool_}

Shape = tuple[int, ...]
_Enums = {
    "TensorIOMode": "NONE INPUT OUTPUT",
    "TensorLocation": "DEVICE HOST",
    "DataType": "FLOAT HALF INT32 INT64 UINT8 BOOL BF16",
    "ExecutionContextAllocationStrategy": "STATIC ON_PROFILE_CHANGE USER_MANAGED",
    "DynamicShapesKernelSpecializationStrategy": "LAZY EAGER NONE",
}


class SimulatedTensorRT:
    """Stands for the module `tensorrt_rtx`.

    Args:
        device: Whose memory its engines use.
        rtx: Whether it has a runtime cache, as TensorRT-RTX has.

    Attributes:
        capturable: What `is_stream_capturable` answers.
        spoils_captures: Whether runs do something in a capture that spoils it.
        writes: Whether runs write their outputs.
        refuses: Names of calls that answer False from now on.
        executed: Runs that were done, launched graphs included.
        contexts: Those that are alive.
    """

    __version__ = VERSION

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def log(self, severity: int, text: str) -> None:
            raise NotImplementedError

    def __init__(self, device: SimulatedDevice, rtx: bool = True) -> None:
        self.device, self.rtx = device, rtx
        for name, values in _Enums.items():
            setattr(self, name, Enum(name, values))  # type: ignore[misc]  # the names are as TensorRT has them
        self.capturable, self.spoils_captures, self.writes = True, False, True
        self.refuses: set[str] = set()
        self.executed = 0
        self.contexts: weakref.WeakSet[SimulatedContext] = weakref.WeakSet()

    def Runtime(self, logger: Any) -> SimulatedRuntime:  # noqa: N802 - TensorRT's name
        return SimulatedRuntime(self, logger)

    def allows(self, call: str, logger: Any) -> bool:
        """Whether a call goes through; else it is logged."""
        if call in self.refuses:
            logger.log(self.ILogger.ERROR, f"Error Code 3: API Usage Error ({call})")
        return call not in self.refuses


class SimulatedRuntime:
    def __init__(self, trt: SimulatedTensorRT, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, plan: memoryview) -> SimulatedEngine | None:
        data = bytes(plan)
        if not data.startswith(_MAGIC):
            self._logger.log(self._trt.ILogger.ERROR, "Error Code 1: Serialization (magic tag does not match)")
            return None
        return SimulatedEngine(self._trt, self._logger, json.loads(data[len(_MAGIC) :]))


@cache
def _session(path: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class SimulatedEngine:
    """An `ICudaEngine`."""

    device_memory_size_v2 = 4096

    def __init__(self, trt: SimulatedTensorRT, logger: Any, plan: Mapping[str, Any]) -> None:
        self.trt, self.logger = trt, logger
        self.session = _session(plan["onnx"])
        self.profiles: list[dict[str, list[list[int]]]] = plan["profiles"]
        self.ins = {value.name: value for value in self.session.get_inputs()}
        self.outs = {value.name: value for value in self.session.get_outputs()}
        self.num_io_tensors = len(self.ins) + len(self.outs)
        self.num_optimization_profiles = len(self.profiles)

    def __getattr__(self, name: str) -> Any:
        if name == "create_runtime_config" and self.trt.rtx:
            return lambda: SimulatedConfig(self.trt)
        raise AttributeError(name)

    def get_tensor_name(self, index: int) -> str:
        return [*self.ins, *self.outs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode.INPUT if name in self.ins else self.trt.TensorIOMode.OUTPUT  # type: ignore[attr-defined]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.trt.DataType[_TYPES[(self.ins | self.outs)[name].type]]  # type: ignore[attr-defined]

    def get_tensor_location(self, _: str) -> Any:
        return self.trt.TensorLocation.DEVICE  # type: ignore[attr-defined]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return self.profiles[profile][name]

    def create_execution_context(self, how: Any) -> SimulatedContext | None:
        self.trt.device.outside_capture("create_execution_context")
        strategy = how.strategy if isinstance(how, SimulatedConfig) else how
        managed = strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED  # type: ignore[attr-defined]
        if not managed or not self.trt.allows("create_execution_context", self.logger):
            return None
        if isinstance(how, SimulatedConfig) and how.cache is not None:
            how.cache.kernels.add(Path(self.session._model_path).name)  # as if they were compiled here
        return SimulatedContext(self)


class SimulatedConfig:
    """An `IRuntimeConfig`."""

    dynamic_shapes_kernel_specialization_strategy: Any = None

    def __init__(self, trt: SimulatedTensorRT) -> None:
        self.strategy: Any = trt.ExecutionContextAllocationStrategy.STATIC  # type: ignore[attr-defined]
        self.cache: SimulatedKernels | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> SimulatedKernels:
        return SimulatedKernels()

    def set_runtime_cache(self, kernels: SimulatedKernels) -> bool:
        self.cache = kernels
        return True


class SimulatedKernels:
    """An `IRuntimeCache`."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def serialize(self) -> bytes:
        return ("kernels " + " ".join(sorted(self.kernels))).encode()

    def deserialize(self, blob: memoryview) -> bool:
        head, *names = bytes(blob).decode().split(" ")
        if head != "kernels":
            return False
        self.kernels = set(names)
        return True


class SimulatedContext:
    """An `IExecutionContext`."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine, self._trt = engine, engine.trt
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._ran_with: dict[str, Shape] | None = None
        engine.trt.contexts.add(self)

    def set_device_memory(self, address: int, size: int) -> None:
        if address % ALIGNMENT or size < self._engine.device_memory_size_v2:
            raise SimulationError("scratch memory is too small, or not aligned")
        self._scratch = (address, size)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        del stream
        self._trt.device.outside_capture("set_optimization_profile_async")
        self._profile, self._shapes = profile, {}
        return 0 <= profile < len(self._engine.profiles) and self._allows("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if self._profile is None or name not in self._engine.ins or not self._allows("set_input_shape"):
            return False
        low, _, high = self._engine.profiles[self._profile][name]
        if len(low) != len(shape) or not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        axes: dict[str, int] = {}
        for given, shape in self._shapes.items():
            axes |= {a: s for a, s in zip(self._engine.ins[given].shape, shape, strict=True) if isinstance(a, str)}
        return tuple(axes.get(a, -1) if isinstance(a, str) else a for a in self._engine.outs[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % ALIGNMENT:
            raise SimulationError(f"{name} is not aligned: {address:#x}")
        self._addresses[name] = address
        return name in self._engine.ins | self._engine.outs and self._allows("set_tensor_address")

    def is_stream_capturable(self, stream: int) -> bool:
        del stream
        return self._trt.capturable

    def execute_async_v3(self, stream: int) -> bool:
        engine, device = self._engine, self._trt.device
        if not self._allows("execute_async_v3") or self._shapes.keys() != engine.ins.keys():
            return False
        if self._addresses.keys() != (engine.ins | engine.outs).keys() or not self._scratch[0]:
            return False
        shapes = dict(self._shapes)
        if device.is_capturing:
            if self._ran_with != shapes:
                raise SimulationError("a capture right after a change of shapes")
            if self._trt.spoils_captures:
                device.spoil_capture()
        self._ran_with = shapes
        run, tensors = self._run(shapes, device.is_capturing), list(self._tensors(shapes))
        accesses = [Access(address, size, name in engine.outs) for name, _, address, size in tensors]
        device.work(stream, "run", run, [*accesses, Access(*self._scratch, True)])
        return True

    def _tensors(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Shape, int, int]]:
        for name, address in self._addresses.items():
            shape = shapes.get(name) or self.get_tensor_shape(name)
            size = prod(shape) * np.dtype(_SIZES[self._engine.get_tensor_dtype(name).name]).itemsize
            yield name, shape, address, size

    def _run(self, shapes: dict[str, Shape], captured: bool) -> Any:
        """What a run does, with the addresses and shapes of now."""
        engine, device, trt = self._engine, self._trt.device, self._trt
        tensors, scratch, itself = list(self._tensors(shapes)), self._scratch, weakref.ref(self)

        def run() -> None:
            context = itself()
            if context is None or (captured and context._shapes != shapes):
                raise SimulationError("the context of a run is gone, or that of a graph has other shapes now")
            device.bytes_at(*scratch)[:] = 0xFF
            views = {
                name: device.bytes_at(address, size).view(_SIZES[engine.get_tensor_dtype(name).name]).reshape(shape)
                for name, shape, address, size in tensors
            }
            answers = engine.session.run(list(engine.outs), {name: views[name].copy() for name in engine.ins})
            for name, answer in zip(engine.outs, answers, strict=True):
                if trt.writes:
                    views[name][...] = answer
            trt.executed += 1

        return run

    def _allows(self, call: str) -> bool:
        return self._trt.allows(call, self._engine.logger)


def simulated_plan(onnx: Path, profiles: Sequence[Profile]) -> bytes:
    """What the simulated TensorRT deserialises."""
    shapes = [shapes_of(onnx, profile) for profile in profiles]
    return _MAGIC + json.dumps({"onnx": str(onnx), "profiles": shapes}).encode()


def simulated_engines(
    bundle: Bundle,
    precisions: Precisions | None = None,
    *,
    profiles: Profiles | None = None,
    device: SimulatedDevice | None = None,
    trt: SimulatedTensorRT | None = None,
    options: RunOptions | None = None,
    flavour: FlavourName = "trt-rtx",
) -> Engines:
    """A bundle's engines on a simulated GPU, without files.

    Args:
        bundle: The bundle.
        precisions: Of each graph; default float32.
        profiles: Of each graph; default `default_profiles`.
        device: The GPU; default one that does everything as late as it can.
        trt: The TensorRT; default one for that device.
        options: How to run them.
        flavour: What they are called.
    """
    chosen = precisions or float32(bundle.manifest.graphs)
    accepted = profiles or default_profiles(bundle.manifest.architecture)
    trt = trt or SimulatedTensorRT(device or SimulatedDevice(), flavour == "trt-rtx")
    plans = {
        graph: (memoryview(simulated_plan(bundle.graph(graph, chosen[graph]), accepted.of(graph))), None)
        for graph in graphs_of(bundle.manifest.architecture)
    }
    return engines_from_plans(flavour, trt, trt.device, plans, chosen, options)


def write_simulated_engines(
    bundle: Bundle,
    precisions: Precisions | None = None,
    *,
    profiles: Profiles | None = None,
    flavour: FlavourName = "trt-rtx",
    trusted: bool = True,
    **changes: Any,
) -> dict[GraphName, EngineFile]:
    """Puts engine files for the simulated TensorRT and GPU into a bundle, as `fmmt build` would.

    Args:
        bundle: The bundle.
        precisions: Of each graph; default float32.
        profiles: Of each graph; default `default_profiles`.
        flavour: Which TensorRT they are of.
        trusted: Whether they have passed the self-consistency gate.
        changes: Other values in their keys, to make engines that do not fit.
    """
    chosen = precisions or float32(bundle.manifest.graphs)
    accepted = profiles or default_profiles(bundle.manifest.architecture)
    files = {}
    for graph in graphs_of(bundle.manifest.architecture):
        values = {
            "graph": graph,
            "precision": chosen[graph],
            "graph_sha256": graph_sha256(bundle, graph, chosen[graph]),
            "profiles": accepted.of(graph),
            "options": BuildOptions(),
            "flavour": flavour,
            "version": VERSION,
            "target": Target(GPU.name, (GPU.compute_capability,)),
        }
        about = EngineAbout(key=EngineKey(**(values | changes)), build_seconds=0.0, flops_share={})
        plan = simulated_plan(bundle.graph(graph, chosen[graph]), accepted.of(graph))
        files[graph] = write_engine(bundle.path / FOLDER, about, memoryview(plan))
        if trusted:
            write_verdict(files[graph].path, checks=("simulated",), failed=(), gpu=GPU.name, version=VERSION)
    return files


def use_simulated(monkeypatch: pytest.MonkeyPatch, trt: SimulatedTensorRT | None = None) -> SimulatedTensorRT:
    """Makes `open_engines(bundle, "trt" or "trt-rtx", …)` use the simulated TensorRT and GPU."""
    used = trt or SimulatedTensorRT(SimulatedDevice())
    monkeypatch.setattr(load, "open_device", lambda: used.device)
    monkeypatch.setattr(load, "import_flavour", lambda _: used)
    return used
