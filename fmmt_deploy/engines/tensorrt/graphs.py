"""CUDA graphs: what an engine does for one shape, launched as one thing.

Launching hundreds of kernels one by one costs more than the small ones take. So a shape that comes again is captured:
with a context of its own, whose shapes then never change, and with static memory for inputs and outputs, into and out
of which is copied on the device.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

from fmmt_deploy.engines.tensorrt.buffers import Block
from fmmt_deploy.engines.tensorrt.device import CaptureError, DeviceError
from fmmt_deploy.engines.tensorrt.program import Context, Program
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.engines.tensorrt.shaped import Shaped
from fmmt_deploy.errors import EnvironmentProblem

__all__ = ["MOST_GRAPHS", "Graphs"]

MOST_GRAPHS = 32
"""Graphs an engine keeps: each holds a context and the memory of its inputs and outputs. One dialogue after the other
has some twenty shapes, for as many counts of faces: with fewer than those, each would be let go before it comes again,
and with TensorRT-RTX compiled in vain."""

_log = logging.getLogger(__name__)


class _Captured:
    """A shape with its context, its static memory, and its graph (0 until it is captured)."""

    def __init__(self, context: Context, inputs: Block, outputs: Block) -> None:
        self.context, self.inputs, self.outputs = context, inputs, outputs
        self.graph = 0


class Graphs:
    """The graphs of one engine, by shape; the least recently used goes first.

    Args:
        program: The engine.
        session: Where it runs.
        most: How many to keep; 0 is none at all.

    Attributes:
        launches: How many runs were launched as graphs.
    """

    def __init__(self, program: Program, session: Session, most: int = MOST_GRAPHS) -> None:
        self._program, self._session, self._most = program, session, most
        self._captured: OrderedDict[Shaped, _Captured] = OrderedDict()
        self._retired: list[tuple[_Captured, int]] = []
        self.launches = 0

    @property
    def is_enabled(self) -> bool:
        """Whether shapes are captured: no longer, once a capture failed."""
        return self._most > 0

    def wants(self, shaped: Shaped) -> bool:
        """Whether a run of this shape, which is counted, is for `run`; makes what that needs."""
        shaped.runs += 1
        if shaped in self._captured:
            self._captured.move_to_end(shaped)
            return True
        if self._most <= 0 or shaped.runs < shaped.patience:
            return False
        try:
            self._add(shaped)
        except EnvironmentProblem as error:  # memory is short; it can still be computed without a graph
            self._give_up(f"{error.what} {error.why}")
        return self._most > 0

    def run(self, shaped: Shaped, packed: int, others: Sequence[int], targets: Sequence[int]) -> None:
        """Does one run on the compute stream; afterwards, inputs may be overwritten in the order of that stream.

        Args:
            shaped: The shape, which `wants` was asked about just before.
            packed: Where the inputs from the host lie, as `shaped.packed` lays them out.
            others: Where each of the other inputs lies.
            targets: Where each output is to go.
        """
        captured = self._captured[shaped]
        session, device, stream = self._session, self._session.device, self._session.compute
        start = captured.inputs.address
        if shaped.packed.size_bytes:
            device.copy(start, packed, shaped.packed.size_bytes, stream)
        start += shaped.packed.size_bytes
        for place, address in zip(shaped.others.places, others, strict=True):
            device.copy(start + place.offset, address, place.size_bytes, stream)
        start = captured.outputs.address
        if session.poison:
            device.fill(start, 0xFF, shaped.outputs.size_bytes, stream)
        if captured.graph:
            device.launch(captured.graph, stream)
            self.launches += 1
        else:
            captured.context.enqueue(stream)
        for place, address in zip(shaped.outputs.places, targets, strict=True):
            device.copy(address, start + place.offset, place.size_bytes, stream)
        if not captured.graph:
            self._capture(captured)

    def close(self) -> None:
        """Frees all graphs; waits for those that run."""
        self._session.device.synchronize_stream(self._session.compute)
        while self._captured:
            self._retire(self._captured.popitem())
        self._bury()

    def _add(self, shaped: Shaped) -> None:
        """Makes a context and memory for a shape; its first run is an ordinary one: a capture needs one before it."""
        while len(self._captured) >= self._most:
            old, captured = self._captured.popitem(last=False)
            old.patience, old.runs = 2 * old.patience, 0  # or shapes that come in turn would be captured at every call
            self._retire((old, captured))
        context = self._program.create_context(shaped.profile, one_shape=True)
        context.set_shapes(shaped.shapes)
        inputs = self._session.blocks.take(shaped.packed.size_bytes + shaped.others.size_bytes)
        outputs = self._session.blocks.take(shaped.outputs.size_bytes)
        shaped.bind(context, inputs.address, inputs.address + shaped.packed.size_bytes, outputs.address)
        self._captured[shaped] = _Captured(context, inputs, outputs)

    def _capture(self, captured: _Captured) -> None:
        device, stream = self._session.device, self._session.compute
        if not captured.context.is_capturable(stream):
            self._give_up("TensorRT says that this engine's runs can't be captured")
            return
        try:
            device.begin_capture(stream)
            try:
                captured.context.enqueue(stream)
            except BaseException:  # also Ctrl-C: the stream must not stay in a capture
                self._abandon(stream)
                raise
            captured.graph = device.end_capture(stream)
        except DeviceError as error:
            self._give_up(f"{error.what} {error.why}")

    def _abandon(self, stream: int) -> None:
        """Ends a capture in which something was refused."""
        try:
            self._session.device.destroy_graph(self._session.device.end_capture(stream))
        except CaptureError:
            return  # as was to be expected: the stream is no longer captured, and there is no graph

    def _give_up(self, why: str) -> None:
        _log.warning("%s runs without CUDA graphs, and so slower: %s", self._program.graph, why)
        self._most = 0
        while self._captured:
            self._retire(self._captured.popitem())

    def _retire(self, item: tuple[Shaped, _Captured]) -> None:
        """Destroys what was retired before, whose last use is long past, and puts this in its place."""
        self._bury()
        event = self._session.device.create_event()
        self._session.device.record(event, self._session.compute)
        self._retired.append((item[1], event))

    def _bury(self) -> None:
        device = self._session.device
        while self._retired:
            captured, event = self._retired.pop()
            device.synchronize_event(event)
            device.destroy_event(event)
            if captured.graph:
                device.destroy_graph(captured.graph)
            captured.context.close()
