"""The steps in which something was made: checkpoint, graphs, typed graphs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from fmmt_deploy.bundle.manifest import MANIFEST_NAME, Precision
from fmmt_deploy.bundle.precisions import adding_command
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.names import GraphName
from fmmt_deploy.receipts.record import Receipt
from fmmt_deploy.receipts.step import Step, listed, path_of, step_from
from fmmt_deploy.receipts.subjects import changed

__all__ = ["checkpoint_step", "graph_step", "manifest_problem", "typed_step", "vouching"]


def vouching(receipts: Sequence[Receipt], relative: str) -> Receipt | None:
    """The latest receipt that says that a file was made."""
    return next((receipt for receipt in reversed(receipts) if relative in receipt.outputs), None)


def manifest_problem(bundle: Bundle, receipts: Sequence[Receipt]) -> str:
    """Why what the manifest says, such as tau, may not be what was judged; "" where it is, or no receipt tells."""
    made = vouching(receipts, MANIFEST_NAME)
    if made is None or not changed(bundle, {MANIFEST_NAME: made.outputs[MANIFEST_NAME]}):
        return ""
    return f"{MANIFEST_NAME} is not that of {path_of(made)}: changed without a receipt, or damaged"


def checkpoint_step(bundle: Bundle, receipts: Sequence[Receipt]) -> Step:
    """What the bundle was made from."""
    source = bundle.manifest.source.checkpoints
    name = ", ".join(source) or "of no name"
    again = f"fmmt export --ckpt PATH -o {shlex.quote(str(bundle.path))} --force"
    made = _exported(receipts)
    if made is None:
        return Step("checkpoint", name, "unknown", "no receipt tells what the bundle was made from", next=again)
    named = {hashed.sha256 for hashed in made.inputs.values()}
    if not set(source.values()) <= named:
        why = "the manifest names another checkpoint than the receipt"
        return step_from(made, "checkpoint", name, "stale", why, again)
    return step_from(made, "checkpoint", name, "ok", f"{len(made.inputs)} files hashed")


def graph_step(bundle: Bundle, receipts: Sequence[Receipt]) -> Step:
    """The float32 graphs, and the manifest that lists them."""
    graphs = list(bundle.manifest.graphs)
    name, again = f"fp32 ({', '.join(graphs)})", f"fmmt verify -b {shlex.quote(str(bundle.path))}"
    made, listed_by = _exported(receipts), vouching(receipts, MANIFEST_NAME)
    if made is None or listed_by is None:
        return Step("graph", name, "unknown", "no receipt vouches for the graphs and the manifest")
    files = [bundle.manifest.graphs[graph].get("fp32", "") for graph in graphs]
    if others := changed(bundle, _made(made, files)):
        return step_from(made, "graph", name, "stale", f"{listed(others)} is not what was exported", again)
    if why := manifest_problem(bundle, receipts):
        return step_from(listed_by, "graph", name, "stale", why, again)
    return step_from(made, "graph", name, "ok", "accepted against PyTorch")


def typed_step(bundle: Bundle, receipts: Sequence[Receipt], precision: Precision, graphs: Sequence[GraphName]) -> Step:
    """The graphs of a lower precision: the first that is not as it should be, or the latest."""
    steps = [_typed(bundle, receipts, precision, graph, f"{precision} ({', '.join(graphs)})") for graph in graphs]
    wrong = [step for step in steps if step.state != "ok"]
    return wrong[0] if wrong else max(steps, key=lambda step: step.receipt or "")


def _typed(bundle: Bundle, receipts: Sequence[Receipt], precision: Precision, graph: GraphName, name: str) -> Step:
    again = f"{adding_command(bundle.path, [graph], precision)} --force"
    file = bundle.manifest.graphs[graph][precision]
    made = vouching(receipts, file)
    if made is None:
        return Step("typed graph", name, "unknown", f"no receipt tells how {graph} was made")
    if others := changed(bundle, _made(made, [file])):
        return step_from(made, "typed graph", name, "stale", f"{listed(others)} is not what was made", again)
    if others := changed(bundle, made.subjects):
        return step_from(made, "typed graph", name, "stale", f"{listed(others)} changed since", again)
    how = "accepted against float32" if made.command == "cast" else "calibrated, and held against float32"
    return step_from(made, "typed graph", name, "ok", how)


def _made(made: Receipt, graphs: Sequence[str]) -> dict[str, str]:
    """What a receipt says it made of some graphs: their files, and those beside them with their names."""
    stems = tuple(file.removesuffix("onnx") for file in graphs)
    found = {name: digest for name, digest in made.outputs.items() if name.startswith(stems)}
    return {**dict.fromkeys(graphs, ""), **found}  # none is the hash of a graph that the receipt does not name


def _exported(receipts: Sequence[Receipt]) -> Receipt | None:
    return next((receipt for receipt in reversed(receipts) if receipt.command == "export"), None)
