"""One graph on TensorRT."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.protocol import Array, Tensor, Value
from fmmt_deploy.engines.ranges import ShapeRanges
from fmmt_deploy.engines.tensorrt.buffers import Staging
from fmmt_deploy.engines.tensorrt.device import ALIGNMENT, DeviceError
from fmmt_deploy.engines.tensorrt.fitting import batches, fitting_profile
from fmmt_deploy.engines.tensorrt.graphs import MOST_GRAPHS, Graphs
from fmmt_deploy.engines.tensorrt.layout import layout_of
from fmmt_deploy.engines.tensorrt.program import Context, Program
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.engines.tensorrt.shaped import Shaped
from fmmt_deploy.engines.tensorrt.tensor import DeviceTensor
from fmmt_deploy.errors import FmmtError

__all__ = ["TensorRTEngine"]

_CUT = frozenset({"swin", "plm", "unimodal"})
"""Graphs whose inputs and outputs all share their first axis: they are cut into batches that a profile takes."""

_MOST_SHAPES = 256

_log = logging.getLogger(__name__)


class _Rows:
    """Some rows of a tensor on the device."""

    __slots__ = ("address", "shape", "size_bytes")

    def __init__(self, whole: DeviceTensor, first: int, end: int) -> None:
        row_bytes = whole.size_bytes // whole.shape[0]
        self.address, self.size_bytes = whole.address + first * row_bytes, (end - first) * row_bytes
        self.shape = (end - first, *whole.shape[1:])


_Given: TypeAlias = Array | DeviceTensor | _Rows


class TensorRTEngine:
    """An engine on TensorRT or TensorRT-RTX; one thread at a time may use it.

    Its outputs stay on the device until they are asked for, and go to other engines of the same session from there.

    Args:
        program: What it runs.
        session: Where; it is kept open until `close`.
        graphs: How many CUDA graphs to keep; 0 is none at all.
        slots: How many batches may be on their way to the device: two, or uploads and computing do not overlap.
        before_close: Called when the engine is closed and all work is done.
    """

    def __init__(
        self,
        program: Program,
        session: Session,
        *,
        graphs: int = MOST_GRAPHS,
        slots: int = 2,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        session.share()
        self.graph = program.graph
        self._program, self._session, self._before_close = program, session, before_close
        self._staging = Staging(session.device, session.upload, session.compute, slots)
        self._graphs = Graphs(program, session, graphs)
        self._contexts: dict[int, Context] = {}
        self._known: dict[tuple[object, ...], Shaped] = {}
        self._is_closed = False
        self.runs = 0

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return self._program.inputs

    @property
    def shape_ranges(self) -> Sequence[ShapeRanges]:
        """Its optimisation profiles; see `Ranged`."""
        return self._program.shape_ranges

    @property
    def graph_launches(self) -> int:
        """How many of its `runs` were launched as CUDA graphs."""
        return self._graphs.launches

    @property
    def uses_graphs(self) -> bool:
        """Whether shapes that come again become CUDA graphs; False once that has failed."""
        return self._graphs.is_enabled

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`."""
        return {name: tensor.numpy() for name, tensor in self.start(inputs).items()}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        """Begins to compute all outputs; see `Engine.start`.

        Raises:
            UsageError: See `Engine.run`; or the engine was not built for such sizes.
            EnvironmentProblem: The GPU has no memory left.
            DeviceError: The GPU or TensorRT refuses.
        """
        if self._is_closed:
            raise FmmtError(f"The engine of {self.graph} was closed.")
        check_inputs(self.graph, self._program.inputs, inputs)
        values = [self._given(inputs[name]) for name in self._program.inputs]
        total = values[0].shape[0]
        if self.graph in _CUT and ((rows or total) < total or self._key(values) not in self._known):
            shapes = dict(zip(self._program.inputs, (value.shape for value in values), strict=True))
            cuts = list(batches(self.graph, self._program.profiles, shapes, rows or total))
            if len(cuts) > 1:
                return self._in_parts(values, cuts)
        shaped = self._shaped(values)
        block = self._session.blocks.take(shaped.outputs.size_bytes)
        if self._session.poison:
            self._session.device.fill(block.address, 0xFF, shaped.outputs.size_bytes, self._session.compute)
        places = shaped.outputs.places
        self._compute(shaped, values, [block.address + place.offset for place in places])
        self._session.device.record(block.event, self._session.compute)
        return {place.name: DeviceTensor(self._session, block, place) for place in places}

    def place(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """See `Placing.place`.

        Raises:
            EnvironmentProblem: The GPU has no memory left.
        """
        session, device = self._session, self._session.device
        arrays = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
        layout = layout_of((name, array.shape, array.dtype) for name, array in arrays.items())
        if not layout.size_bytes:
            return dict(inputs)
        block, pinned = session.blocks.take(layout.size_bytes), session.pinned.take(layout.size_bytes)
        for place in layout.places:
            place.view(pinned.array)[...] = arrays[place.name]
        device.upload(block.address, pinned.address, layout.size_bytes, session.compute)
        device.record(block.event, session.compute)
        device.synchronize_stream(session.compute)
        session.pinned.give(pinned)
        return {**inputs, **{place.name: DeviceTensor(session, block, place) for place in layout.places}}

    def close(self) -> None:
        """Frees all but the answers that are still held, which go with the last engine of the session."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._session.synchronize()
            self._before_close()
            self._graphs.close()
            self._staging.close()
            for context in self._contexts.values():
                context.close()
            self._contexts.clear()
            self._program.close()
            self._session.release()
        except DeviceError as error:  # the GPU failed before, which was said then; nothing on it can be freed any more
            self._session.is_closed = True
            _log.debug("closing %s: %s", self.graph, error)

    def _in_parts(self, values: Sequence[_Given], cuts: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Computes batch after batch into one block."""
        session, total = self._session, cuts[-1][1]
        parts = [[_rows(value, *cut) for value in values] for cut in cuts]
        outputs = self._shaped(parts[0]).outputs.places
        layout = layout_of((place.name, (total, *place.shape[1:]), place.dtype) for place in outputs)
        block = session.blocks.take(layout.size_bytes)
        if session.poison:
            session.device.fill(block.address, 0xFF, layout.size_bytes, session.compute)
        for part, (first, _) in zip(parts, cuts, strict=True):
            offsets = (place.offset + first * (place.size_bytes // total) for place in layout.places)
            self._compute(self._shaped(part), part, [block.address + offset for offset in offsets])
        session.device.record(block.event, session.compute)
        return {place.name: DeviceTensor(session, block, place) for place in layout.places}

    def _compute(self, shaped: Shaped, values: Sequence[_Given], targets: Sequence[int]) -> None:
        """Puts one run on the compute stream.

        Args:
            shaped: What is known of its shape.
            values: Its inputs.
            targets: Where each output is to go, aligned or not.
        """
        self.runs += 1
        arrays = [value for value in values if type(value) is np.ndarray]
        others = [value.address for value in values if not isinstance(value, np.ndarray)]
        try:
            packed = self._staging.put(shaped.packed, arrays) if arrays else 0
            if self._graphs.wants(shaped):
                self._graphs.run(shaped, packed, others, targets)
            else:
                self._enqueue(shaped, packed, others, targets)
        finally:
            self._staging.release()

    def _enqueue(self, shaped: Shaped, packed: int, others: Sequence[int], targets: Sequence[int]) -> None:
        """One run without a CUDA graph."""
        device, stream, blocks = self._session.device, self._session.compute, self._session.blocks
        context = self._context(shaped.profile)
        context.set_shapes(shaped.shapes)
        for place in shaped.packed.places:
            context.bind(place.name, packed + place.offset)
        held, late = [], []  # blocks are held until all that uses them is on the stream
        for place, address in zip(shaped.others.places, others, strict=True):
            if address % ALIGNMENT:
                held.append(block := blocks.take(place.size_bytes))
                device.copy(block.address, address, place.size_bytes, stream)
                address = block.address
            context.bind(place.name, address)
        for place, target in zip(shaped.outputs.places, targets, strict=True):
            if target % ALIGNMENT:
                held.append(block := blocks.take(place.size_bytes))
                late.append((target, block.address, place.size_bytes))
                target = block.address
            context.bind(place.name, target)
        context.enqueue(stream)
        for target, source, size_bytes in late:
            device.copy(target, source, size_bytes, stream)

    def _shaped(self, values: Sequence[_Given]) -> Shaped:
        """What is known of inputs like these; found out at their first run."""
        key = self._key(values)
        if (known := self._known.get(key)) is not None:
            return known
        shapes = dict(zip(self._program.inputs, (value.shape for value in values), strict=True))
        profile = fitting_profile(self.graph, self._program.profiles, shapes)
        context = self._context(profile)
        context.set_shapes(shapes)
        found = context.output_shapes()
        outputs = {name: (found[name], dtype) for name, dtype in self._program.outputs.items()}
        there = zip(self._program.inputs, values, strict=True)
        from_device = frozenset(name for name, value in there if not isinstance(value, np.ndarray))
        if len(self._known) >= _MOST_SHAPES:
            self._known.pop(next(iter(self._known)))
        shaped = self._known[key] = Shaped(profile, shapes, self._program.inputs, from_device, outputs)
        return shaped

    def _context(self, profile: int) -> Context:
        """The context for a profile: one each, because switching costs a synchronisation."""
        if (context := self._contexts.get(profile)) is None:
            context = self._contexts[profile] = self._program.create_context(profile)
        return context

    def _given(self, value: Value) -> _Given:
        if type(value) is np.ndarray:
            return value
        if isinstance(value, DeviceTensor) and value.session is self._session:
            return value
        return np.asarray(value if isinstance(value, np.ndarray) else value.numpy())

    @staticmethod
    def _key(values: Sequence[_Given]) -> tuple[object, ...]:
        return (*[value.shape for value in values], *[type(value) is np.ndarray for value in values])


def _rows(value: _Given, first: int, end: int) -> _Given:
    if isinstance(value, DeviceTensor):
        return _Rows(value, first, end)
    assert isinstance(value, np.ndarray)
    return value[first:end]
