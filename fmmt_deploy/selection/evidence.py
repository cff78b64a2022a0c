"""What a search found, as a recipe that says why one may believe it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import isfinite

from fmmt_deploy.bundle.manifest import MANIFEST_NAME
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.recipes import Evidence, Recipe, Tried
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.selection.found import Attempt, Found
from fmmt_deploy.selection.judgement import Judgement
from fmmt_deploy.selection.rules import EquivalenceRule

__all__ = ["evidence_of", "recipe_from_found"]

_MADE_WITH = ("fmmt-deploy", "numpy", "onnx", "torch")


def recipe_from_found(
    found: Found, settings: CalibrationSettings, bundle: Bundle, data: str, data_digest: str, source: str
) -> Recipe:
    """A recipe of the precisions that were found.

    Args:
        found: By `find_precisions`.
        settings: What was calibrated with.
        bundle: The model.
        data: What was judged on, for people.
        data_digest: Its content.
        source: Where the recipe will be, for messages.
    """
    return Recipe(
        source=source,
        precision={graph: choice.precision for graph, choice in found.choices.items()},
        calibration=settings,
        keep={graph: choice.keep for graph, choice in found.choices.items() if choice.keep},
        evidence=evidence_of(found, bundle, data, data_digest),
    )


def evidence_of(found: Found, bundle: Bundle, data: str, data_digest: str) -> Evidence:
    """See `recipe_from_found`. If all is float32, all decisions are the reference's."""
    judgement = found.judgement
    judged = [a.verdict.judgement for a in found.attempts if a.verdict.judgement is not None]
    f1 = None if judgement is None else judgement.f1
    interval = None if f1 is None else f1.interval
    return Evidence(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=data,
        data_digest=data_digest,
        bundle_digest=hashlib.sha256((bundle.path / MANIFEST_NAME).read_bytes()).hexdigest(),
        utterances=judged[0].utterances if judged else 0,
        rule=_rule(found.rule, found.labelled),
        relative_time=found.relative_time,
        agreement=1.0 if judgement is None else judgement.agreement,
        sqnr_db=_decibels(judgement),
        f1_points=None if f1 is None else 100 * f1.judged_difference,
        f1_interval_points=() if interval is None else (100 * interval.low, 100 * interval.high),
        versions=_versions(),
        tried=tuple(_tried(attempt) for attempt in found.attempts),
    )


def _rule(rule: EquivalenceRule, labelled: bool) -> str:
    decisions = f"at least {1 - rule.max_changed_share:.2%} of decisions agree"
    if not labelled:
        return f"{decisions}; labels are missing, so nothing about F1"
    f1 = f"weighted F1 drops by at most {100 * rule.max_f1_drop:g} points"
    return f"{f1}, and {decisions}; both as measured, not at the ends of their intervals"


def _tried(attempt: Attempt) -> Tried:
    judgement = attempt.verdict.judgement
    f1 = None if judgement is None else judgement.f1
    return Tried(
        precision=_named(attempt),
        kept_share=max(choice.cost.flops_share for choice in attempt.graphs.values()),
        agreement=None if judgement is None else judgement.agreement,
        sqnr_db=_decibels(judgement),
        f1_points=None if f1 is None else 100 * f1.judged_difference,
        problems=attempt.problems,
    )


def _named(attempt: Attempt) -> str:
    """By name, even if all are the same: not all graphs need be among them."""
    return ",".join(f"{graph}={choice.precision}" for graph, choice in attempt.graphs.items())


def _decibels(judgement: Judgement | None) -> float | None:
    return None if judgement is None or not isfinite(judgement.sqnr_db) else judgement.sqnr_db


def _versions() -> dict[str, str]:
    found = {}
    for name in _MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            found[name] = "unknown"
    return found
