"""What a search tried and found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.selection.judgement import Judgement
from fmmt_deploy.selection.layers import Cost
from fmmt_deploy.selection.progress_file import Verdict
from fmmt_deploy.selection.rules import EquivalenceRule
from fmmt_deploy.types import GraphName

__all__ = ["Attempt", "Choice", "Found", "LayerNoise", "noise_of"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One graph as it was tried.

    Attributes:
        precision: What its products are computed in.
        keep: Patterns of what is kept back.
        cost: Of keeping it back.
        relative_time: About how long it takes beside float32, see `cost`; of the whole model in float32, so that those
            of all graphs add up.
    """

    precision: Precision
    keep: tuple[str, ...]
    cost: Cost
    relative_time: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was judged once.

    Attributes:
        graphs: Those that were not float32.
        verdict: What was found.
        problems: Why it does not hold; empty if it does.
    """

    graphs: Mapping[GraphName, Choice]
    verdict: Verdict
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return not self.problems

    @property
    def noise(self) -> float:
        """See `noise_of`."""
        return noise_of(self.verdict)


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """What one layer does to the logits when it alone is in a precision.

    Attributes:
        graph: Its graph.
        precision: The precision.
        layer: Its name.
        sqnr_db: Of the logits; minus infinity if they are not finite, or the graph can't be made.
        cost: Of keeping it back.
    """

    graph: GraphName
    precision: Precision
    layer: str
    sqnr_db: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        choices: For each graph, what it is to be.
        judgement: Of all graphs together; None if all of them are float32.
        rule: What had to be held.
        relative_time: About how long the model takes beside float32: an estimate where no speeds were given.
        attempts: All that was judged to find it, in order, without the layers by themselves.
        layers: Those by themselves.
        labelled: Whether F1 counted; without labels only decisions did.
    """

    choices: Mapping[GraphName, Choice]
    judgement: Judgement | None
    rule: EquivalenceRule
    relative_time: float
    attempts: tuple[Attempt, ...]
    layers: tuple[LayerNoise, ...]
    labelled: bool


def noise_of(verdict: Verdict) -> float:
    """Noise of the logits, end to end, as a share of their power; infinite if they are not finite, or not there."""
    judgement = verdict.judgement
    if judgement is None or judgement.not_finite or math.isnan(judgement.sqnr_db):
        return math.inf
    return float(10 ** (-judgement.sqnr_db / 10))
