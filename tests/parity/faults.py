"""Engines that are wrong in the ways engines are wrong in practice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fmmt_deploy.engines.host import started_on_host
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Tensor, Value
from fmmt_deploy.types import GraphName

Outputs = dict[str, Array]
Fault = Callable[[Outputs], Outputs]


class FaultyEngine:
    """An engine whose answers are spoilt on their way out."""

    def __init__(self, engine: Engine, fault: Fault) -> None:
        self._engine, self._fault = engine, fault

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._engine.inputs

    def run(self, inputs: Mapping[str, Value]) -> Outputs:
        return self._fault({name: array.copy() for name, array in self._engine.run(inputs).items()})

    def start(self, inputs: Mapping[str, Value], rows: int | None = None) -> dict[str, Tensor]:
        return started_on_host(self.run, inputs, rows)

    def close(self) -> None:
        self._engine.close()


def spoilt(engines: Engines, graphs: tuple[GraphName, ...], faults: Mapping[GraphName, Fault]) -> Engines:
    """The same engines, some of them faulty."""
    wrapped = {g: FaultyEngine(engines[g], faults[g]) if g in faults else engines[g] for g in graphs}
    return Engines(engines.kind, wrapped, engines.precisions, engines.face_batch)


def wrong_second_row(outputs: Outputs) -> Outputs:
    """What a kernel does that was only ever tried at batch 1: the second row is the first once more."""
    for array in outputs.values():
        if array.dtype.kind == "f" and len(array) >= 2:
            array[1] = array[0]
    return outputs


def one_nan(outputs: Outputs) -> Outputs:
    """An overflow on the way."""
    for array in outputs.values():
        if array.dtype.kind == "f":
            array.reshape(-1)[-1] = np.nan
    return outputs


def all_nan(outputs: Outputs) -> Outputs:
    """Nothing but NaN."""
    return {name: np.full_like(a, np.nan) if a.dtype.kind == "f" else a for name, a in outputs.items()}


def half_precision(outputs: Outputs) -> Outputs:
    """Rounded to float16, as by an engine that was built one precision too low."""
    return {name: a.astype(np.float16).astype(a.dtype) if a.dtype.kind == "f" else a for name, a in outputs.items()}


def flipped_mask(outputs: Outputs) -> Outputs:
    """Another face is kept; the logits are right."""
    kept = outputs["kept"]
    kept[-1, 0] = ~kept[-1, 0]
    return outputs


def nothing(outputs: Outputs) -> Outputs:
    """Answers under another name."""
    return {f"{name}_": array for name, array in outputs.items()}


def turned(outputs: Outputs) -> Outputs:
    """Every decision is another class."""
    return outputs | {"logits": np.roll(outputs["logits"], 1, axis=1)}
