"""Whether a benchmark is slower than a saved one of the same machine and work, by more than is allowed.

Speeds of a shared machine drift, so times of two runs are not compared as they are. A speed-up against the published
loop of its own run is compared with that of the other run; other times are scaled by the machine's matrix rate, which
both runs measured. What is left is uncertain by both runs' bounds, so there are three verdicts: `slower` when the whole
interval is beyond what is allowed, `within` when none of it is, and `unsure`: measure longer, or with less beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, hypot, log
from statistics import median
from typing import Literal, TypeAlias

from fmmt_deploy.benchmark.saved_figures import Figure, Rates, Saved, Terms, saved_from_document
from fmmt_deploy.errors import SlowerError, UsageError

__all__ = ["Change", "ChangeVerdict", "Regression", "check_alike", "regression"]

ChangeVerdict: TypeAlias = Literal["within", "unsure", "slower"]

_Logs: TypeAlias = tuple[float, float, float]
"""A logarithm, and how far below and above it may be."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both runs.

    Attributes:
        workload: What was answered.
        row: What was measured.
        measure: `speed-up` against the published loop, `time`, `p90`, or `rate` of arrivals.
        times: How many times as long it takes as it did.
        low: At least so many; None where a bound is missing.
        high: At most so many; None where a bound is missing.
        scaled_by: How the machine's own speed was taken out: `speed-up`, `matrix rate`, or `nothing`.
        verdict: See above.
        reasons: Why it is unsure, where it is not the interval that makes it so.
    """

    workload: str
    row: str
    measure: str
    times: float
    low: float | None
    high: float | None
    scaled_by: Literal["speed-up", "matrix rate", "nothing"]
    verdict: ChangeVerdict
    reasons: tuple[str, ...]

    @property
    def words(self) -> str:
        """What changed by how much."""
        interval = "" if self.low is None or self.high is None else f" ({self.low:.2f}–{self.high:.2f})"
        return f"{self.row}, {self.measure}: {self.times:.2f}{interval} times as long"


@dataclass(frozen=True)
class Regression:
    """What became of the figures of an earlier run.

    Attributes:
        allowed: As what share slower a figure may be.
        changes: Of all figures that both runs have.
        missing: Rows of the earlier run that the later one has not.
    """

    allowed: float
    changes: tuple[Change, ...]
    missing: tuple[str, ...]

    @property
    def verdict(self) -> ChangeVerdict:
        """The worst of all; `unsure` too where the later run lacks a row."""
        found = {change.verdict for change in self.changes}
        if "slower" in found:
            return "slower"
        return "unsure" if "unsure" in found or self.missing else "within"

    def problem(self) -> SlowerError | None:
        """What says which figures became slower; None where none surely did."""
        slower = sorted((c for c in self.changes if c.verdict == "slower"), key=lambda c: -c.times)
        if not slower:
            return None
        more = f" and {len(slower) - 1} more" if len(slower) > 1 else ""
        return SlowerError(
            f"Slower than before by more than {self.allowed:.0%}: {slower[0].words}{more}.",
            why="; ".join(change.words for change in slower[1:4]),
            fix="See the stages for what is slow, or save this run as the new baseline.",
        )

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "allowed": self.allowed,
            "verdict": self.verdict,
            "changes": [asdict(change) for change in self.changes],
            "missing": list(self.missing),
        }


def regression(
    earlier: Mapping[str, object],
    later: Mapping[str, object],
    allowed: float = 0.05,
    *,
    take_invalid: bool = False,
) -> Regression:
    """Compares two documents of `fmmt bench --json`.

    Args:
        earlier: The saved one.
        later: The new one.
        allowed: As what share slower a figure may be.
        take_invalid: Judge figures that are INVALID like others; by default they are unsure.

    Raises:
        ArtefactError: One of them is no such document.
        UsageError: They are of other machines, settings, work or engines (with their precisions), or share no figure.
    """
    old, new = saved_from_document(earlier, "The earlier report"), saved_from_document(later, "This run's report")
    check_alike(old.terms, new.terms)
    if not {(f.workload, f.row, f.measure) for f in old.figures} & {
        (f.workload, f.row, f.measure) for f in new.figures
    }:
        raise _unlike("other scenarios: the two share no figure")
    rows = {(f.workload, f.row): f for f in new.figures}
    missing = dict.fromkeys(f.row for f in old.figures if (f.workload, f.row) not in rows)
    return Regression(allowed, _changes(old, new, allowed, take_invalid), tuple(missing))


def check_alike(old: Terms, new: Terms) -> None:
    """Says whether a run can be compared with an earlier one; that is known before it is measured.

    Raises:
        UsageError: They are of other machines, settings, work, or engines with their precisions.
    """
    for kind, before, after in (
        ("another machine", old.machine, new.machine),
        ("other settings", old.settings, new.settings),
    ):
        for name, value in before.items():
            if after[name] != value:
                raise _unlike(f"{kind}: {name} {value}, now {after[name]}")
    for key, source in old.workloads.items():
        if key not in new.workloads:
            raise _unlike(f"other work: {source}, now {', '.join(new.workloads.values())}")
    for engine in old.engines:
        if engine not in new.engines:
            raise _unlike(f"another engine or precision: {engine}, now {', '.join(new.engines) or 'none'}")


def _unlike(what: str) -> UsageError:
    return UsageError(
        f"The earlier report is of {what}.",
        why="Times are only compared where nothing but the software changed.",
        fix="Measure as the earlier run did, or save a new baseline here.",
    )


def _changes(old: Saved, new: Saved, allowed: float, take_invalid: bool) -> tuple[Change, ...]:
    after = {(f.workload, f.row, f.measure): f for f in new.figures}
    pairs = [(f, after[key]) for f in old.figures if (key := (f.workload, f.row, f.measure)) in after]
    better = {(f.workload, f.row) for f, _ in pairs if f.measure == "speed-up"}
    return tuple(
        _change(before, now, old, new, allowed, take_invalid)
        for before, now in pairs
        if before.measure != "time" or (before.workload, before.row) not in better  # the speed-up says the same, better
    )


def _change(before: Figure, now: Figure, old: Saved, new: Saved, allowed: float, take_invalid: bool) -> Change:
    scale = None
    if before.measure != "speed-up":
        scale = _scale(old.rates[before.workload], new.rates[before.workload], before.device)
    parts = [_logs(now), _negated(_logs(before)), scale]
    middle = sum(part[0] for part in parts if part is not None)
    times, low, high = exp(middle), None, None
    if before.bounds is not None and now.bounds is not None:
        low = exp(middle - hypot(*(part[1] for part in parts if part is not None)))
        high = exp(middle + hypot(*(part[2] for part in parts if part is not None)))
    wrong = () if take_invalid else (*(f"earlier: {r}" for r in before.reasons), *(f"now: {r}" for r in now.reasons))
    return Change(
        workload=old.terms.workloads[before.workload],
        row=before.row,
        measure=before.measure,
        times=times,
        low=low,
        high=high,
        scaled_by="speed-up" if before.measure == "speed-up" else "nothing" if scale is None else "matrix rate",
        verdict=_verdict(low, high, allowed, wrong),
        reasons=wrong if low is not None else (*wrong, "a bound is missing: too few samples"),
    )


def _verdict(low: float | None, high: float | None, allowed: float, wrong: tuple[str, ...]) -> ChangeVerdict:
    if low is None or high is None or wrong:
        return "unsure"
    if low > 1 + allowed:
        return "slower"
    return "within" if high <= 1 + allowed else "unsure"


def _scale(old: Rates, new: Rates, device: str) -> _Logs | None:
    """How many times as fast the machine is as it was, by the rates that both runs measured on that device."""
    common = [name for name in old if name in new and name.partition(" ")[0] == device]
    if not common:
        return None
    ratios = [_ratio(old[name], new[name]) for name in common]
    return median(r[0] for r in ratios), max(r[1] for r in ratios), max(r[2] for r in ratios)


def _ratio(old: tuple[float, float, float], new: tuple[float, float, float]) -> _Logs:
    below = hypot(log(new[0] / new[1]), log(old[2] / old[0]))
    above = hypot(log(new[2] / new[0]), log(old[0] / old[1]))
    return log(new[0] / old[0]), below, above


def _logs(figure: Figure) -> _Logs:
    low, high = figure.bounds or (figure.slowness, figure.slowness)
    return log(figure.slowness), log(figure.slowness / low), log(high / figure.slowness)


def _negated(logs: _Logs) -> _Logs:
    return -logs[0], logs[2], logs[1]
