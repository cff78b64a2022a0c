"""The steps in which an engine was judged: parity, F1, bench."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.lanes import FLAVOURS, Lane, lanes_of_receipt, other_runtime
from fmmt_deploy.receipts.making_steps import manifest_problem
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.staleness import why_stale
from fmmt_deploy.receipts.step import Kind, State, Step, step_from

__all__ = ["judged_on", "judged_steps"]

_KINDS: Mapping[str, Kind] = {"parity": "parity", "eval": "F1", "bench": "bench"}


def judged_steps(bundle: Bundle, receipts: Sequence[Receipt], lane: Lane) -> Iterator[Step]:
    """For each kind of judgement the latest on each data, or what is missing."""
    manifest = manifest_problem(bundle, receipts)
    for command, kind in _KINDS.items():
        latest: dict[str, Receipt] = {}
        against: dict[str, list[Receipt]] = {}
        for receipt in receipts:
            if receipt.command == command and any(found == lane for found in lanes_of_receipt(bundle, receipt)):
                before = latest.pop(on := judged_on(receipt), None)
                only_scored = kind == "F1" and not receipt.verdict and before is not None and before.verdict
                latest[on] = before if before is not None and only_scored else receipt
                if kind == "F1" and receipt.exit_code and not why_stale(bundle, receipt, manifest, (lane,)):
                    against.setdefault(on, []).append(receipt)
        if lane.engine in FLAVOURS:
            latest.pop(_ITSELF, None)  # that is the engine's own step
        for on, receipt in latest.items():
            yield _judged(bundle, lane, kind, on, receipt, manifest, against.get(on, ()))
        if not latest.keys() - {_ITSELF} and lane.is_for_production:
            yield Step(kind, lane.name, "missing", "not judged yet", next=_command(bundle, lane, command))


def _judged(
    bundle: Bundle,
    lane: Lane,
    kind: Kind,
    on: str,
    receipt: Receipt,
    manifest: str,
    against: Sequence[Receipt],
) -> Step:
    """One step; `against` are the negative verdicts on the very same: a margin chosen after them hides none."""
    name = f"{lane.name}, {on}" if on else lane.name
    again = _again(bundle, receipt)

    def step(state: State, why: str) -> Step:
        return step_from(receipt, kind, name, state, why, again)

    if why := why_stale(bundle, receipt, manifest, (lane,)):
        verify = f"fmmt verify -b {shlex.quote(str(bundle.path))}"
        return step_from(receipt, kind, name, "stale", why, verify if why == manifest else again)
    other = other_runtime(lane, receipt)
    with_ = f" (with {other})" if other else ""
    if receipt.verdict == "INCONCLUSIVE":
        return step("unknown", f"INCONCLUSIVE{_margin(receipt)}: these data can't tell{with_}")
    if receipt.exit_code:
        what = receipt.verdict or "failed"
        return step("failed", f"{what}{_margin(receipt)}, exit code {receipt.exit_code}{with_}")
    if receipt.verdict.upper() == "INVALID":
        return step("unknown", f"measured, but not validly{with_}")
    if kind == "F1" and not receipt.verdict:
        again = f"{again} --reference torch"
        return step("unknown", f"scored, but not held against a reference{with_}")
    if kind == "F1" and receipt.result.get("warnings"):
        return step(
            "unknown", f"{receipt.verdict}{_margin(receipt)}, but with a warning of what was calibrated on{with_}"
        )
    after = f", after {against[-1].verdict}{_margin(against[-1])}" if against else ""
    return step("ok", f"{receipt.verdict or 'measured'}{_margin(receipt)}{after}{with_}")


def _margin(receipt: Receipt) -> str:
    """A verdict on F1 is one at its margin only."""
    margin = receipt.settings.get("margin")
    if margin is None or not isinstance(margin.value, int | float):
        return ""
    return f" at {margin.value:g} {'point' if margin.value == 1 else 'points'}"


_ITSELF = "against itself"


def judged_on(receipt: Receipt) -> str:
    """What was judged on, as the command line named it.

    A verdict on a part of the data, on other noise or against another reference is one of its own, and hides no other.
    """
    settings = {name: setting.value for name, setting in receipt.settings.items()}
    if settings.get("self") is True:
        return _ITSELF
    data, limit = settings.get("data"), settings.get("limit")
    noise, reference = settings.get("noise"), settings.get("reference")
    parts = [
        data is not None and settings.get("split"),
        limit is not None and ("first dialogue" if limit == 1 else f"first {limit} dialogues"),
        noise not in (None, "none") and f"noise {noise}",
        reference not in (None, "torch", "recorded") and f"against {reference}",
    ]
    which = ", ".join(str(part) for part in parts if part)
    on = str(data) if data is not None else "self-test" if receipt.command == "parity" else ""
    return f"{on} ({which})" if on and which else on


def _again(bundle: Bundle, receipt: Receipt) -> str:
    """The command as it was given, for the bundle where it is now."""
    words = ["fmmt", receipt.command, "-b", str(bundle.path)]
    for name, setting in receipt.settings.items():
        if setting.source != "command line" or name == "bundle" or setting.value is False:
            continue
        for value in setting.value if isinstance(setting.value, list) else [setting.value]:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _command(bundle: Bundle, lane: Lane, command: str) -> str:
    path = shlex.quote(str(bundle.path))
    if command == "bench":
        return f"fmmt bench -b {path} --engine {lane.engine if lane.text == 'fp32' else f'{lane.engine}:{lane.text}'}"
    asked = f"-b {path} --engine {lane.engine} --precision {lane.text}"
    return f"fmmt eval {asked} --data DIR --reference torch" if command == "eval" else f"fmmt {command} {asked}"
