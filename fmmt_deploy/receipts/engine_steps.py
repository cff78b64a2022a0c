"""The step in which TensorRT's engines were built."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.errors import ParityError
from fmmt_deploy.names import GraphName
from fmmt_deploy.receipts.lanes import Lane, other_runtime
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.step import State, Step, listed, step_from
from fmmt_deploy.receipts.subjects import ELSEWHERE, changed, sha256_now

__all__ = ["engine_step"]

_WORST: tuple[State, ...] = ("failed", "stale", "missing", "unknown", "ok")


def engine_step(bundle: Bundle, receipts: Sequence[Receipt], lane: Lane) -> Step:
    """The engines of a lane: the one that is worst off."""
    steps = [_engine(bundle, receipts, lane, graph, precision) for graph, precision in lane.precisions.items()]
    return min(steps, key=lambda step: _WORST.index(step.state))


def _engine(bundle: Bundle, receipts: Sequence[Receipt], lane: Lane, graph: GraphName, precision: Precision) -> Step:
    asked = f"-b {shlex.quote(str(bundle.path))} --engine {lane.engine} --precision {lane.text}"
    build, found = f"fmmt build {asked}", _built(receipts, lane, graph, precision)
    if found is None:
        return Step("engine", lane.name, "missing", f"none was built of {graph} {precision}", next=build)
    made, file = found

    def step(state: State, why: str, next_: str = build) -> Step:
        return step_from(made, "engine", lane.name, state, why, next_)

    kept = not file.startswith(ELSEWHERE)
    if kept and not (bundle.path / file).exists():
        return step("missing", f"{file} is gone")
    if kept and sha256_now(bundle, file) != made.outputs[file]:
        why = f"{file} is not what was built: built again without a receipt, or damaged"
        return step("stale", why, f"{build} --force")
    if others := changed(bundle, made.subjects):
        return step("stale", f"{listed(others)} changed since")
    if other := other_runtime(lane, made):
        return step("stale", f"it was built by {other}")
    return _tried(receipts, file, made, lane, f"fmmt parity {asked} --self")


def _tried(receipts: Sequence[Receipt], file: str, made: Receipt, lane: Lane, again: str) -> Step:
    """Whether it agreed with itself, when it was built or later."""
    itself = [r for r in receipts if _is_self_check(r) and r.subjects.get(file) == made.outputs[file]]
    latest = max([made, *itself], key=lambda receipt: receipt.number)
    if latest.exit_code:
        itself_failed = latest.exit_code == ParityError.exit_code
        why = "it does not agree with itself" if itself_failed else f"building ended with {latest.exit_code}"
        return step_from(latest, "engine", lane.name, "failed", why, again)
    if not latest.verdict:
        return step_from(latest, "engine", lane.name, "unknown", "it was not held against itself yet", again)
    return step_from(latest, "engine", lane.name, "ok", "agrees with itself")


def _is_self_check(receipt: Receipt) -> bool:
    asked = receipt.settings.get("self")
    return receipt.command == "parity" and asked is not None and asked.value is True


def _built(
    receipts: Sequence[Receipt], lane: Lane, graph: GraphName, precision: Precision
) -> tuple[Receipt, str] | None:
    """The latest receipt that says that an engine was built, and the engine's file."""
    name = re.compile(rf"(engines/|{ELSEWHERE}){graph}-{precision}-[0-9a-f]{{16}}\.engine")
    for receipt in reversed(receipts):
        if receipt.command == "build" and receipt.settings["engine"].value == lane.engine:
            for file in receipt.outputs:
                if name.fullmatch(file):
                    return receipt, file
    return None
