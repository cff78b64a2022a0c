"""Engines whose answers depend on what they must not depend on: their batch, its order, padding, what was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fmmt_deploy.engines.host import HostTensor, arrays_from_values
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.types import GraphName
from tests.parity.faults import Fault, FaultyEngine, Outputs

Inputs = Mapping[str, Array]
Run = Callable[[Inputs], Outputs]
Conduct = Callable[[Run], Run]
"""Makes of a right engine's `run` a wrong one, which may remember what it was asked."""


class MisbehavingEngine(FaultyEngine):
    """An engine whose answers depend on what they must not depend on."""

    def __init__(self, engine: Engine, conduct: Conduct) -> None:
        super().__init__(engine, lambda outputs: outputs)
        self._wrong = conduct(super().run)

    def run(self, inputs: Mapping[str, Value]) -> Outputs:
        return self._wrong(arrays_from_values(inputs))


class SharedBufferEngine(FaultyEngine):
    """Returns from `start` the one buffer that it computes into every time."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, lambda outputs: outputs)
        self._buffers: dict[str, Array] = {}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        for name, tensor in super().start(inputs, rows).items():
            array = tensor.numpy()
            if name not in self._buffers or self._buffers[name].shape != array.shape:
                self._buffers[name] = array
            self._buffers[name][...] = array
        return {name: HostTensor(array) for name, array in self._buffers.items()}


class LateReadingEngine(FaultyEngine):
    """Reads the inputs of `start` when its outputs are asked for, whatever they are by then."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, lambda outputs: outputs)

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        shapes = super().start(inputs, rows)

        def read(name: str) -> Array:
            return super(LateReadingEngine, self).start(inputs, rows)[name].numpy()

        return {name: LateTensor(tensor, name, read) for name, tensor in shapes.items()}


class LateTensor:
    """What is computed when it is read."""

    def __init__(self, like: Tensor, name: str, read: Callable[[str], Array]) -> None:
        self.shape, self.dtype, self._name, self._read = like.shape, like.dtype, name, read

    def numpy(self) -> Array:
        return self._read(self._name)


class LosesRowsEngine(FaultyEngine):
    """Forgets, where rows go through in parts, that the last part is shorter."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, lambda outputs: outputs)

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        outputs = {name: tensor.numpy() for name, tensor in super().start(inputs, rows).items()}
        for array in outputs.values():
            if rows is not None and (last := len(array) % rows):
                array[-last:] = array[1 : 1 + last]
        return {name: HostTensor(array) for name, array in outputs.items()}


def _floats(outputs: Outputs) -> Iterator[Array]:
    return (array for array in outputs.values() if array.dtype.kind == "f")


def places_differ(right: Run) -> Run:
    """Equal rows get other answers in other places: NVIDIA/TensorRT issues 4796 and, with more, 4813."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        for array in _floats(outputs):
            array += 0.002 * np.arange(len(array)).reshape(-1, *[1] * (array.ndim - 1))
        return outputs

    return run


def rows_leak(right: Run) -> Run:
    """What the last row holds moves all others by a thousandth: issue 4813."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        for array in _floats(outputs):
            array[:-1] += 0.002 * array[-1:].mean()
        return outputs

    return run


def larger_batches_are_wrong(right: Run) -> Run:
    """Right for one row, wrong by orders of magnitude for more: issue 4853."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        for array in _floats(outputs):
            array *= 1 if len(array) == 1 else 100
        return outputs

    return run


def order_matters(right: Run) -> Run:
    """The first row's answer is mixed into the second's, so that it depends on which that is."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        for array in _floats(outputs):
            array[1:2] += 0.01 * array[:1]
        return outputs

    return run


def padding_leaks(right: Run) -> Run:
    """Each padded place moves the real tokens' states a little."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        if "attention_mask" in inputs:
            outputs["token_states"] += 1e-3 * (inputs["attention_mask"] == 0).sum(1)[:, None, None]
        if "token_states" in inputs:
            outputs["logits"] += 1e-4 * inputs["token_states"][:, -1].mean()
        return outputs

    return run


def padding_is_read(right: Run) -> Run:
    """What is written in padded places comes through."""

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        if "attention_mask" in inputs:
            hidden = (inputs["input_ids"] * (inputs["attention_mask"] == 0)).sum(1)
            outputs["token_states"] += 1e-3 * (hidden > 0)[:, None, None]
        if "face_logits" in inputs:
            outputs["logits"] += 1e-3 * (np.abs(inputs["face_logits"]).max() > 100)
        return outputs

    return run


def stale_after_another_shape(right: Run) -> Run:
    """The first answer in a new shape still has the last row that was computed before, in another."""
    last: dict[str, Array] = {}

    def run(inputs: Inputs) -> Outputs:
        outputs = right(inputs)
        before = {name: array.copy() for name, array in outputs.items()}
        for name, array in outputs.items():
            old = last.get(name)
            if array.dtype.kind == "f" and old is not None and old.shape != array.shape:
                array[0] = np.resize(old[-1], array[0].shape) + 0.01
        last.update(before)
        return outputs

    return run


def nan_at(rows: int) -> Conduct:
    """NaN in batches of so many rows or more: issues 2869 and 2943."""

    def conduct(right: Run) -> Run:
        def run(inputs: Inputs) -> Outputs:
            outputs = right(inputs)
            for array in _floats(outputs):
                if len(array) >= rows:
                    array[-1] = np.nan
            return outputs

        return run

    return conduct


def refuses_at(rows: int) -> Conduct:
    """Does not run batches of so many rows or more."""

    def conduct(right: Run) -> Run:
        def run(inputs: Inputs) -> Outputs:
            outputs = right(inputs)
            if max(map(len, outputs.values())) >= rows:
                raise FmmtError("The GPU refuses.")
            return outputs

        return run

    return conduct


def never_the_same(size: float) -> Conduct:
    """Noise of this size in every answer."""

    def conduct(right: Run) -> Run:
        rng = np.random.default_rng(0)

        def run(inputs: Inputs) -> Outputs:
            outputs = right(inputs)
            for array in _floats(outputs):
                array += rng.uniform(-size, size, array.shape).astype(array.dtype)
            return outputs

        return run

    return conduct


def too_few_rows(right: Run) -> Run:
    """The last row of a batch is not there."""

    def run(inputs: Inputs) -> Outputs:
        return {name: array[: max(1, len(array) - 1)] for name, array in right(inputs).items()}

    return run


def spoils(fault: Fault) -> Conduct:
    """A fault of the outputs alone."""
    return lambda right: lambda inputs: fault(right(inputs))


def behaving(engines: Engines, graphs: tuple[GraphName, ...], graph: GraphName, conduct: Conduct | type) -> Engines:
    """The same engines, of which one misbehaves."""
    right = engines[graph]
    wrong: Engine = conduct(right) if isinstance(conduct, type) else MisbehavingEngine(right, conduct)
    every = {name: wrong if name == graph else engines[name] for name in graphs}
    return Engines(engines.kind, every, engines.precisions, engines.face_batch)
