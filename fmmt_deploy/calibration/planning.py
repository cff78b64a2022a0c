"""What `fmmt calibrate` is about to write: checked before any work, then planned graph by graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import Precisions, adding_command
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.audit import GraphAudit, audit_of, check_float16
from fmmt_deploy.calibration.calibrator import Calibrator
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.draft import Draft
from fmmt_deploy.calibration.formats import EIGHT_BITS, FORMATS
from fmmt_deploy.calibration.passes import draft_in
from fmmt_deploy.calibration.settings import CalibrationSettings
from fmmt_deploy.calibration.sites import kept_out, linears_of
from fmmt_deploy.errors import UsageError
from fmmt_deploy.types import GraphName

__all__ = [
    "Planned",
    "check_calibratable",
    "check_products_left",
    "names_to_keep_back",
    "plan_calibrated",
    "products_kept_back",
]


@dataclass(frozen=True, slots=True)
class Planned:
    """A graph that is about to be written; the audit of its calibration, if it has 8-bit products."""

    draft: Draft
    audit: GraphAudit | None


def check_calibratable(
    bundle: Bundle, precisions: Precisions, force: bool, others: bool = False
) -> dict[GraphName, Precision]:
    """Which graphs are to get 8-bit products, checked before any work is done.

    Args:
        bundle: The bundle.
        precisions: What is asked for; float32 asks for nothing.
        force: Whether graphs that are there may be replaced.
        others: Whether precisions that need no calibration are made, too.

    Raises:
        UsageError: Nothing is asked for, or what needs no calibration, or what is there already.
    """
    wanted: dict[GraphName, Precision] = {g: precision for g, precision in precisions.items() if precision != "fp32"}
    if not wanted:
        raise UsageError(
            "There is nothing to calibrate: float32 graphs are in every bundle.",
            fix=f"Ask for {', '.join(EIGHT_BITS)}, for example --precision swin=int8,plm=int8.",
        )
    for graph, precision in wanted.items():
        if precision not in EIGHT_BITS and not others:
            raise UsageError(
                f"{graph} in {precision} needs no calibration.",
                fix=f"Use `{adding_command(bundle.path, [graph], precision)}`; here ask for {', '.join(EIGHT_BITS)}.",
            )
        if precision in bundle.manifest.graphs[graph] and not force:
            raise UsageError(
                f"The bundle {bundle.path} has {graph} in {precision} already.",
                fix="Add --force to calibrate it again.",
            )
    return wanted


def products_kept_back(
    bundle: Bundle, graphs: Sequence[GraphName], patterns: Sequence[str]
) -> dict[GraphName, tuple[str, ...]]:
    """For each graph the patterns that fit products of it.

    Raises:
        UsageError: A pattern fits no product of any.
    """
    names = {graph: names_to_keep_back(bundle, graph, "int8") for graph in graphs}
    fitting = {
        graph: tuple(p for p in patterns if any(fnmatchcase(name, p) for name in found))
        for graph, found in names.items()
    }
    for pattern in patterns:
        if not any(pattern in found for found in fitting.values()):
            example = next(iter(names.values()))[0]
            scope = f"{example.split('/')[0]}/*"
            raise UsageError(
                f"--keep-back {pattern!r} fits no product of {', '.join(graphs)}.",
                fix=f"Products are called, for example, {example!r}; patterns are like {scope!r}.",
            )
    return fitting


def names_to_keep_back(bundle: Bundle, graph: GraphName, precision: Precision) -> list[str]:
    """What can be kept back in a graph: products that could have 8 bits, or nodes that could be in a 16-bit type."""
    view = GraphView(onnx.load(bundle.graph(graph), load_external_data=False))
    if precision in EIGHT_BITS:
        return [node.name for node in linears_of(view) if not kept_out(node)]
    return [node.name for node in view.nodes]


def check_products_left(bundle: Bundle, wanted: Precisions, keep: Mapping[GraphName, Sequence[str]]) -> None:
    """Refuses to call a graph int8 or fp8 that has no such product.

    Args:
        bundle: The bundle.
        wanted: What is to be made.
        keep: For graphs, patterns of what is kept back.

    Raises:
        UsageError: All products of a graph are kept back.
    """
    for graph, precision in wanted.items():
        if precision not in EIGHT_BITS:
            continue
        names, patterns = names_to_keep_back(bundle, graph, precision), keep.get(graph, ())
        if all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names):
            around = FORMATS[precision].around
            raise UsageError(
                f"Nothing of {graph} would be in {precision}: all its products are kept back.",
                fix=f"Keep fewer back, or leave {graph} in {around}.",
            )


def plan_calibrated(
    bundle: Bundle,
    wanted: Precisions,
    calibrator: Calibrator,
    settings: CalibrationSettings,
    keep: Mapping[GraphName, Sequence[str]],
) -> tuple[Planned, ...]:
    """Calibrates graphs and decides every node of them; nothing is written.

    Args:
        bundle: The bundle.
        wanted: No float32; see `check_calibratable`.
        calibrator: Of its graphs.
        settings: The calibrator's.
        keep: For graphs, patterns of what is kept back; see `draft_in`.

    Raises:
        DataError, PrecisionError: See `Calibrator.calibrated`, `draft_in` and `check_float16`.
    """
    return tuple(_planned(bundle, g, p, calibrator, settings, keep.get(g, ())) for g, p in wanted.items())


def _planned(
    bundle: Bundle,
    graph: GraphName,
    precision: Precision,
    calibrator: Calibrator,
    settings: CalibrationSettings,
    keep: Sequence[str],
) -> Planned:
    path, audit, calibration = bundle.graph(graph), None, None
    if precision in EIGHT_BITS:
        calibrated = calibrator.calibrated(graph, precision)
        calibration = calibrated.calibration
        audit = audit_of(calibrated, precision, settings, onnx.load(path, load_external_data=False), keep)
    draft = draft_in(graph, path, precision, keep, calibration)
    for pattern in keep:
        if not any(fnmatchcase(decision.node, pattern) for decision in draft.decisions):
            raise UsageError(f"{pattern!r} fits no node of {graph}.", fix="Correct the pattern, or leave it out.")
    check_float16(calibrator.statistics(graph), draft)
    return Planned(draft, audit)
