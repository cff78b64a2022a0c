"""Which precisions are worth it: a rule over what was judged and counted, without looking at any engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from fmmt_deploy.benchmark.statistics import Ratio, format_ratio
from fmmt_deploy.bundle.manifest import Precision

__all__ = ["MARKS", "SPEED_UP", "Contestant", "Mark", "MarkName", "dominates", "few_warnings", "marks_of"]

MarkName: TypeAlias = Literal["worth it", "no gain", "dominated", "harmful"]
MARKS: tuple[MarkName, ...] = get_args(MarkName)

SPEED_UP = 1.15
"""A measured speed-up below this is none: a machine that is shared does that much by itself."""

_SAME_DB = 0.1
"""SQNRs so close are equal: 2 % of the noise's energy."""

_SAME_COST = 0.02
"""Costs so close, as a share, are equal: scales and casts take a few bytes, and times are not better than that."""


_ON_CPUS: Precision = "int8-fp32"

_CHANGED = 0.02
"""The share of decisions that may change in eight bits; see `rules.EQUIVALENCE_RULES`."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One precision of one submodule.

    Attributes:
        precision: It.
        problems: Why it does not hold; empty if it does.
        sqnr_db: Of the logits, against float32; infinite if they are equal.
        weight_bytes: Of its graph.
        speed: How many times as fast as float32 it was measured here; None if nobody measured.
        outputs_db: SQNRs of what its graphs themselves answer, where those are not the logits; the same ones for all.
    """

    precision: Precision
    problems: tuple[str, ...]
    sqnr_db: float
    weight_bytes: int
    speed: Ratio | None
    outputs_db: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a precision, and why in words."""

    name: MarkName
    reason: str


def marks_of(contestants: Sequence[Contestant], float32_bytes: int) -> tuple[Mark, ...]:
    """Marks the precisions of one submodule.

    * `harmful`: it does not hold.
    * `dominated`: another one that holds and can be compared is at least as accurate, costs no more, and is better in
      one of the two; see `dominates`.
    * `worth it`: neither, and at least `SPEED_UP` times as fast as float32 where that was measured (and faster beyond
      doubt), else with fewer bytes.
    * `no gain`: none of these.

    Args:
        contestants: All of one submodule that were judged, float32 among them.
        float32_bytes: Weights of its float32 graph.

    Returns:
        A mark for each, in their order.
    """
    holding = [contestant for contestant in contestants if not contestant.problems]
    return tuple(_mark(contestant, holding, float32_bytes) for contestant in contestants)


def few_warnings(utterances: int) -> tuple[str, ...]:
    """A warning if there are too few utterances for what eight bits must hold.

    Of so many, even if none is decided otherwise, up to 3 in as many may be in other data: the upper end of a 95 %
    interval (Hanley and Lippman-Hand, 1983), and more if those of a dialogue are alike. The interval of ΔF1 has no
    width then, which says nothing.

    Args:
        utterances: At least one.
    """
    most = 3 / utterances
    if most <= _CHANGED:
        return ()
    return (
        f"{utterances} utterances can't tell what holds: even if no decision changes, up to {min(1, most):.0%} may "
        f"change on other data; {3 / _CHANGED:.0f} and more tell {_CHANGED:.0%}",
    )


def dominates(one: Contestant, other: Contestant) -> bool:
    """Whether the first is nowhere worse than the second, and somewhere better; what is close is equal.

    Accuracy is that of the logits, and of a graph's own output: a single face more or less behind the gate moves the
    logits by more than all rounding, and to be lucky there is not to be more accurate.

    The cost is the time where both were measured, and bytes of weights where neither was; otherwise the two can't be
    compared. Nor can `int8-fp32`, which is for CPUs, with what is for GPUs, unless both were measured.
    """
    costs = _costs(one, other)
    if costs is None:
        return False
    pairs = _accuracies(one, other)
    finer, coarser = (any(_more(*pair, _SAME_DB) for pair in side) for side in (pairs, [p[::-1] for p in pairs]))
    cheaper, dearer = (a < b * (1 - _SAME_COST) for a, b in (costs, costs[::-1]))
    return not coarser and not dearer and (finer or cheaper)


def _mark(contestant: Contestant, holding: Sequence[Contestant], float32_bytes: int) -> Mark:
    if contestant.problems:
        return Mark("harmful", "; ".join(contestant.problems))
    better = [other for other in holding if dominates(other, contestant)]
    if better:
        best = max(better, key=lambda other: (other.sqnr_db, -other.weight_bytes))
        return Mark("dominated", _comparison(best, contestant))
    size = f"{contestant.weight_bytes / max(1, float32_bytes):.0%} of the bytes"
    if contestant.precision == "fp32":
        return Mark("no gain", "float32 itself")
    if contestant.speed is not None:
        measured = f"{format_ratio(contestant.speed)} as fast as float32, measured; {size}"
        if contestant.speed.median >= SPEED_UP and contestant.speed.low > 1:
            return Mark("worth it", measured)
        doubt = "not beyond doubt" if contestant.speed.median >= SPEED_UP else f"less than {SPEED_UP}×"
        return Mark("no gain", f"{measured}: {doubt}")
    if contestant.weight_bytes < float32_bytes * (1 - _SAME_COST):
        return Mark("worth it", f"{size}; speed not measured here")
    return Mark("no gain", f"{size}; speed not measured here")


def _more(one: float, other: float, same: float) -> bool:
    """Of two that may both be infinite, neither is more."""
    return one != other and one - other > same


def _accuracies(one: Contestant, other: Contestant) -> list[tuple[float, float]]:
    return [(one.sqnr_db, other.sqnr_db), *zip(one.outputs_db, other.outputs_db, strict=True)]


def _costs(one: Contestant, other: Contestant) -> tuple[float, float] | None:
    if one.speed is not None and other.speed is not None:
        return 1 / one.speed.median, 1 / other.speed.median
    pair = {one.precision, other.precision}
    if one.speed is not None or other.speed is not None or (_ON_CPUS in pair and "fp32" not in pair):
        return None
    return one.weight_bytes, other.weight_bytes


def _comparison(best: Contestant, contestant: Contestant) -> str:
    """Why the first dominates the second."""
    pairs = _accuracies(best, contestant)
    place = next((i for i, pair in enumerate(pairs) if _more(*pair, _SAME_DB)), 0)
    accuracy = "{:.1f} dB beside {:.1f} dB".format(*pairs[place]) + (" of its own output" if place else "")
    costs = _costs(best, contestant)
    assert costs is not None
    timed, (cost, dominated_cost) = best.speed is not None, costs
    if cost >= dominated_cost * (1 - _SAME_COST):
        return f"{best.precision} is more accurate ({accuracy}) and as {'fast' if timed else 'small'}"
    if timed:
        return f"{best.precision} is {dominated_cost / cost:.2f} times as fast, with {accuracy}"
    return f"{best.precision} has {cost / dominated_cost:.0%} of its bytes, with {accuracy}"
