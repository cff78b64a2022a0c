"""One part of the reference model on a device, where its outputs stay.

Float32 is float32: TF32, which PyTorch allows convolutions by default, is off, so that this is a reference on the same
card. FP16 and BF16 are PyTorch's autocast, as the published code computes: weights stay float32 and are rounded again
in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.engines.torch.engine import INPUTS
from fmmt_deploy.errors import EnvironmentProblem, FmmtError
from fmmt_deploy.types import GraphName

if TYPE_CHECKING:
    import torch

    from fmmt_deploy.reference.model import ReferenceModel

__all__ = ["AUTOCAST", "ON_HOST", "DeviceEngine", "DeviceTensor"]

AUTOCAST: Mapping[Precision, str] = {"fp16": "float16", "bf16": "bfloat16"}
"""Precisions that are autocast, and PyTorch's names for them."""

ON_HOST = {
    "fusion": (
        "text_row",
        "text_start",
        "text_length",
        "vision",
        "vision_mask",
        "face_logits",
        "face_index",
        "noise",
    )
}
"""Inputs that decide what is computed: the reference asks for their values one by one, and each would wait for the
device. So the gate is on the host, and only what it let through goes up."""


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """A PyTorch tensor.

    Attributes:
        tensor: It, perhaps still being computed.
        ready: Is reached when it is there; None where it is already.
    """

    tensor: torch.Tensor
    ready: torch.cuda.Event | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        return np.dtype(str(self.tensor.dtype).removeprefix("torch."))

    def numpy(self) -> Array:
        """Its numbers, on the host; waits for them, but not for what was started later."""
        import torch

        array: Array
        if self.ready is None:
            array = self.tensor.cpu().numpy()
        else:
            aside = torch.cuda.Stream(self.tensor.device)  # type: ignore[no-untyped-call]
            aside.wait_event(self.ready)
            with torch.cuda.stream(aside):
                array = self.tensor.cpu().numpy()
        return array


class DeviceEngine:
    """An engine on PyTorch, on a device.

    Args:
        graph: Which part it runs.
        model: The reference model, already on the device, shared by the engines of its parts.
        device: As PyTorch names it; on `cpu` all is there when `start` returns.
        precision: Of its matrix products.
    """

    def __init__(self, graph: GraphName, model: ReferenceModel, device: str, precision: Precision = "fp32") -> None:
        self.graph, self.device, self.precision = graph, device, precision
        self._model: ReferenceModel | None = model

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return INPUTS[self.graph]

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`."""
        return {name: tensor.numpy() for name, tensor in self.start(inputs).items()}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Begins to compute all outputs; see `Engine.start`.

        Raises:
            EnvironmentProblem: The device's memory is full.
            FmmtError: PyTorch fails, or can't compile the model.
        """
        import torch

        if self._model is None:
            raise RuntimeError("the engine is closed")
        check_inputs(self.graph, self.inputs, inputs)
        total = max(value.shape[0] for value in inputs.values())
        try:
            with self._settings(), torch.inference_mode():
                parts = (
                    [self._part(self._model, inputs, None, None)]
                    if rows is None or rows >= total
                    else [self._part(self._model, inputs, first, first + rows) for first in range(0, total, rows)]
                )
                outputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        except RuntimeError as error:
            raise _failed(self.graph, self.device, error) from error
        return {name: DeviceTensor(tensor, _ready(tensor)) for name, tensor in outputs.items()}

    def place(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """See `Placing.place`; what `ON_HOST` names stays on the host."""
        import torch

        on_host = ON_HOST.get(self.graph, ())
        placed: dict[str, Value] = {
            name: value if name in on_host else DeviceTensor(_moved(value, self.device, None, None))
            for name, value in inputs.items()
        }
        if self.device != "cpu":
            torch.cuda.synchronize()
        return placed

    def close(self) -> None:
        """Lets the model go."""
        self._model = None

    def _part(
        self, model: ReferenceModel, inputs: Mapping[str, Value], first: int | None, end: int | None
    ) -> dict[str, torch.Tensor]:
        on_host = ON_HOST.get(self.graph, ())
        tensors = {n: _moved(v, "cpu" if n in on_host else self.device, first, end) for n, v in inputs.items()}
        outputs = model.run(self.graph, tensors)
        return {n: t.float() if t.is_floating_point() else t for n, t in outputs.items()}

    @contextmanager
    def _settings(self) -> Iterator[None]:
        import torch

        with ExitStack() as stack:
            if self.device != "cpu":
                stack.enter_context(_without_tf32())
            if self.precision in AUTOCAST:
                kind = getattr(torch, AUTOCAST[self.precision])
                stack.enter_context(torch.autocast(torch.device(self.device).type, kind))
            yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Kernels are chosen when they are started, so it is enough that these hold until then."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _moved(value: Value, device: str, first: int | None, end: int | None) -> torch.Tensor:
    """Some rows of a value as a tensor on a device, whatever the caller does with its array afterwards."""
    import torch

    if isinstance(value, DeviceTensor) and value.tensor.device.type == torch.device(device).type:
        return value.tensor[first:end]
    array = (value if isinstance(value, np.ndarray) else value.numpy())[first:end]
    on_device = device != "cpu"
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    # pinned, or the copy to the device would wait for all that the device still has to do
    copied = torch.empty(array.shape, dtype=kind, pin_memory=on_device)
    copied.numpy()[...] = array
    return copied.to(device, non_blocking=True) if on_device else copied


def _ready(tensor: torch.Tensor) -> torch.cuda.Event | None:
    import torch

    if not tensor.is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _failed(graph: GraphName, device: str, error: RuntimeError) -> FmmtError:
    import torch

    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, torch.OutOfMemoryError):
        return EnvironmentProblem(
            f"The memory of {device} is too small for this run of {graph}.", why=why, fix="Use a smaller --batch-size."
        )
    return FmmtError(f"{graph} failed in PyTorch on {device}: {type(error).__name__}.", why=why, fix="See `--debug`.")
