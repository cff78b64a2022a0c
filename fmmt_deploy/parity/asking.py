"""Asking one engine, and holding its answers against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Array, Engine
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.parity.consistency_report import Finding
from fmmt_deploy.parity.corners import Corners
from fmmt_deploy.parity.metrics import TensorComparison, compare_outputs
from fmmt_deploy.parity.probes import Answer, Inputs, Sizes, alone, answer_of, probe, sizes_of
from fmmt_deploy.parity.tolerances import EXACT, TOLERANCES, Tolerance
from fmmt_deploy.types import GraphName

__all__ = ["Asker"]

_SAME_SHAPE = 0.25
"""Share of a tolerance that is allowed between runs of the same shape: the same kernels add in the same order."""

_ALL_ROWS = 8
"""Of a larger batch only some rows are held against the same rows alone."""


class Asker:
    """Asks an engine and keeps what must be true of all its answers.

    Two answers to one question in batches of different shapes may be as far apart as parity allows an answer to be from
    float32: other kernels may add in another order, and each rounding is of the size that the table's reasons name. In
    batches of one shape, only a quarter of that.

    Args:
        graph: Which graph.
        engine: Its engine.
        recorded: The self-test's inputs, which all questions are made from.
        precision: What it is held to.
        corners: The sizes it takes.

    Attributes:
        finite: What was found of every run: outputs that are there, and finite.
        deterministic: Whether equal inputs always gave equal bits.
        asked: The sizes of the last question, in words.
    """

    def __init__(
        self, graph: GraphName, engine: Engine, recorded: Inputs, precision: Precision, corners: Corners
    ) -> None:
        self.graph, self.engine, self.corners = graph, engine, corners
        self.finite: list[Finding] = []
        self.deterministic, self.asked = True, ""
        self._recorded = recorded
        self._other_shape = TOLERANCES[precision].of(graph)
        self._same_shape = {name: _quarter(tolerance) for name, tolerance in self._other_shape.items()}
        if graph == "fusion":  # the gate is float32 in any precision
            self._other_shape["kept"] = self._same_shape["kept"] = EXACT
        self._alone: dict[bytes, Answer] = {}

    def probe(self, sizes: Sizes, **changed: int) -> Inputs:
        """A question of these sizes, or of those that are changed; see `probes.probe`."""
        return probe(self.graph, self._recorded, {**sizes, **changed})

    def run(self, inputs: Inputs) -> Answer:
        """Answers through `Engine.run`.

        Raises:
            FmmtError: The engine failed, or an output is missing or has not as many rows as were asked.
        """
        self._note(inputs)
        return self.checked(inputs, self.engine.run(inputs))

    def start(self, inputs: Inputs, rows: int | None = None) -> Answer:
        """Answers through `Engine.start`; see `run`."""
        self._note(inputs)
        return self.checked(inputs, arrays_from_values(self.engine.start(inputs, rows)))

    def checked(self, inputs: Inputs, outputs: Answer) -> Answer:
        """The outputs that are looked at, if they are there and have a row for each that was asked; see `run`."""
        rows = self.rows(inputs)
        for name in self._same_shape:
            shape = outputs[name].shape if name in outputs else "nothing"
            if name not in outputs or len(outputs[name]) != rows:
                raise FmmtError(f"{self.graph} should answer {rows} rows of {name}, found {shape}.", tensor=name)
            self.finite.append(Finding(self.asked, _finiteness(name, outputs[name])))
        return {name: outputs[name] for name in self._same_shape}

    def same(self, reference: Answer, actual: Answer, inputs: Inputs, label: str) -> Iterator[Finding]:
        """Compares two whole answers to the same inputs, row by row; they say if the engine is deterministic."""
        for row in range(self.rows(inputs)):
            one, other = (answer_of(self.graph, inputs, answer, row) for answer in (reference, actual))
            self.deterministic &= all(np.array_equal(one[name], other[name]) for name in self._same_shape)
            yield from self.compare(one, other, f"{label}, row {row}")

    def compare(self, reference: Answer, actual: Answer, label: str, other_shape: bool = False) -> Iterator[Finding]:
        """Compares two answers to one row.

        Args:
            reference: One.
            actual: The other.
            label: Where it is from, for the report.
            other_shape: Whether their batches had different shapes.
        """
        tolerances = self._other_shape if other_shape else self._same_shape
        for tensor in compare_outputs(reference, actual, tolerances):
            yield Finding(label, tensor)

    def rows_alone(self, inputs: Inputs, outputs: Answer) -> Iterator[Finding]:
        """Holds rows of a batch against the same rows by themselves; of a large batch the first, middle and last."""
        sizes, count = self.asked, self.rows(inputs)
        chosen = range(count) if count <= _ALL_ROWS else sorted({0, 1, 2, count // 2, count - 1})
        for row in chosen:
            answer = answer_of(self.graph, inputs, outputs, row)
            yield from self.compare(self._answer_alone(inputs, row), answer, f"{sizes}, row {row}", other_shape=True)

    def rows(self, inputs: Inputs) -> int:
        """How many rows a question has."""
        return self._sizes(inputs)[self.corners.rows]

    def _answer_alone(self, inputs: Inputs, row: int) -> Answer:
        """Asked once: rows come back in many batches."""
        question = alone(self.graph, inputs, row, self.corners.fitted)
        digest = hashlib.blake2b()
        for array in question.values():
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        key = digest.digest()
        if key not in self._alone:
            self._alone[key] = answer_of(self.graph, question, self.run(question), 0)
        return self._alone[key]

    def _sizes(self, inputs: Inputs) -> Sizes:
        return sizes_of(self.graph, {name: array.shape for name, array in inputs.items()})

    def _note(self, inputs: Inputs) -> None:
        self.asked = ", ".join(f"{name} {size}" for name, size in self._sizes(inputs).items())


def _quarter(tolerance: Tolerance) -> Tolerance:
    reason = "a quarter of what other shapes may differ by: the same kernels add in the same order"
    return Tolerance(_SAME_SHAPE * tolerance.atol, _SAME_SHAPE * tolerance.rtol, reason)


def _finiteness(name: str, array: Array) -> TensorComparison:
    """States of padded tokens count too: one that is NaN would make NaN of what it is multiplied by zero with."""
    broken = ~np.isfinite(array)
    if not broken.any():
        return TensorComparison(name, EXACT, "", array.size)
    worst = tuple(int(i) for i in np.argwhere(broken)[0])
    nan_count = int(np.isnan(array).sum())
    return TensorComparison(
        name,
        EXACT,
        f"{int(broken.sum())} elements are NaN or infinite, the first at {list(worst)}",
        worst_index=worst,
        worst_actual=float(array[worst]),
        nan_count=nan_count,
        inf_count=int(broken.sum()) - nan_count,
    )
