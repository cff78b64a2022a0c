"""Whether engines agree with themselves: a gate that needs no reference, for engines that nobody has run before.

One question has one answer, whatever the batch it is in, the place it has there, what is beside it, how far it is
padded, and what was asked before. TensorRT has released engines for which that is not so, without a word:

* NVIDIA/TensorRT issue 4813 (11.1, float32): four equal rows of a batch got four answers, a row's answer moved with
  what the other rows were, and batch 1 differed from batch 4: checks `identical rows`, `company` and `batch sizes`.
* Issue 4853 (10.11 and 11.1, every precision, static and dynamic): right at batch 1, wrong by orders of magnitude from
  batch 2 on: `batch sizes` and `profile corners`.
* Issue 4796 (10.x, FP16 attention): two equal rows of a batch differed: `identical rows`.
* Issues 2869 and 2943 (8.6): NaN in engines with dynamic shapes, at sizes other than the usual one: `profile corners`
  runs them all, and `finite` looks at everything that any check ever sees.

What is wrong in the same way for every batch is not seen: that is what `fmmt parity` with a reference is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.precisions import text_from_precisions
from fmmt_deploy.bundle.selftest import Stage
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.ranges import shape_ranges
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.parity.asking import Asker
from fmmt_deploy.parity.consistency_report import ConsistencyReport, Finding, check_from_findings
from fmmt_deploy.parity.corners import corners_of
from fmmt_deploy.parity.metrics import TensorComparison
from fmmt_deploy.parity.probes import answer_of, noisy_padding, taken
from fmmt_deploy.parity.tolerances import EXACT
from fmmt_deploy.types import GraphName

__all__ = ["CHECKS", "FINITE", "self_consistency"]

_MORE_TOKENS = 13
"""Padding that is added: no multiple of what kernels like."""

FINITE = "finite"
"""The check of all answers to all other checks' questions."""


def self_consistency(
    architecture: Architecture, engines: Engines, stages: Mapping[GraphName, Stage]
) -> ConsistencyReport:
    """Holds every graph's engine against itself.

    Args:
        architecture: The model's.
        engines: What is tested, all of its graphs or some; each is held to what its precision allows, see `Asker`.
        stages: The bundle's self-test: its inputs are what the questions are made from.
    """
    checks, deterministic = [], {}
    for graph in (graph for graph in graphs_of(architecture) if graph in engines):
        engine = engines[graph]
        corners = corners_of(graph, engine, architecture)
        asker = Asker(graph, engine, stages[graph].inputs, engines.precisions[graph], corners)
        for name, (check, graphs) in CHECKS.items():
            if graph in graphs:
                checks.append(check_from_findings(graph, name, _findings(check, asker)))
        checks.append(check_from_findings(graph, FINITE, asker.finite))
        deterministic[graph] = asker.deterministic
    return ConsistencyReport(f"{engines.kind} {text_from_precisions(engines.precisions)}", tuple(checks), deterministic)


def _findings(check: Check, asker: Asker) -> Iterator[Finding]:
    """A question that the engine refuses or breaks down at is a finding too."""
    try:
        yield from check(asker)
    except FmmtError as error:
        why = " ".join(str(error).split())
        yield Finding(asker.asked, TensorComparison(error.tensor or "outputs", EXACT, f"it did not run: {why}"))


def _repeat(asker: Asker) -> Iterator[Finding]:
    """The same once more."""
    inputs = asker.probe(asker.corners.usual)
    yield from asker.same(asker.run(inputs), asker.run(inputs), inputs, asker.asked)


def _identical_rows(asker: Asker) -> Iterator[Finding]:
    """One row again and again in one batch: every place answers as the first."""
    several = asker.probe(asker.corners.usual)
    for number, count in enumerate(asker.corners.row_counts):
        inputs = taken(asker.graph, several, [number % 2 % asker.rows(several)] * count)
        outputs = asker.run(inputs)
        first, *others = (answer_of(asker.graph, inputs, outputs, row) for row in range(count))
        for row, other in enumerate(others, 1):
            yield from asker.compare(first, other, f"{asker.asked}, row {row}")
        if not others:  # it takes no more than one row
            yield from asker.compare(first, first, asker.asked)


def _permuted_rows(asker: Asker) -> Iterator[Finding]:
    """Other places in the same batch."""
    inputs = asker.probe(asker.corners.usual)
    count = asker.rows(inputs)
    places = np.random.default_rng(0).permutation(count)
    outputs, moved = asker.run(inputs), taken(asker.graph, inputs, places.tolist())
    found = asker.run(moved)
    for place, row in enumerate(places.tolist()):
        right = answer_of(asker.graph, inputs, outputs, row)
        answer = answer_of(asker.graph, moved, found, place)
        yield from asker.compare(right, answer, f"{asker.asked}, row {row} in place {place}")


def _company(asker: Asker) -> Iterator[Finding]:
    """One row as before, all others exchanged: the first row, then the last."""
    sizes = asker.corners.usual
    count = sizes[asker.corners.rows]
    several = asker.probe(sizes, **{asker.corners.rows: 2 * count})
    before = taken(asker.graph, several, range(count))
    outputs = asker.run(before)
    for stays in sorted({0, count - 1}):
        after = taken(asker.graph, several, [row if row == stays else row + count for row in range(count)])
        found = asker.run(after)
        right, answer = (answer_of(asker.graph, i, o, stays) for i, o in ((before, outputs), (after, found)))
        yield from asker.compare(right, answer, f"{asker.asked}, row {stays}")


def _batch_sizes(asker: Asker) -> Iterator[Finding]:
    """Rows of a batch against the same rows alone."""
    counts = asker.corners.row_counts
    several = asker.probe(asker.corners.usual, **{asker.corners.rows: counts[-1]})
    for count in counts:
        inputs = taken(asker.graph, several, range(count))
        outputs = asker.run(inputs)
        yield from asker.rows_alone(inputs, outputs)


def _profile_corners(asker: Asker) -> Iterator[Finding]:
    """Every profile at its smallest, usual and largest sizes, in all combinations, against the same rows alone."""
    for sizes in asker.corners:
        inputs = asker.probe(sizes)
        outputs = asker.run(inputs)
        yield from asker.rows_alone(inputs, outputs)


def _padding(asker: Asker) -> Iterator[Finding]:
    """Longer text, and other things in all places that must not be read."""
    sizes = asker.corners.usual
    inputs = asker.probe(sizes)
    outputs = asker.run(inputs)
    longest = min(asker.corners.widest["tokens"][2], sizes["tokens"] + _MORE_TOKENS)
    for tokens in sorted({sizes["tokens"], longest}):
        padded = noisy_padding(asker.graph, inputs, tokens)
        found = asker.run(padded)
        for row in range(asker.rows(inputs)):
            right = answer_of(asker.graph, inputs, outputs, row)
            answer = answer_of(asker.graph, padded, found, row)
            longer = tokens != sizes["tokens"]
            yield from asker.compare(right, answer, f"{asker.asked}, row {row}", other_shape=longer)


def _alternating_shapes(asker: Asker) -> Iterator[Finding]:
    """Large, small, large, small: nothing is left in buffers of what was asked before."""
    usual = asker.probe(asker.corners.usual)
    smallest = asker.corners.fitted(dict.fromkeys(asker.corners.widest, 1))
    small = asker.probe(smallest)
    first = [asker.run(inputs) for inputs in (usual, small)]
    for inputs, before in zip((usual, small), first, strict=True):
        again = asker.run(inputs)
        yield from asker.same(before, again, inputs, asker.asked)


def _later_calls(asker: Asker) -> Iterator[Finding]:
    """What `start` returned stays as it is when its inputs are overwritten and others are computed."""
    inputs = asker.probe(asker.corners.usual)
    right, label = asker.run(inputs), asker.asked
    given = {name: array.copy() for name, array in inputs.items()}
    started = asker.engine.start(given)
    for name, array in given.items():
        array[...] = np.roll(inputs[name], 1, axis=0)
    others = taken(asker.graph, inputs, range(asker.rows(inputs))[::-1])
    asker.start(others)
    asker.asked = label
    found = asker.checked(inputs, arrays_from_values(started))
    yield from asker.same(right, found, inputs, label)


def _parts(asker: Asker) -> Iterator[Finding]:
    """Many rows, so many at a time, against all at once; and more than the engine takes at once, against rows alone."""
    smallest, _, largest = asker.corners.widest[asker.corners.rows]
    rows = min(largest, max(2, smallest))
    total = largest if smallest == 1 else largest // rows * rows
    inputs = asker.probe(asker.corners.usual, **{asker.corners.rows: total})
    right, found = asker.run(inputs), asker.start(inputs, rows)
    for row in range(total):
        one, other = (answer_of(asker.graph, inputs, outputs, row) for outputs in (right, found))
        yield from asker.compare(one, other, f"{asker.asked}, {rows} at a time, row {row}", other_shape=True)
    if shape_ranges(asker.engine) is not None:
        inputs = asker.probe(asker.corners.usual, **{asker.corners.rows: 2 * largest})
        yield from asker.rows_alone(inputs, asker.start(inputs))


Check = Callable[[Asker], Iterator[Finding]]
_ALL: tuple[GraphName, ...] = ("swin", "plm", "fusion", "unimodal")

CHECKS: Mapping[str, tuple[Check, tuple[GraphName, ...]]] = {
    "repeat": (_repeat, _ALL),
    "identical rows": (_identical_rows, _ALL),
    "permuted rows": (_permuted_rows, _ALL),
    "company": (_company, _ALL),
    "batch sizes": (_batch_sizes, _ALL),
    "profile corners": (_profile_corners, _ALL),
    "padding": (_padding, ("plm", "fusion")),
    "alternating shapes": (_alternating_shapes, _ALL),
    "later calls": (_later_calls, _ALL),
    "parts": (_parts, ("swin", "unimodal")),
}
"""Each check, and the graphs it is for."""
