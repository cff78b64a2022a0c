"""Why a precision fails parity: which graph, which layers of it, which single nodes of these; and what helps.

Each graph is judged by itself, all others in float32. Where one fails, the layers to blame are found by keeping halves
back (see `culprits`), then the nodes within those layers likewise. Every judgement is a parity run: the graph's own
outputs on the reference's inputs, and the model's decisions, held to the precision's tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Literal, TypeAlias

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.protocol import Engine, Engines
from fmmt_deploy.errors import ParityError, PrecisionError
from fmmt_deploy.parity.report import ParityReport, StageParity, failure_text
from fmmt_deploy.parity.run import Case, parity
from fmmt_deploy.selection.culprits import culprits_of
from fmmt_deploy.selection.layers import Cost, Layer, LayeredGraph
from fmmt_deploy.selection.making import Maker
from fmmt_deploy.selection.progress_file import Candidate, Candidates
from fmmt_deploy.selection.remembering import RememberingEngine
from fmmt_deploy.types import GraphName

__all__ = ["Errors", "GraphTriage", "Outcome", "Triage", "Trials", "triage"]

END_TO_END = "end to end"

Outcome: TypeAlias = Literal["holds", "kept back", "not the precision"]
"""Of one graph: nothing is wrong; it holds with what is named kept back; or it fails with everything kept back."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a graph is off.

    Attributes:
        own: The largest absolute error of its own outputs; infinite where they are not finite or can't be computed.
        logits: Likewise of the model's logits, end to end.
        changed: Utterances that are decided differently, without ties.
        utterances: How many there were.
        problems: What is wrong; empty if it holds.
    """

    own: float
    logits: float
    changed: int
    utterances: int
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class GraphTriage:
    """What was found about one graph.

    Attributes:
        graph: Which.
        precision: What it was tried in.
        wide: What is kept back computes in this.
        before: Its errors with nothing kept back.
        everything: With everything kept back; None if that was not tried, because it holds.
        after: With what is named kept back; None if nothing is named.
        layers: Those to blame.
        nodes: Those to blame within them.
        keep: Patterns that name these nodes.
        cost: Of keeping them back.
        judgements: How many it took.
    """

    graph: GraphName
    precision: Precision
    wide: Precision
    before: Errors
    everything: Errors | None = None
    after: Errors | None = None
    layers: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)
    judgements: int = 1

    @property
    def outcome(self) -> Outcome:
        """In a word."""
        if self.before.holds:
            return "holds"
        return "not the precision" if self.after is None else "kept back"


@dataclass(frozen=True, slots=True)
class Triage:
    """What was found about a model.

    Attributes:
        graphs: Those that were not to be float32.
        together: Errors of all of them at once, with what was found kept back; None if there is only one, or one that
            fails in any case.
    """

    graphs: tuple[GraphTriage, ...]
    together: Errors | None

    @property
    def judgements(self) -> int:
        """How many it took."""
        return sum(graph.judgements for graph in self.graphs) + (self.together is not None)

    @property
    def hopeless(self) -> ParityError | None:
        """What keeping back does not help against: a graph that fails in any case, or all together; else None."""
        for found in self.graphs:
            if found.outcome == "not the precision" and found.everything is not None:
                command = "triage" if found.wide != "fp32" else "parity"
                return ParityError(
                    f"{found.graph} fails with everything kept back, too, so {found.precision} is not the cause: "
                    f"{found.everything.problems[0]}.",
                    fix=f"Look at what was kept back: `fmmt {command}` with --precision {found.graph}={found.wide}.",
                )
        if self.together is not None and not self.together.holds:
            return ParityError(
                f"Each graph holds by itself, but together they don't: {self.together.problems[0]}.",
                fix="Give one of them a wider precision; `fmmt calibrate --auto` finds out which.",
            )
        return None

    def raise_if_hopeless(self) -> None:
        """Raises `hopeless`, if there is something.

        Raises:
            ParityError: Likewise.
        """
        if self.hopeless is not None:
            raise self.hopeless


class Trials:
    """Judges graphs in any precision with anything kept back; what is known is not computed again.

    Args:
        architecture: The model's.
        reference: What is right; see `parity`.
        wide: The float32 engines that compute what is not tried; the reference's own where these answer anything.
        make: Makes what is tried.
        cases: The inputs; gone through once for each judgement.
        max_error: If given, a graph fails if its own outputs have a larger absolute error, and for nothing else.
        status: Told what is being judged.
    """

    def __init__(
        self,
        architecture: Architecture,
        reference: Engines,
        wide: Engines,
        make: Maker,
        cases: Iterable[Case],
        max_error: float | None = None,
        status: Callable[[str], None] = lambda _: None,
    ) -> None:
        graphs = tuple(wide.precisions)
        right = {g: RememberingEngine(reference[g]) for g in graphs}
        self._reference = Engines(reference.kind, right)
        self._wide: dict[GraphName, Engine] = {
            g: right[g] if wide[g] is reference[g] else RememberingEngine(wide[g]) for g in graphs
        }
        self._architecture, self._make, self._cases = architecture, make, cases
        self._max_error, self._status = max_error, status
        self._known: dict[tuple[tuple[GraphName, Candidate], ...], Errors] = {}

    @property
    def count(self) -> int:
        """How many judgements there were."""
        return len(self._known)

    def errors(self, candidates: Candidates) -> Errors:
        """Errors of some graphs as they could be, the others in float32."""
        key = tuple(candidates.items())
        if key not in self._known:
            parts = [f"{g} {c.precision}" + (f", {len(c.keep)} kept back" if c.keep else "") for g, c in key]
            self._status(f"judgement {self.count + 1}: {'; '.join(parts)}")
            self._known[key] = self._judged(candidates)
        return self._known[key]

    def _judged(self, candidates: Candidates) -> Errors:
        precisions: dict[GraphName, Precision] = dict.fromkeys(self._wide, "fp32")
        with ExitStack() as stack:
            engines = dict(self._wide)
            for graph, candidate in candidates.items():
                try:
                    engines[graph] = RememberingEngine(self._make(graph, candidate.precision, candidate.keep))
                except PrecisionError as error:
                    return Errors(inf, inf, 0, 0, (error.what.rstrip("."),))
                stack.callback(engines[graph].close)
                precisions[graph] = candidate.precision
            tried = Engines("emulated", engines, precisions)
            report = parity(self._architecture, self._reference, tried, self._cases)
        return self._errors(report, list(candidates))

    def _errors(self, report: ParityReport, graphs: Sequence[GraphName]) -> Errors:
        own = [stage for stage in report.stages if stage.name in graphs]
        (whole,) = (stage for stage in report.stages if stage.name == END_TO_END)
        problems = [p for stage in (*own, whole) for p in _problems(stage)]
        largest = max(map(_largest, own), default=0.0)
        if self._max_error is not None:
            problems = []
            if not largest <= self._max_error:
                problems = [f"the largest error of {', '.join(graphs)} is {largest:.3g}, above {self._max_error:.3g}"]
        decisions = whole.decisions
        return Errors(
            own=largest,
            logits=_largest(whole),
            changed=0 if decisions is None else len(decisions.changed),
            utterances=0 if decisions is None else decisions.utterances,
            problems=tuple(problems),
        )


def triage(trials: Trials, graphs: Sequence[LayeredGraph]) -> Triage:
    """Finds what to keep back.

    Args:
        trials: Judges.
        graphs: Those whose precision is not float32, in the model's order.
    """
    found = tuple(_triage(trials, layered) for layered in graphs)
    together = None
    if len(found) > 1 and all(each.outcome != "not the precision" for each in found):
        low = {f.graph: Candidate(f.precision, f.keep or g.keep(())) for f, g in zip(found, graphs, strict=True)}
        together = trials.errors(low)
    return Triage(found, together)


def _triage(trials: Trials, layered: LayeredGraph) -> GraphTriage:
    asked = trials.count

    def errors(kept: Sequence[Layer]) -> Errors:
        return trials.errors({layered.graph: Candidate(layered.precision, layered.keep(kept))})

    def cheapest_first(suspects: Iterable[Layer]) -> list[Layer]:
        return sorted(suspects, key=lambda layer: layer.cost.flops_share)

    before = errors(())
    if before.holds:
        return GraphTriage(layered.graph, layered.precision, layered.wide, before)
    everything = errors(layered.layers)
    if not everything.holds:
        return GraphTriage(layered.graph, layered.precision, layered.wide, before, everything, judgements=2)
    layers = culprits_of(cheapest_first(layered.layers), lambda kept: errors(kept).holds)
    nodes = culprits_of(cheapest_first(layered.within(layers)), lambda kept: errors(kept).holds)
    names = {node.name for node in nodes}
    return GraphTriage(
        layered.graph,
        layered.precision,
        layered.wide,
        before=before,
        everything=everything,
        after=errors(nodes),
        layers=tuple(layer.name for layer in layered.layers if layer in layers),
        nodes=tuple(node for node in layered.nodes if node in names),
        keep=layered.keep(nodes),
        cost=layered.cost_of(nodes),
        judgements=trials.count - asked,
    )


def _problems(stage: StageParity) -> list[str]:
    found = [f"{stage.name}/{failure_text(tensor)}" for tensor in stage.tensors if not tensor.passed]
    return found + [f"{stage.name}: {failure}" for failure in (stage.decisions.failures if stage.decisions else ())]


def _largest(stage: StageParity) -> float:
    """The largest absolute error of a stage's tensors."""
    errors = [tensor.max_abs for tensor in stage.tensors if tensor.tolerance.atol]
    return max((error if isfinite(error) else inf for error in errors), default=nan)
