"""Runs all steps within the time there is, and keeps the record on the disk up to date after each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from fmmt_deploy.errors import EnvironmentProblem, FmmtError, ParityError, SlowerError, UnstableError
from fmmt_deploy.pipeline.answers import write_text
from fmmt_deploy.verification.goals import goals_of
from fmmt_deploy.verification.outcomes import Outcome, Step
from fmmt_deploy.verification.settings import Settings
from fmmt_deploy.verification.worker import Runner

__all__ = ["SCHEMA", "document_of", "exit_code_of", "ready_engines", "verify"]

SCHEMA = "fmmt.verification/2"

_LEAST_SECONDS = 2.0


def verify(
    settings: Settings,
    steps: Sequence[Step],
    runner: Runner,
    record: Path,
    tell: Callable[[Outcome], None] = lambda _: None,
    clock: Callable[[], float] = monotonic,
) -> tuple[Outcome, ...]:
    """Does one step after the other; whatever becomes of one, the next is tried.

    Args:
        settings: What is verified, in how much time.
        steps: The steps.
        runner: Runs them.
        record: A JSON file, replaced in one step after every step.
        tell: Told of every outcome.
        clock: Seconds, for tests.
    """
    outcomes: list[Outcome] = []
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), clock()
    _record(record, settings, outcomes, started)
    try:
        for step in steps:
            left = settings.seconds - (clock() - began)
            outcomes.append(_outcome(step, left, outcomes, ready_engines(steps, outcomes), runner))
            _record(record, settings, outcomes, started)
            tell(outcomes[-1])
    finally:
        runner.close()
    return tuple(outcomes)


def ready_engines(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Engines all of whose tests are done, and with which no step was lost."""
    blamed = {outcome.asked for outcome in outcomes}
    done = {outcome.name for outcome in outcomes if outcome.state == "done"}
    tested = dict.fromkeys(step.readies for step in steps if step.readies is not None)
    able = (name for name in tested if name not in blamed)
    return tuple(name for name in able if all(step.name in done for step in steps if step.readies == name))


def exit_code_of(settings: Settings, outcomes: Sequence[Outcome]) -> int:
    """What a verification ends with: an engine that answers wrongly weighs more than a GPU that is missing.

    4 where an engine fails parity or consistency; 3 where nothing could be measured because this machine lacks a GPU or
    every TensorRT; 1 where something else failed or was late, or a goal was not measured; 7 where a goal's figure is
    INVALID, which says neither that it is met nor that it is missed; 6 where one is missed; or 0.
    """
    codes = {outcome.exit_code for outcome in outcomes if outcome.state in ("failed", "late")}
    goals = goals_of(settings, outcomes)
    if ParityError.exit_code in codes:
        return ParityError.exit_code
    verdicts = {goal.verdict for goal in goals}
    if verdicts == {"not measured"} and any(outcome.state == "unable" for outcome in outcomes):
        return EnvironmentProblem.exit_code
    if codes or "not measured" in verdicts:
        return FmmtError.exit_code
    if "INVALID" in verdicts:
        return UnstableError.exit_code
    return SlowerError.exit_code if "missed" in verdicts else 0


def document_of(settings: Settings, outcomes: Sequence[Outcome], started: str = "") -> Mapping[str, object]:
    """Everything, as plain values; numbers that JSON has no word for are null."""
    goals = [{**asdict(goal), "verdict": goal.verdict} for goal in goals_of(settings, outcomes)]
    document = {
        "schema": SCHEMA,
        "started": started,
        "seconds": sum(outcome.seconds for outcome in outcomes),
        "exit_code": exit_code_of(settings, outcomes),
        "settings": asdict(settings),
        "goals": goals,
        "steps": [asdict(outcome) for outcome in outcomes],
    }
    plain = _plain(document)
    assert isinstance(plain, dict)
    return plain


def _outcome(step: Step, left: float, outcomes: Sequence[Outcome], ready: tuple[str, ...], runner: Runner) -> Outcome:
    states = {outcome.name: outcome.state for outcome in outcomes}
    for need in step.needs:
        if states.get(need) != "done":
            return Outcome(step.name, "skipped", why=f"'{need}' is not done")
    seconds = min(step.seconds, left - step.leaves)
    if seconds < _LEAST_SECONDS:
        return Outcome(step.name, "skipped", why=f"no time: {max(0.0, left):.0f} s left")
    return runner.run(step, seconds, ready)


def _record(path: Path, settings: Settings, outcomes: Sequence[Outcome], started: str) -> None:
    text = json.dumps(document_of(settings, outcomes, started), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", force=True)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)
