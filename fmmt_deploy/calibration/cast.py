"""Typed graphs beside the float32 ones of a bundle: planned, audited, written, accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

import onnx

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import Precisions, adding_command
from fmmt_deploy.bundle.products import flops_share, products_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.bundle.writing import Finish
from fmmt_deploy.calibration.decisions import PASS
from fmmt_deploy.calibration.draft import Draft, write_draft
from fmmt_deploy.calibration.observing import CaseInputs, observe_graphs
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.ranges import RangeAudit, TensorRange
from fmmt_deploy.calibration.requirements import Requirement, check_requirement
from fmmt_deploy.errors import BundleError, PrecisionError, UsageError
from fmmt_deploy.types import GraphName

__all__ = [
    "Accept",
    "audit_ranges",
    "cast_bundle",
    "check_castable",
    "plan_casts",
    "shares_of",
    "typed_files",
]

Accept = Callable[[GraphName, Path, Precision], None]
"""Checks a typed graph that has just been written; raises ParityError."""


def typed_files(graph: GraphName, precision: Precision) -> tuple[str, str]:
    """Where a bundle keeps a typed graph and its weights."""
    return f"graphs/{precision}/{graph}.onnx", f"graphs/{precision}/{graph}.safetensors"


def check_castable(bundle: Bundle, precisions: Precisions, force: bool) -> dict[GraphName, Precision]:
    """Which graphs are to be cast, checked before any work is done.

    Args:
        bundle: The bundle.
        precisions: What is asked for; float32 asks for nothing.
        force: Whether typed graphs that are there may be replaced.

    Raises:
        UsageError: Nothing is asked for, or int8, or what is there already.
    """
    wanted: dict[GraphName, Precision] = {g: precision for g, precision in precisions.items() if precision != "fp32"}
    if not wanted:
        raise UsageError(
            "There is nothing to cast: float32 graphs are in every bundle.",
            fix="Ask for fp16 or bf16, for example --precision swin=fp16,plm=fp16.",
        )
    for graph, precision in wanted.items():
        if precision not in ("fp16", "bf16"):
            raise UsageError(
                f"{graph} can't be cast to {precision}.",
                why="Products of 8 bits need ranges of what they read, from real data.",
                fix=f"Ask for fp16 or bf16; or: {adding_command(bundle.path, [graph], precision)}",
            )
        if precision in bundle.manifest.graphs[graph] and not force:
            raise UsageError(
                f"The bundle {bundle.path} has {graph} in {precision} already.", fix="Add --force to cast it again."
            )
    return wanted


def plan_casts(
    bundle: Bundle,
    wanted: Mapping[GraphName, Precision],
    keep: Sequence[str] = (),
    requirement: Requirement | None = None,
) -> tuple[Draft, ...]:
    """Decides every node of every graph; nothing is written.

    Args:
        bundle: The bundle.
        wanted: See `check_castable`.
        keep: Patterns of names of nodes that stay in float32.
        requirement: What each graph that is cast to its precision must meet.

    Raises:
        PrecisionError: The requirement is not met, or the pass fails.
        UsageError: The requirement is on a precision that is not asked for, or a pattern fits no node.
    """
    if requirement is not None and requirement.precision not in wanted.values():
        raise UsageError(
            f"--require {requirement}: no graph is cast to {requirement.precision}.",
            fix=f"Require {' or '.join(sorted(set(wanted.values())))}, or ask for it with --precision.",
        )
    planned = tuple(draft_in(graph, bundle.graph(graph), precision, keep) for graph, precision in wanted.items())
    for pattern in keep:
        if not any(fnmatchcase(d.node, pattern) for typed in planned for d in typed.decisions):
            raise UsageError(
                f"--keep-float32 {pattern!r} fits no node of {', '.join(wanted)}.",
                fix="Node names are in the result of `fmmt cast --dry-run --json`.",
            )
    for typed in planned:
        if requirement is not None and requirement.precision == typed.precision:
            check_requirement(requirement, shares_of(typed), f"{typed.graph} in {typed.precision}")
    return planned


def shares_of(typed: Draft) -> dict[Precision, float]:
    """The share of a typed graph's matrix-product FLOPs in each precision, read off the graph itself.

    Raises:
        PrecisionError: A product's shape or type can't be inferred.
    """
    try:
        return flops_share(products_of(typed.model))
    except ValueError as error:
        raise PrecisionError(f"The FLOPs of {typed.graph} can't be told: {error}.") from error


def audit_ranges(
    bundle: Bundle, planned: Sequence[Draft], cases: Iterable[CaseInputs], threads: int
) -> dict[GraphName, tuple[TensorRange, ...]]:
    """Runs the float32 graphs on cases, and looks at what the new types would do to each tensor.

    Args:
        bundle: The bundle.
        planned: The typed graphs.
        cases: See `observe_graphs`.
        threads: To compute with.

    Raises:
        DataError: An input is not finite.
        PrecisionError: A float32 graph computes something that is not finite.
    """
    audits = {typed.graph: RangeAudit(typed) for typed in planned}
    observe_graphs(bundle, audits, cases, threads)
    return {graph: audit.ranges() for graph, audit in audits.items()}


def cast_bundle(
    bundle: Bundle,
    planned: Sequence[Draft],
    *,
    accept: Accept,
    out: Path | None = None,
    force: bool = False,
    receipts: Callable[[], Mapping[str, str]] = dict,
    finish: Finish | None = None,
    status: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Writes typed graphs beside the float32 ones; they are in the bundle only when every one has been accepted.

    Args:
        bundle: The bundle.
        planned: The typed graphs.
        accept: Checks each graph before the next is written.
        out: Where a new bundle goes that has them too; default into this one.
        force: Whether to replace a bundle that is at `out`.
        receipts: Gives texts by path that go into the bundle, too, once all graphs are accepted.
        finish: See `BundleWriter.commit`.
        status: Told what is going on.

    Raises:
        ParityError: A typed graph answers too differently.
        PrecisionError: A weight overflows.
        UsageError: Something is at `out` already, or the bundle was changed meanwhile.
        EnvironmentProblem: The disk is full.
    """
    replaced = [name for typed in planned for name in typed_files(typed.graph, typed.precision)]
    graphs = {graph: dict(files) for graph, files in bundle.manifest.graphs.items()}
    needed = sum(typed.size_bytes for typed in planned)
    with extend_bundle(bundle, out, force, needed, replaced) as writer:
        for typed in planned:
            what, (relative, weights) = f"{typed.graph} {typed.precision}", typed_files(typed.graph, typed.precision)
            status(f"{what}: writing weights and graph")
            file = writer.place(relative)
            writer.place(weights)
            write_draft(typed, file)
            _check(file)
            status(f"{what}: emulating, and comparing with float32")
            accept(typed.graph, file, typed.precision)
            graphs[typed.graph][typed.precision] = relative
        for relative, text in receipts().items():
            writer.place(relative).write_text(text, encoding="utf-8")
        status("hashing")
        tools = {**bundle.manifest.tools, "onnx": version("onnx")}
        return writer.commit(replace(bundle.manifest, graphs=graphs, tools=tools), finish)


def _check(file: Path) -> None:
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"The pass '{PASS}' made an invalid graph.", why=str(error), path=file) from error
