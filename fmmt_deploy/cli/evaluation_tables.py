"""What `fmmt eval` shows to people: the verdict on top, then what it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from fmmt_deploy.cli.output import WIDTH, Table
from fmmt_deploy.evaluation.audit import Audit
from fmmt_deploy.evaluation.edges import Edge
from fmmt_deploy.evaluation.evaluation import Evaluation, Spread
from fmmt_deploy.evaluation.modes import Mode
from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.evaluation.swaps import SwapMatrix
from fmmt_deploy.evaluation.verdict import Equivalence
from fmmt_deploy.evaluation.words import counted
from fmmt_deploy.types import EMOTIONS

__all__ = ["parts_from_modes"]

Part = Table | str

_SHOWN = 20
"""So many changed decisions are shown to people; all are in the JSON."""

_SHORT = 8
"""Letters of an emotion at the head of a narrow column."""


def parts_from_modes(
    modes: Sequence[Mode], swaps: SwapMatrix | None, warnings: Sequence[str], engine: str, reference: str | None
) -> Iterator[Part]:
    """Everything, in the order in which it is read.

    Args:
        modes: The first is what the verdict is about.
        swaps: The swap matrix, where it was asked for.
        warnings: Of the data.
        engine: What was scored.
        reference: What it was judged against.
    """
    yield from (_wrapped(f"warning: {warning}") for warning in warnings)
    yield from _verdicts(modes)
    first = modes[0]
    if first.spread is not None:
        yield _spread(first.spread, engine)
    if first.equivalence is None or reference is None:
        yield from _scores(first, engine)
        return
    yield from _judged(first, first.equivalence, engine, reference)
    if first.audit is not None:
        yield from _audit(first.audit, first.seeds)
    if swaps is not None:
        yield from _swaps(swaps, first.seeds)
    yield _confusion(first.evaluation)


def _verdicts(modes: Sequence[Mode]) -> Iterator[str]:
    """A paragraph a mode; the band's after the mode that it is of."""
    for mode in modes:
        found = mode.equivalence
        if found is None:
            continue
        averaged = "With the probabilities averaged over the draws: " if mode.mode == "mean" else ""
        yield _wrapped(averaged + found.words)
        if mode.band is not None:
            yield _wrapped(mode.band.words)


def _scores(mode: Mode, engine: str) -> Iterator[Part]:
    """Without a reference; over several seeds the spread has said it all."""
    if mode.spread is not None:
        return
    evaluation = mode.evaluation
    overall = [
        ("weighted F1", _points(evaluation.weighted_f1)),
        ("macro F1", _points(evaluation.macro_f1)),
        ("accuracy", _points(evaluation.accuracy)),
    ]
    rows = [(c.emotion, _points(c.precision), _points(c.recall), _points(c.f1), c.support) for c in evaluation.classes]
    yield Table(f"{engine}: {counted(len(evaluation.utterances), 'utterance')}", (), overall)
    yield Table("", ("emotion", "precision", "recall", "F1", "support"), rows)
    yield _confusion(evaluation)


def _confusion(evaluation: Evaluation) -> Table:
    return _counts("confusion (rows: truth, columns: decision)", evaluation.confusion)


def _spread(spread: Mapping[str, Spread], engine: str) -> Table:
    rows = [
        (name, *(_points(x) for x in (value.mean, value.deviation, value.lowest, value.highest)))
        for name, value in spread.items()
    ]
    seeds = next(iter(spread.values())).seeds
    return Table(f"{engine} over {seeds} seeds of noise", ("score", "mean", "std dev", "lowest", "highest"), rows)


def _judged(mode: Mode, found: Equivalence, engine: str, reference: str) -> Iterator[Part]:
    rows = [("weighted F1", found.utterances, *_compared(found.reference_f1, found.f1, found.interval))]
    rows += [(c.emotion, c.support, *_compared(c.reference_f1, c.f1, c.interval)) for c in found.classes]
    interval = f"{100 * found.interval.confidence:g} % interval"
    columns = ("F1", "support", reference, engine, "difference", f"{interval}: from", "to")
    yield Table(f"{engine} against {reference}, in points", columns, rows)
    if found.changed:
        yield _counts(f"flips (rows: {reference}, columns: {engine})", found.flips)
        yield _changed(found, engine, reference, mode.seeds if found.draws > 1 else ())


def _compared(before: float, after: float, interval: Interval) -> tuple[str, ...]:
    return (_points(before), _points(after), *(_signed(x) for x in (after - before, interval.low, interval.high)))


def _changed(found: Equivalence, engine: str, reference: str, seeds: Sequence[int]) -> Table:
    """Of several draws with the seed, which `fmmt diff` takes."""
    shown = found.changed_decisions[:_SHOWN]
    columns = ("utterance", *(("seed",) if seeds else ()), "truth", reference, engine, "margin")
    rows = [
        (d.utterance, *seeds[d.draw : d.draw + 1], d.label, d.reference, d.decision, f"{d.margin:.2e}") for d in shown
    ]
    more = f", the first {_SHOWN} of {found.changed}; 'fmmt diff' shows one" if found.changed > _SHOWN else ""
    return Table(f"changed decisions{more}", columns, rows)


def _audit(found: Audit, seeds: Sequence[int]) -> Iterator[Part]:
    edges = [edge for edge in (found.gate, found.decision) if edge is not None]
    columns = ("hard decision", "count", "error p50", "p99", "largest", "within own error", "crossed", "expected")
    yield Table(f"how near the edge{_first_seed(seeds)}", columns, [_edge(edge) for edge in edges])
    if found.gate is not None and found.decision.crossed:
        f1 = found.f1
        others = counted(f1.gate_utterances, "utterance")
        yield _wrapped(
            f"Of the difference of {_signed(f1.difference)} points, {_signed(f1.through_the_gate)} come through the "
            f"gate ({others} with other faces), {_signed(f1.elsewhere)} from elsewhere."
        )


def _edge(edge: Edge) -> tuple[object, ...]:
    sizes = (edge.error.p50, edge.error.p99, edge.error.largest)
    errors = (f"{size:.1e}" for size in sizes)
    return (edge.name, edge.count, *errors, edge.near, edge.crossed, f"{edge.expected:.1f}")


def _swaps(found: SwapMatrix, seeds: Sequence[int]) -> Iterator[Part]:
    graphs = list(found.rows[0].sides)
    rows = [
        (*(row.sides[graph] for graph in graphs), _points(row.f1), _signed(row.difference), row.changed)
        for row in found.rows
    ]
    yield Table(f"every mixture{_first_seed(seeds)}", (*graphs, "F1", "difference", "changed"), rows)
    yield _wrapped(found.words)


def _first_seed(seeds: Sequence[int]) -> str:
    return f" (seed {seeds[0]})" if len(seeds) > 1 else ""


def _counts(title: str, counts: Sequence[Sequence[int]]) -> Table:
    rows = [(name, *row) for name, row in zip(EMOTIONS, counts, strict=True)]
    return Table(title, ("", *(name[:_SHORT] for name in EMOTIONS)), rows)


def _points(share: float) -> str:
    return f"{100 * share:z.2f}"


def _signed(share: float) -> str:
    """With its sign, none where it rounds to zero; a plain minus, by which a column of numbers is known."""
    text = f"{100 * share:+.2f}"
    return text[1:] if float(text) == 0 else text


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
