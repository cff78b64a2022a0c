"""One graph in an ONNX Runtime session whose inputs and outputs stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.ort.engine import TYPES, failed
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GraphName

__all__ = ["BoundOrtEngine", "OrtTensor"]


@dataclass(frozen=True, slots=True)
class OrtTensor:
    """An output where it was computed.

    Attributes:
        value: The `onnxruntime.OrtValue`.
        dtype: Its type.
        device: `cuda` or `cpu`.
    """

    value: Any
    dtype: np.dtype[Any]
    device: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""
        return tuple(self.value.shape())

    def numpy(self) -> Array:
        """Its numbers, copied to the host."""
        array: Array = self.value.numpy()
        return array


class BoundOrtEngine:
    """An engine on a GPU provider of ONNX Runtime.

    A run has ended when `start` returns: ONNX Runtime waits for the device. What it spares is the way to the host and
    back between graphs.

    Args:
        graph: Which graph it is.
        session: The session, an `onnxruntime.InferenceSession`.
        ort_value: The class `onnxruntime.OrtValue`.
        device: Where inputs and outputs lie, `cuda` or `cpu`.
    """

    def __init__(self, graph: GraphName, session: Any, ort_value: Any, device: str) -> None:
        self.graph, self.device = graph, device
        self._session, self._ort_value = session, ort_value
        self._inputs: dict[str, np.dtype[Any]] = {value.name: TYPES[value.type] for value in session.get_inputs()}
        self._outputs = {value.name: (TYPES[value.type], value.shape[1:]) for value in session.get_outputs()}

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return self._inputs

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`."""
        return {name: tensor.numpy() for name, tensor in self.start(inputs).items()}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Computes all outputs; see `Engine.start`.

        Raises:
            UsageError: See `Engine.run`; or outputs can't be put together from parts, their other axes vary.
            FmmtError: ONNX Runtime failed.
        """
        check_inputs(self.graph, self._inputs, inputs)
        values = {name: self._placed(value) for name, value in inputs.items()}
        total = max(value.shape()[0] for value in values.values())
        if rows is not None and rows < total:
            return self._in_parts(values, total, rows)
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device, 0)
        self._run(binding, values)
        return self._tensors(dict(zip(self._outputs, binding.get_outputs(), strict=True)))

    def place(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """See `Placing.place`."""
        return {n: OrtTensor(self._placed(value), self._inputs[n], self.device) for n, value in inputs.items()}

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _in_parts(self, values: Mapping[str, Any], total: int, rows: int) -> dict[str, Tensor]:
        """Computes so many rows at a time, each part into its place of the whole: nothing is put together later."""
        outputs = {}
        for name, (dtype, rest) in self._outputs.items():
            if not all(isinstance(size, int) for size in rest):
                raise UsageError(
                    f"{self.graph} can't be computed in parts: {name} has the shape {rest} beside its rows."
                )
            outputs[name] = self._ort_value.ortvalue_from_shape_and_type([total, *rest], dtype.type, self.device, 0)
        for first in range(0, total, rows):
            binding, count = self._session.io_binding(), min(rows, total - first)
            for name, value in values.items():
                _bind(binding.bind_input, name, self.device, self._inputs[name], value, first, count)
            for name, value in outputs.items():
                _bind(binding.bind_output, name, self.device, self._outputs[name][0], value, first, count)
            self._run(binding, values)
        return self._tensors(outputs)

    def _placed(self, value: Value) -> Any:
        """On the device: another engine's output as it is, anything else copied there."""
        if isinstance(value, OrtTensor) and value.device == self.device:
            return value.value
        array = value if isinstance(value, np.ndarray) else value.numpy()
        return self._ort_value.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)

    def _run(self, binding: Any, values: Mapping[str, Any]) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise failed(self.graph, {name: tuple(value.shape()) for name, value in values.items()}, error) from error

    def _tensors(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: OrtTensor(value, self._outputs[name][0], self.device) for name, value in values.items()}


def _bind(
    bind: Callable[..., None], name: str, device: str, dtype: np.dtype[Any], value: Any, first: int, count: int
) -> None:
    """Binds `count` rows of a value on the device."""
    rest = value.shape()[1:]
    address = value.data_ptr() + first * int(np.prod(rest, dtype=np.int64)) * dtype.itemsize
    bind(name, device, 0, dtype.type, [count, *rest], address)
