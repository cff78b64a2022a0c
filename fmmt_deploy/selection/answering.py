"""Asking single graphs case by case: `swin` and `plm` by themselves, and `fusion` with what they answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Array, Engine
from fmmt_deploy.parity.run import Case
from fmmt_deploy.types import GraphName

__all__ = ["Answers", "Ask", "Inputs", "TextEncoder", "asking", "face_logits", "last_inputs"]

Inputs = Mapping[str, Array]
Ask: TypeAlias = Callable[[int, Case], Array | None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine of `swin` or `plm` answers to all cases; stands for the engine, which need not run again.

    Attributes:
        graph: Which.
        cases: `face_logits` (N, 7) or `token_states` (D, T, H) of each case, padding and all; None where a case has
            no faces. Cases that share their text share the array.
    """

    graph: GraphName
    cases: tuple[Array | None, ...]


class TextEncoder:
    """Encodes texts; cases that follow each other and share the arrays of their text are encoded once.

    Args:
        engine: Of `plm`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids: Array | None = None
        self._states: Array = np.empty(0)

    def __call__(self, text: Inputs) -> Array:
        """Token states (D, T, H): the very array of the call before, if the text is the same."""
        if text["input_ids"] is not self._ids:
            self._ids, self._states = text["input_ids"], self._engine.run(text)["token_states"]
        return self._states


def asking(graph: GraphName, answerer: Engine | Answers, face_batch: int | None) -> Ask:
    """How to ask `swin` or `plm`.

    Args:
        graph: Which of the two.
        answerer: Its engine, or what that answered.
        face_batch: Faces that go through `swin` together; None leaves it to the engine.

    Returns:
        Takes a case's number and the case, in order; gives `face_logits` or `token_states`, or None where the case has
        nothing to ask.
    """
    if isinstance(answerer, Answers):
        return lambda number, _: answerer.cases[number]
    if graph == "swin":
        return lambda _, case: None if case.swin is None else face_logits(answerer, case.swin, face_batch)
    encode = TextEncoder(answerer)
    return lambda _, case: None if case.plm is None else encode(case.plm)


def face_logits(engine: Engine, faces: Inputs, face_batch: int | None) -> Array:
    """Of all faces of a case, (N, 7)."""
    return arrays_from_values(engine.start(dict(faces), face_batch))["face_logits"]


def last_inputs(case: Case, states: Array | None, faces: Array | None) -> Inputs:
    """What `fusion` or `unimodal` takes; without faces it takes one that no row refers to."""
    if states is None:
        return case.last
    return {
        **case.last,
        "token_states": states,
        "face_logits": np.zeros((1, 7), np.float32) if faces is None else faces,
    }
