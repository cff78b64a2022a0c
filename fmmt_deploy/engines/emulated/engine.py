"""One graph, interpreted node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmmt_deploy.engines import protocol
from fmmt_deploy.engines.checking import check_inputs
from fmmt_deploy.engines.emulated.operators import Attributes, Operator
from fmmt_deploy.engines.host import arrays_from_values, started_on_host
from fmmt_deploy.engines.protocol import Array, Value
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.types import GraphName

__all__ = ["EmulatedEngine", "Observe", "Program", "Step"]

Observe = Callable[[str, Tensor], None]
"""Told the name and value of every input, and of every node's output as soon as it is there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node.

    Attributes:
        name: The node's.
        kind: Its operator's.
        operator: What computes it.
        attributes: Its attributes.
        inputs: Names; empty where an optional one is left out.
        output: Name.
        last_uses: Tensors that nobody needs afterwards.
    """

    name: str
    kind: str
    operator: Operator
    attributes: Attributes
    inputs: tuple[str, ...]
    output: str
    last_uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A graph, ready to be interpreted.

    Attributes:
        inputs: Name and type of every input.
        outputs: Names.
        steps: Every one after those whose outputs it reads.
        constants: Weights and constants, in the types they have in the graph.
    """

    inputs: Mapping[str, np.dtype[Any]]
    outputs: Sequence[str]
    steps: Sequence[Step]
    constants: Mapping[str, Tensor]


class EmulatedEngine:
    """An engine that holds every tensor in the type its graph gives it, on the CPU.

    Args:
        graph: Which graph it is.
        program: It.
        observe: See `Observe`; default nobody.
    """

    def __init__(self, graph: GraphName, program: Program, observe: Observe | None = None) -> None:
        self.graph = graph
        self._program: Program | None = program
        self._inputs, self._observe = program.inputs, observe

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of every input."""
        return self._inputs

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Computes all outputs; see `Engine.run`.

        Raises:
            FmmtError: A node can't be computed on these shapes or indices.
        """
        if self._program is None:
            raise RuntimeError("the engine is closed")
        check_inputs(self.graph, self._inputs, inputs)
        values = {name: torch.tensor(array) for name, array in arrays_from_values(inputs).items()}
        for name, value in values.items():
            self._tell(name, value)
        with torch.no_grad():
            for step in self._program.steps:
                values[step.output] = self._computed(step, values, self._program.constants)
                self._tell(step.output, values[step.output])
                for name in step.last_uses:
                    del values[name]
        return {name: values[name].numpy() for name in self._program.outputs}

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, protocol.Tensor]:
        """Computes all outputs; see `Engine.start`."""
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        """Lets the weights go."""
        self._program = None

    def _computed(self, step: Step, values: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        given = [values[name] if name in values else constants[name] if name else None for name in step.inputs]
        try:
            return step.operator(step.attributes, *given)
        except (RuntimeError, IndexError) as error:
            shapes = [None if value is None else (tuple(value.shape), str(value.dtype)) for value in given]
            raise FmmtError(
                f"{self.graph}: {step.kind} {step.name!r} can't be computed on {shapes}.",
                why=str(error),
                tensor=step.output,
            ) from error

    def _tell(self, name: str, value: Tensor) -> None:
        if self._observe is not None:
            self._observe(name, value)
