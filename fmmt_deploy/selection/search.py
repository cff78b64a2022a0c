"""The fastest set of precisions that holds, found by trying.

For each graph by itself, from the fastest precision down: the whole graph; if it does not hold, the noise that each
layer makes by itself, and then the worst layers kept back one by one. Then the graphs together, and as long as they do
not hold, the one that makes the most noise for what it gains steps back to its next slower form.

A layer's noise is measured with that layer alone in the low type. The other way round, with all but one low, costs as
much and says nothing where two layers fail, because without either of them the other still does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.engines.protocol import Engine
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.selection.cost import Speeds, float32_cost, graph_cost
from fmmt_deploy.selection.found import Attempt, Choice, Found, LayerNoise, noise_of
from fmmt_deploy.selection.judgement import Judgement
from fmmt_deploy.selection.layers import Cost, Layer, LayeredGraph, layered_graph
from fmmt_deploy.selection.making import Maker
from fmmt_deploy.selection.progress_file import Candidate, Candidates, ProgressFile, Verdict
from fmmt_deploy.selection.rules import EquivalenceRule
from fmmt_deploy.types import GraphName

__all__ = ["MAX_KEPT_SHARE", "find_precisions"]

MAX_KEPT_SHARE = 0.3
"""A precision that needs more of its FLOPs kept back is given up for the next."""

_SMALL = 0.01
"""Layers with a smaller share of the FLOPs count as if they had this one: nearly free is not better than free."""


def find_precisions(
    graphs: Mapping[GraphName, Path],
    allowed: Mapping[GraphName, Sequence[Precision]],
    judge: Callable[[Mapping[GraphName, Engine]], Judgement],
    make: Maker,
    rule: EquivalenceRule,
    *,
    max_kept_share: float = MAX_KEPT_SHARE,
    speeds: Speeds | None = None,
    progress: ProgressFile | None = None,
    status: Callable[[str], None] = lambda _: None,
) -> Found:
    """Finds the fastest set of precisions that holds.

    Whether something holds is told by the estimates themselves, not by the bounds of their intervals: on the hundreds
    of utterances that calibration data have, the interval of an F1 difference is wider than any drop worth allowing,
    and nothing would ever hold. So decisions must agree, too, and the interval is reported.

    Args:
        graphs: For each graph of the model its float32 ONNX file, in the model's order.
        allowed: Which precisions each may have besides float32; a graph that is not named stays float32.
        judge: Judges engines of some graphs; `Judge.judge`.
        make: Makes a graph's engine.
        rule: What must be held.
        max_kept_share: The largest share of a graph's FLOPs that may be kept back.
        speeds: What was measured; see `graph_cost`.
        progress: Where verdicts are kept; those in it are not asked for again.
        status: Told what is being judged.

    Raises:
        PrecisionError: A graph is not a float32 graph of ours.
        UsageError: Calibration is missing.
    """
    trials = _Trials(judge, make, rule, progress, status)
    forms = {
        graph: [layered_graph(graph, path, p) for p in dict.fromkeys(allowed.get(graph, ())) if p != "fp32"]
        for graph, path in graphs.items()
    }
    cost32 = {graph: float32_cost(layered_graph(graph, path, "fp16")) for graph, path in graphs.items()}
    total = sum(cost32.values())
    time32 = {graph: cost / total for graph, cost in cost32.items()}
    options = {g: _Options(trials, each, max_kept_share, total, speeds or {}) for g, each in forms.items()}
    chosen, judgement = _together(trials, options, time32, status)
    choices = {
        graph: chosen[graph].graphs[graph] if graph in chosen else Choice("fp32", (), Cost(), time32[graph])
        for graph in graphs
    }
    return Found(
        choices=choices,
        judgement=judgement,
        rule=rule,
        relative_time=sum(choice.relative_time for choice in choices.values()),
        attempts=tuple(trials.attempts),
        layers=tuple(noise for option in options.values() for noise in option.layers),
        labelled=any(a.verdict.judgement is not None and a.verdict.judgement.f1 is not None for a in trials.attempts),
    )


def _together(
    trials: _Trials,
    options: Mapping[GraphName, _Options],
    time32: Mapping[GraphName, float],
    status: Callable[[str], None],
) -> tuple[Mapping[GraphName, Attempt], Judgement | None]:
    """The fastest options that hold together, of the graphs that are not float32; and their judgement."""
    steps = {graph: iter(option) for graph, option in options.items()}
    chosen = {graph: attempt for graph, each in steps.items() if (attempt := next(each, None)) is not None}
    while chosen:
        together = trials.attempt({graph: attempt.graphs[graph] for graph, attempt in chosen.items()})
        if together.holds:
            return chosen, together.verdict.judgement
        worst = max(chosen, key=lambda graph: _regret(graph, chosen[graph], time32[graph]))
        status(f"together they do not hold: {worst} steps back")
        slower = next(steps[worst], None)
        if slower is None:
            del chosen[worst]
        else:
            chosen[worst] = slower
    return {}, None


class _Trials:
    """Judges candidates, each once, and remembers."""

    def __init__(
        self,
        judge: Callable[[Mapping[GraphName, Engine]], Judgement],
        make: Maker,
        rule: EquivalenceRule,
        progress: ProgressFile | None,
        status: Callable[[str], None],
    ) -> None:
        self._judge, self._make, self._rule = judge, make, rule
        self._progress, self._status = progress, status
        self._known: dict[tuple[tuple[GraphName, Candidate], ...], Verdict] = {}
        self.attempts: list[Attempt] = []

    def attempt(self, graphs: Mapping[GraphName, Choice]) -> Attempt:
        """Judges graphs together, for the record."""
        verdict = self.verdict({g: Candidate(c.precision, c.keep) for g, c in graphs.items()}, _described(graphs))
        problems = (verdict.failure,) if verdict.judgement is None else verdict.judgement.problems(self._rule)
        attempt = Attempt(graphs, verdict, problems)
        if all(dict(attempt.graphs) != dict(before.graphs) for before in self.attempts):
            self.attempts.append(attempt)
        return attempt

    def verdict(self, candidates: Candidates, what: str) -> Verdict:
        """Judges, unless it is known already; `what` is for people."""
        key = tuple(candidates.items())
        if key not in self._known:
            known = None if self._progress is None else self._progress.find(candidates)
            if known is None:
                self._status(f"judging {what}")
                known = self._judged(candidates)
                if self._progress is not None:
                    self._progress.add(candidates, known)
            self._known[key] = known
        return self._known[key]

    def _judged(self, candidates: Candidates) -> Verdict:
        with ExitStack() as stack:
            engines: dict[GraphName, Engine] = {}
            for graph, candidate in candidates.items():
                try:
                    engines[graph] = self._make(graph, candidate.precision, candidate.keep)
                except PrecisionError as error:
                    return Verdict(None, error.what)
                stack.callback(engines[graph].close)
            return Verdict(self._judge(engines))


class _Options:
    """The forms of one graph that hold by themselves, from the fastest to the slowest but float32."""

    def __init__(
        self, trials: _Trials, forms: Sequence[LayeredGraph], max_kept_share: float, total: float, speeds: Speeds
    ) -> None:
        self._trials, self._most, self._total, self._speeds = trials, max_kept_share, total, speeds
        faster = [form for form in forms if graph_cost(form, 0, speeds) < float32_cost(form)]
        self._forms = sorted(faster, key=lambda form: graph_cost(form, 0, speeds))
        self.layers: list[LayerNoise] = []

    def __iter__(self) -> Iterator[Attempt]:
        """With much kept back, a form can be slower than the next one is whole; then that comes first."""
        waiting: list[Attempt] = []
        for form in self._forms:
            time = self._time(form)
            yield from (attempt for attempt in waiting if attempt.graphs[form.graph].relative_time < time)
            waiting = [attempt for attempt in waiting if attempt.graphs[form.graph].relative_time >= time]
            whole = self._attempt(form, ())
            if whole.holds:
                yield whole
            waiting += self._kept_back(form, whole)
            waiting.sort(key=lambda attempt: attempt.graphs[form.graph].relative_time)
        yield from waiting

    def _kept_back(self, form: LayeredGraph, whole: Attempt) -> Iterator[Attempt]:
        """With the worst layers kept back: as few as hold, then, for those who must step back, as many as may be."""
        worst = self._within_reach(form)
        if not worst:
            return
        most = self._attempt(form, worst)
        if not most.holds:  # so fewer won't, either
            return
        if not whole.holds:
            for count in range(1, len(worst)):
                attempt = self._attempt(form, worst[:count])
                if attempt.holds:
                    yield attempt
                    break
        yield most

    def _within_reach(self, form: LayeredGraph) -> list[Layer]:
        """The worst layers first: those that make the most noise for their share; as many as may be kept back."""
        noises = {layer.name: self._alone(form, layer) for layer in form.layers}
        worst, share = [], 0.0
        ranked = sorted(
            form.layers,
            key=lambda layer: (-noises[layer.name] / max(_SMALL, layer.cost.flops_share), layer.cost.flops_share),
        )
        for layer in ranked:
            if noises[layer.name] > 0 and share + layer.cost.flops_share <= self._most:
                worst.append(layer)
                share += layer.cost.flops_share
        return worst

    def _alone(self, form: LayeredGraph, layer: Layer) -> float:
        """A layer's noise with all others kept back."""
        keep = form.keep([other for other in form.layers if other is not layer])
        verdict = self._trials.verdict(
            {form.graph: Candidate(form.precision, keep)}, f"{form.graph} {form.precision} in {layer.name} only"
        )
        noise = noise_of(verdict)
        sqnr = verdict.judgement.sqnr_db if verdict.judgement is not None and math.isfinite(noise) else -math.inf
        self.layers.append(LayerNoise(form.graph, form.precision, layer.name, sqnr, layer.cost))
        return noise

    def _attempt(self, form: LayeredGraph, kept: Sequence[Layer]) -> Attempt:
        cost = form.cost_of(kept)
        time = self._time(form, cost.flops_share)
        return self._trials.attempt({form.graph: Choice(form.precision, form.keep(kept), cost, time)})

    def _time(self, form: LayeredGraph, kept_share: float = 0.0) -> float:
        return graph_cost(form, kept_share, self._speeds) / self._total


def _regret(graph: GraphName, attempt: Attempt, time32: float) -> float:
    """How much noise a graph makes for the time that it saves."""
    saved = time32 - attempt.graphs[graph].relative_time
    return attempt.noise / saved if saved > 0 else math.inf


def _described(graphs: Mapping[GraphName, Choice]) -> str:
    """For people: what is judged."""
    parts = []
    for graph, choice in graphs.items():
        kept = f" with {choice.cost.flops_share:.1%} kept back" if choice.keep else ""
        parts.append(f"{graph} {choice.precision}{kept}")
    return ", ".join(parts)
