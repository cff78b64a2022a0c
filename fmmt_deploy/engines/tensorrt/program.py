"""A deserialised engine of TensorRT's: what it takes and gives, and its contexts, with every answer checked.

TensorRT says no by returning False or None; here that becomes an error with what TensorRT logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from fmmt_deploy.engines.ranges import ShapeRanges
from fmmt_deploy.engines.tensorrt.device import DeviceError
from fmmt_deploy.engines.tensorrt.flavour import Message, logger
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.errors import BundleError, EnvironmentProblem, FmmtError
from fmmt_deploy.types import GraphName

__all__ = ["AXES", "Context", "Limits", "Program"]

Limits: TypeAlias = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Of one optimisation profile, for each input its smallest and largest shape."""

AXES: Mapping[str, tuple[str, ...]] = {
    "faces": ("faces",),
    "input_ids": ("dialogues", "tokens"),
    "attention_mask": ("dialogues", "tokens"),
    "token_states": ("dialogues", "tokens"),
    "text_row": ("utterances",),
    "text_start": ("utterances",),
    "text_length": ("utterances",),
    "audio": ("utterances",),
    "audio_length": ("utterances",),
    "vision": ("utterances",),
    "vision_mask": ("utterances",),
    "face_logits": ("faces",),
    "face_index": ("utterances",),
    "noise": ("utterances",),
}
"""For each input, in whichever graph, the names of its axes that may vary: its first; an engine knows only sizes."""

_TYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""TensorRT's names of the types that NumPy has, too."""


_MOST_MESSAGES = 32
"""What TensorRT logged is kept for an error that may follow, but not for ever."""


class Program:
    """An engine of TensorRT's, and the memory that its contexts compute in.

    Args:
        graph: Which graph it is.
        trt: TensorRT, the module.
        engine: Its `ICudaEngine`.
        runtime: The `Runtime` that deserialised it, which must outlive it.
        session: Whose scratch memory the contexts share.
        runtime_cache: Where TensorRT-RTX keeps the kernels it compiles, an `IRuntimeCache`; None for TensorRT.

    Attributes:
        inputs: Name and type of each input.
        outputs: Name and type of each output.
        shape_ranges: What each optimisation profile accepts, and is fastest at.
        profiles: What each optimisation profile accepts.
        scratch_bytes: The scratch memory that the most demanding profile needs.

    Raises:
        BundleError: The engine has a tensor of a type, or in a place, that ours never have.
    """

    def __init__(
        self,
        graph: GraphName,
        trt: Any,
        engine: Any,
        runtime: Any,
        session: Session,
        runtime_cache: Any = None,
    ) -> None:
        self.graph, self._trt, self._engine, self._runtime = graph, trt, engine, runtime
        self._session, self._runtime_cache = session, runtime_cache
        self._messages: deque[Message] = deque(maxlen=_MOST_MESSAGES)
        logger(trt).listeners.append(self._messages)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        self.inputs = {name: self._dtype(name) for name in names if modes[name] == trt.TensorIOMode.INPUT}
        self.outputs = {name: self._dtype(name) for name in names if modes[name] == trt.TensorIOMode.OUTPUT}
        self.shape_ranges = tuple(self._shapes(number) for number in range(engine.num_optimization_profiles))
        self.profiles = tuple(_limits(shapes) for shapes in self.shape_ranges)
        self.scratch_bytes: int = engine.device_memory_size_v2

    def create_context(self, profile: int, *, one_shape: bool = False) -> Context:
        """Makes a context, in the shared scratch memory.

        Args:
            profile: Which optimisation profile it is for.
            one_shape: Whether it will only ever see one shape: TensorRT-RTX then compiles for just that, at once.

        Raises:
            EnvironmentProblem: TensorRT has no memory for it.
        """
        context = self._created(one_shape)
        if context is None:
            raise EnvironmentProblem(
                f"TensorRT can't make a context for {self.graph}.",
                why=self.said(),
                fix="Free some of the GPU's memory.",
            )
        if self.scratch_bytes:
            context.set_device_memory(*self._session.scratch(self.scratch_bytes))
        if not context.set_optimization_profile_async(profile, self._session.compute):
            raise self.failed(f"did not take profile {profile}")
        return Context(self, context)

    def said(self) -> str:
        """What TensorRT logged as errors and warnings since this was asked last, on one line."""
        told = [" ".join(message.text.split()) for message in self._messages if message.kind != "layers"]
        self._messages.clear()
        return " | ".join(dict.fromkeys(told))

    def failed(self, what: str) -> DeviceError:
        """An error of ours for a call that TensorRT answered with False."""
        return DeviceError(
            f"TensorRT {what} in {self.graph}.",
            why=self.said(),
            fix="Build the engine again; if it stays like that, use --engine ort.",
        )

    def close(self) -> None:
        """Frees the engine; its contexts must be gone."""
        listeners = logger(self._trt).listeners
        listeners[:] = [listener for listener in listeners if listener is not self._messages]
        self._engine = self._runtime_cache = None
        self._runtime = None

    def _created(self, one_shape: bool) -> Any:
        if self._engine is None:
            raise FmmtError(f"The engine of {self.graph} was closed.")
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._runtime_cache is None:
            return self._engine.create_execution_context(strategy)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.set_runtime_cache(self._runtime_cache)
        kernels = self._trt.DynamicShapesKernelSpecializationStrategy
        # LAZY compiles kernels for a shape in the background: a graph would keep for good what was used meanwhile
        config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER if one_shape else kernels.LAZY
        return self._engine.create_execution_context(config)

    def _dtype(self, name: str) -> np.dtype[Any]:
        found = self._engine.get_tensor_dtype(name)
        dtype = _TYPES.get(found.name)
        if dtype is None or self._engine.get_tensor_location(name) != self._trt.TensorLocation.DEVICE:
            raise BundleError(
                f"The engine of {self.graph} has {name} as {found.name}, at {self._engine.get_tensor_location(name)}.",
                why=f"Expected one of {', '.join(_TYPES)} in device memory.",
                fix="Build it again with this version.",
                tensor=name,
            )
        return dtype

    def _shapes(self, number: int) -> ShapeRanges:
        shapes = {name: self._engine.get_tensor_profile_shape(name, number) for name in self.inputs}
        return {name: (tuple(low), tuple(usual), tuple(high)) for name, (low, usual, high) in shapes.items()}


def _limits(shapes: ShapeRanges) -> Limits:
    return {name: (smallest, largest) for name, (smallest, _, largest) in shapes.items()}


class Context:
    """One of TensorRT's execution contexts.

    Args:
        program: Its engine.
        context: The `IExecutionContext`.
    """

    def __init__(self, program: Program, context: Any) -> None:
        self._program, self._context = program, context
        self._set_address, self._execute = context.set_tensor_address, context.execute_async_v3
        self._shapes: Mapping[str, tuple[int, ...]] | None = None

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Sets the shape of every input.

        Args:
            shapes: Within the context's profile. If it is the same object as the last time, nothing is done.

        Raises:
            DeviceError: TensorRT refuses them.
        """
        if shapes is self._shapes:
            return
        self._shapes = None
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._program.failed(f"did not take {name} as {shape}")
        self._shapes = shapes

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the outputs will be like, given the inputs' shapes.

        Raises:
            DeviceError: TensorRT does not know: they depend on data.
        """
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._program.outputs}
        for name, shape in shapes.items():
            if any(size < 0 for size in shape):
                raise self._program.failed(f"can't tell the shape of {name}: {shape}")
        return shapes

    def bind(self, name: str, address: int) -> None:
        """Says where a tensor is, on the device, aligned to `ALIGNMENT`.

        Raises:
            DeviceError: TensorRT refuses it.
        """
        if not self._set_address(name, address):
            raise self._program.failed(f"did not take an address for {name}")

    def enqueue(self, stream: int) -> None:
        """Puts one run on a stream.

        Raises:
            DeviceError: TensorRT refuses.
        """
        if not self._execute(stream):
            raise self._program.failed("could not start a run")

    def is_capturable(self, stream: int) -> bool:
        """Whether a run can be captured into a graph, as far as TensorRT can say before."""
        ask = getattr(self._context, "is_stream_capturable", None)  # TensorRT 10.12 can't say
        return ask is None or bool(ask(stream))

    def close(self) -> None:
        """Frees it; no run may be under way."""
        self._context = self._set_address = self._execute = None
