"""A small builder of ONNX graphs whose large weights stay where they are: in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OPSET", "GraphBuilder", "WeightFile"]

OPSET = 20
IR_VERSION = 10
Array = NDArray[Any]


@dataclass(frozen=True)
class WeightFile:
    """Where each tensor of a safetensors file begins.

    Attributes:
        path: The file.
        entries: Name → (shape, byte offset in the file).
    """

    path: Path
    entries: Mapping[str, tuple[tuple[int, ...], int]]

    @classmethod
    def open(cls, path: Path) -> WeightFile:
        """Reads the header of a file of float32 tensors (format: safetensors, a length, a JSON header, the data)."""
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        entries = {
            name: (tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] == "F32"
        }
        return cls(path, entries)

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor, copied."""
        shape, offset = self.entries[name]
        count = int(np.prod(shape, dtype=np.int64))
        return np.fromfile(self.path, np.float32, count, offset=offset).reshape(shape)


class GraphBuilder:
    """Collects nodes; each method adds some and returns the name of what they compute.

    Args:
        name: The graph's name.
        weights: The file that `weight` refers to.
    """

    def __init__(self, name: str, weights: WeightFile) -> None:
        self.name, self.weights = name, weights
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of the nodes added inside."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declares an input; a named dimension is dynamic."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Declares `value` as the output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(_value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds one operator with one output."""
        base = "/".join([*self._scope, kind])
        self._counts[base] = count = self._counts.get(base, -1) + 1
        name = f"{base}_{count}" if count else base
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Array | np.generic | Sequence[int] | float) -> str:
        """A small constant, kept in the graph itself; equal ones are shared. Integers are int64, floats float32."""
        array = np.ascontiguousarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32).reshape(np.shape(value))
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def weight(self, name: str, rows: slice | None = None, shape: tuple[int, ...] | None = None) -> str:
        """A tensor of the weight file, by reference.

        Args:
            name: Its name there.
            rows: Only these rows of it, under a name of their own (the packed projections are cut like this).
            shape: Seen as this shape.
        """
        full, offset = self.weights.entries[name]
        if rows is not None:
            first, last, _ = rows.indices(full[0])
            offset += 4 * first * int(np.prod(full[1:], dtype=np.int64))
            full, name = (last - first, *full[1:]), f"{name}[{first}:{last}]"
        if name not in self._initializers:
            self._initializers[name] = _external_tensor(name, shape or full, self.weights.path.name, offset)
        return name

    def linear(self, x: str, name: str, rows: slice | None = None, bias: bool = True) -> str:
        """`x` (rows, in) times the transposed `name.weight` (out, in), plus `name.bias`."""
        inputs = [x, self.weight(f"{name}.weight", rows)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", rows))
        return self.op("Gemm", *inputs, transB=1)

    def layer_norm(self, x: str, name: str, eps: float) -> str:
        """LayerNorm over the last axis, as the operator of that name (its statistics are float32)."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape; −1 is inferred, 0 is kept."""
        return self.op("Reshape", x, self.constant(list(shape)))

    def transpose(self, x: str, *perm: int) -> str:
        """Permutes the axes."""
        return self.op("Transpose", x, perm=list(perm))

    def add(self, x: str, value: Array | np.generic | float) -> str:
        """Adds a constant."""
        return self.op("Add", x, self.constant(np.asarray(value, np.float32)))

    def mul(self, x: str, value: Array | np.generic | float) -> str:
        """Multiplies by a constant."""
        return self.op("Mul", x, self.constant(np.asarray(value, np.float32)))

    def model(self) -> onnx.ModelProto:
        """The finished model; its external data is not loaded."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fmmt-deploy",
        )


def _value_info(name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


def _external_tensor(name: str, shape: tuple[int, ...], location: str, offset: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    length = 4 * int(np.prod(shape, dtype=np.int64))
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor
