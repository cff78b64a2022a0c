"""What a verification is held to, on an H200, by the issue that asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fmmt_deploy.engines.tensorrt.flavour import FLAVOURS
from fmmt_deploy.verification.outcomes import Outcome
from fmmt_deploy.verification.settings import Settings

__all__ = ["Goal", "goals_of", "shares_of_rates"]

THROUGHPUT, LATENCY, TEXT_SHARE, FACE_SHARE = 15.0, 5.0, 0.50, 0.15


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that should be reached.

    Attributes:
        what: What is measured.
        wanted: At least this.
        found: What was measured, by the engine of TensorRT that is best at it; None if nothing was.
        engine: Which.
    """

    what: str
    wanted: float
    found: float | None = None
    engine: str = ""

    @property
    def verdict(self) -> Literal["met", "missed", "not measured"]:
        """Whether it is reached."""
        if self.found is None:
            return "not measured"
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
        result = results.get(f"{faces} faces", {})
        goals.append(_best(f"throughput at {faces} faces, × the published loop", THROUGHPUT, ours, _throughput(result)))
        goals.append(_best(f"latency at {faces} faces, × the published loop", LATENCY, ours, _latency(result)))
    shares = shares_of_rates(results)
    for graph, what, wanted in (("plm", "text", TEXT_SHARE), ("swin", "face", FACE_SHARE)):
        name = f"{what} batches, share of the matrix rate"
        goals.append(_best(name, wanted, ours, lambda engine, graph=graph: shares.get((engine, graph))))  # type: ignore[misc]
    return tuple(goals)


def _best(what: str, wanted: float, engines: Iterable[str], found: Callable[[str], float | None]) -> Goal:
    measured = [(value, engine) for engine in engines if (value := found(engine)) is not None]
    return Goal(what, wanted, *max(measured)) if measured else Goal(what, wanted)


def _throughput(result: Mapping[str, Any]) -> Callable[[str], float | None]:
    published = _way(result, None, "published")

    def ratio(engine: str) -> float | None:
        offline = result.get("offline_utterances_per_s", {}).get(engine)
        return None if published is None or offline is None else float(offline / published["per_second"])

    return ratio


def _latency(result: Mapping[str, Any]) -> Callable[[str], float | None]:
    published = _way(result, None, "published")

    def ratio(engine: str) -> float | None:
        alone = _way(result, engine, "alone")
        if published is None or alone is None:
            return None
        return float(published["latency"]["p50_ms"] / alone["latency"]["p50_ms"])

    return ratio


def _way(result: Mapping[str, Any], engine: str | None, way: str) -> Mapping[str, Any] | None:
    rows = (result.get("report") or {}).get("ways", ())
    return next((row for row in rows if row["way"] == way and engine in (None, row["engine"])), None)


def shares_of_rates(results: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """For each engine and graph the largest share over batches of more than one."""
    rates = results.get("rates", {}).get("matrix_tflops", {})
    shares: dict[tuple[str, str], float] = {}
    for row in results.get("stages", {}).get("rows", ()):
        if row["precision"] in rates and row.get("dialogues", row.get("faces")) > 1:
            key = (row["engine"], row["graph"])
            shares[key] = max(shares.get(key, 0.0), row["tflops"] / rates[row["precision"]])
    return shares
