"""What a verification is held to, on an H200, by the issue that asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fmmt_deploy.engines.tensorrt.flavour import FLAVOURS
from fmmt_deploy.verification.outcomes import Outcome
from fmmt_deploy.verification.settings import Scenario, Settings, files_step

__all__ = ["Found", "Goal", "goals_of", "reasons_of_row", "shares_of_rates"]

THROUGHPUT, LATENCY, TEXT_SHARE, FACE_SHARE = 15.0, 5.0, 0.50, 0.15

_PUBLISHED = " published"
"""What a baseline's name ends with where ratios are against the published loop."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of an engine.

    Attributes:
        value: The figure.
        reasons: Why it is INVALID; empty where it is VALID.
    """

    value: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that should be reached.

    Attributes:
        what: What is measured.
        wanted: At least this.
        found: What was measured, by the engine of TensorRT that is best at it; None if nothing was.
        engine: Which.
        reasons: Why that is INVALID; an engine whose figure is VALID comes before those whose is not.
    """

    what: str
    wanted: float
    found: float | None = None
    engine: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["met", "missed", "INVALID", "not measured"]:
        """Whether it is reached."""
        if self.found is None:
            return "not measured"
        if self.reasons:
            return "INVALID"
        return "met" if self.found >= self.wanted else "missed"


def goals_of(settings: Settings, outcomes: Sequence[Outcome]) -> tuple[Goal, ...]:
    """Judges FP16 engines of TensorRT; latency without the dialogue cache, which is the harder half.

    Args:
        settings: What was measured.
        outcomes: Of all steps so far.
    """
    results = {outcome.name: outcome.result for outcome in outcomes if outcome.state == "done"}
    ours = tuple(f"{flavour}:fp16" for flavour in FLAVOURS)
    goals = []
    for faces in settings.faces:
        for what, wanted, scenario, way in _AGAINST_PUBLISHED:
            ratios = _ratios(results.get(files_step(faces, scenario), {}), way)
            goals.append(_best(f"{what} at {faces} faces, × the published loop", wanted, ours, ratios))
    shares = shares_of_rates(results)
    for graph, what, wanted in (("plm", "text", TEXT_SHARE), ("swin", "face", FACE_SHARE)):
        of_graph = {engine: found for (engine, of), found in shares.items() if of == graph}
        goals.append(_best(f"{what} batches, share of the matrix rate", wanted, ours, of_graph))
    return tuple(goals)


_AGAINST_PUBLISHED: tuple[tuple[str, float, Scenario, str], ...] = (
    ("throughput", THROUGHPUT, "offline", "batched"),
    ("latency", LATENCY, "single-stream", "alone"),
)


def shares_of_rates(results: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Found]:
    """For each engine and graph the largest share over batches of more than one."""
    rates, step = results.get("rates", {}).get("matrix_tflops", {}), results.get("stages", {})
    reasons = tuple(step.get("validity", {}).get("reasons", ()))
    shares: dict[tuple[str, str], Found] = {}
    for row in step.get("rows", ()):
        if row["precision"] in rates and row.get("dialogues", row.get("faces")) > 1:
            key, share = (row["engine"], row["graph"]), row["tflops"] / rates[row["precision"]]
            if key not in shares or share > shares[key].value:
                shares[key] = Found(share, reasons)
    return shares


def reasons_of_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a row from files to labels is INVALID, with what is said of its ratio; each reason once."""
    of_ratio = row["ratio"]["reasons"] if row["ratio"] is not None else ()
    return tuple(dict.fromkeys((*row["reasons"], *of_ratio)))


def _best(what: str, wanted: float, engines: Iterable[str], found: Mapping[str, Found]) -> Goal:
    measured = [(not found[engine].reasons, found[engine].value, engine) for engine in engines if engine in found]
    if not measured:
        return Goal(what, wanted)
    _, value, engine = max(measured)
    return Goal(what, wanted, value, engine, found[engine].reasons)


def _ratios(table: Mapping[str, Any], way: str) -> dict[str, Found]:
    """How many times as fast as the published loop; nothing where that was not measured."""
    if not str(table.get("baseline", "")).endswith(_PUBLISHED):
        return {}
    rows = [row for row in table["rows"] if row["way"] == way and row["ratio"] is not None]
    return {row["engine"]: Found(row["ratio"]["median"], reasons_of_row(row)) for row in rows}
