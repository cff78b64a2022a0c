"""Inputs of any size, made from a bundle's self-test, whose rows can be taken, put in another order, padded and shrunk.

A graph answers in rows: `swin` faces, `plm` dialogues, `fusion` and `unimodal` utterances. What row number i asks does
not depend on how many rows there are, so one row's answer can be held against the same row's in other company.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from fmmt_deploy.engines.protocol import Array
from fmmt_deploy.types import GraphName, IntArray

__all__ = [
    "DIMENSIONS",
    "Answer",
    "Inputs",
    "Sizes",
    "alone",
    "answer_of",
    "noisy_padding",
    "probe",
    "sizes_of",
    "taken",
]

Inputs: TypeAlias = Mapping[str, Array]
Answer: TypeAlias = Mapping[str, Array]
Sizes: TypeAlias = Mapping[str, int]

DIMENSIONS: Mapping[GraphName, Mapping[str, tuple[str, int]]] = {
    "swin": {"faces": ("faces", 0)},
    "plm": {"dialogues": ("input_ids", 0), "tokens": ("input_ids", 1)},
    "fusion": {
        "utterances": ("text_row", 0),
        "dialogues": ("token_states", 0),
        "tokens": ("token_states", 1),
        "faces": ("face_logits", 0),
    },
    "unimodal": {"utterances": ("vision", 0)},
}
"""The dimensions of each graph that may vary, the one of its rows first, and an input's axis that has it."""

_SHARED = ("token_states", "face_logits")
"""Inputs of `fusion` that all its rows read from, by index."""

_PIXELS_ASIDE = 7
"""Faces beyond the recorded ones are those again, shifted by so many pixels each time."""

_FILLER = 1e3
"""Stands where nothing may read: far larger than any state or logit, so that whoever reads it shows."""


def sizes_of(graph: GraphName, shapes: Mapping[str, Sequence[int]]) -> Sizes:
    """The sizes of a graph's dimensions, from its inputs' shapes."""
    return {name: shapes[tensor][axis] for name, (tensor, axis) in DIMENSIONS[graph].items()}


def probe(graph: GraphName, recorded: Inputs, sizes: Sizes) -> Inputs:
    """Inputs of exactly these sizes; rows beyond the recorded ones are variations of them.

    Args:
        graph: Which graph.
        recorded: What the self-test holds for it.
        sizes: How many of each of its dimensions.
    """
    if graph == "plm":
        return _dialogues(recorded, sizes["dialogues"], sizes["tokens"])
    if graph == "swin":
        return {"faces": _varied(recorded["faces"], sizes["faces"], axis=2, step=_PIXELS_ASIDE)}
    inputs = {
        name: _varied(array, sizes["utterances"], axis=-1) if name in ("audio", "vision") else array
        for name, array in recorded.items()
    }
    inputs = {
        name: array if name in _SHARED else np.resize(array, (sizes["utterances"], *array.shape[1:]))
        for name, array in inputs.items()
    }
    return inputs if graph == "unimodal" else _with_shared(inputs, sizes)


def taken(graph: GraphName, inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """The same, with these rows only, in this order."""
    shared = _SHARED if graph == "fusion" else ()
    return {name: array if name in shared else array[list(rows)] for name, array in inputs.items()}


def alone(graph: GraphName, inputs: Inputs, row: int, fitted: Callable[[Sizes], Sizes]) -> Inputs:
    """One row by itself, with only what it reads.

    Args:
        graph: Which graph.
        inputs: What the row is taken from.
        row: Its number.
        fitted: The smallest sizes that the engine takes and that are not below those given; the row is then repeated,
            and its text padded, to fill them.
    """
    one = taken(graph, inputs, [row])
    if graph == "plm":
        one = {name: array[:, : _lengths(one)[0]] for name, array in one.items()}
    elif graph == "fusion":
        one = _own(one)
    sizes = fitted(sizes_of(graph, {name: array.shape for name, array in one.items()}))
    filled = taken(graph, one, [0] * sizes[next(iter(DIMENSIONS[graph]))])
    if "tokens" in sizes:
        filled = _longer(filled, sizes["tokens"])
    if graph == "fusion":
        shared = {"token_states": sizes["dialogues"], "face_logits": sizes["faces"]}
        filled = {**filled, **{n: np.resize(filled[n], (c, *filled[n].shape[1:])) for n, c in shared.items()}}
    return filled


def answer_of(graph: GraphName, inputs: Inputs, outputs: Answer, row: int) -> Answer:
    """What was answered to one row: of text the real tokens' states."""
    if graph == "plm":
        length = _lengths(inputs)[row]
        return {name: array[row, :length] for name, array in outputs.items()}
    return {name: array[row] for name, array in outputs.items()}


def noisy_padding(graph: GraphName, inputs: Inputs, tokens: int) -> Inputs:
    """The same question with longer text, and with something else in every place that must not be read.

    Args:
        graph: `plm` or `fusion`: the others have no padding.
        inputs: What is padded.
        tokens: How long the text is to be, not less than it is.
    """
    if graph == "plm":
        longer = _longer(inputs, tokens)
        real = longer["attention_mask"].astype(bool)
        return {**longer, "input_ids": np.where(real, longer["input_ids"], np.max(inputs["input_ids"]))}
    longer = _longer(inputs, tokens)
    states, faces = longer["token_states"].copy(), longer["face_logits"].copy()
    read = np.zeros(states.shape[:2], bool)
    spans = zip(*(longer[name] for name in ("text_row", "text_start", "text_length")), strict=True)
    for row, start, length in spans:
        read[row, start : start + max(length, 1)] = True
    read[0, 0] = True  # padded places of the words read this one, times zero: it may be anything finite
    states[~read] = _FILLER
    seen = np.zeros(len(faces), bool)
    seen[longer["face_index"].ravel()] = True
    faces[~seen] = _FILLER
    return {**longer, "token_states": states, "face_logits": faces}


def _varied(array: Array, count: int, axis: int, step: int = 1) -> Array:
    """`count` rows: the recorded ones, then those again, moved along an axis by a step more each time."""
    rows = [np.roll(array[i % len(array)][None], step * (i // len(array)), axis) for i in range(count)]
    return np.concatenate(rows)


def _dialogues(recorded: Inputs, count: int, tokens: int) -> Inputs:
    """Every other one fills the text's whole length, the rest leave a third of it at least."""
    lengths = _lengths(recorded)
    ids, mask = np.zeros((count, tokens), np.int64), np.zeros((count, tokens), np.int64)
    for row in range(count):
        source = row % len(lengths)
        real = np.roll(recorded["input_ids"][source, : lengths[source]], row // len(lengths))
        length = tokens if row % 2 == 0 else max(1, min(len(real), tokens * 2 // 3))
        ids[row, :length], mask[row, :length] = np.resize(real, length), 1
    return {"input_ids": ids, "attention_mask": mask}


def _with_shared(inputs: Inputs, sizes: Sizes) -> Inputs:
    """States and face logits of these sizes, and indices that stay inside them."""
    recorded = inputs["token_states"]
    states = np.stack([np.resize(states, (sizes["tokens"], states.shape[-1])) for states in recorded])
    number = np.arange(sizes["utterances"])
    start = np.minimum(inputs["text_start"], sizes["tokens"] - 1)
    return {
        **inputs,
        "token_states": _varied(states, sizes["dialogues"], axis=-1),
        "face_logits": _varied(inputs["face_logits"], sizes["faces"], axis=-1),
        "text_row": number % sizes["dialogues"],
        "text_start": start,
        "text_length": np.minimum(inputs["text_length"], sizes["tokens"] - start),
        "face_index": (inputs["face_index"] + number[:, None]) % sizes["faces"],
    }


def _own(one: Inputs) -> Inputs:
    """A single utterance with its own dialogue, up to its last word, and its own faces."""
    row, start, length = (int(one[name][0]) for name in ("text_row", "text_start", "text_length"))
    faces, index = np.unique(one["face_index"], return_inverse=True)
    return {
        **one,
        "token_states": one["token_states"][row : row + 1, : start + max(length, 1)],
        "text_row": np.zeros_like(one["text_row"]),
        "face_logits": one["face_logits"][faces],
        "face_index": index.reshape(one["face_index"].shape).astype(np.int64),
    }


def _longer(inputs: Inputs, tokens: int) -> Inputs:
    """The same with text padded by zeros, as the pipeline pads it."""

    def padded(array: Array) -> Array:
        return np.pad(array, [(0, 0), (0, tokens - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

    text = ("input_ids", "attention_mask", "token_states")
    return {name: padded(array) if name in text else array for name, array in inputs.items()}


def _lengths(inputs: Inputs) -> IntArray:
    lengths: IntArray = inputs["attention_mask"].sum(axis=1)
    return lengths
