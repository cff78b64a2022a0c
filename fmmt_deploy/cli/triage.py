"""`fmmt triage`."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BundlePath,
    FacesDir,
    JsonOutput,
    Limit,
    NoReceipt,
    PrecisionText,
    Quiet,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from fmmt_deploy.bundle.manifest import Precision
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.calibration.scales import Calibration
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.engines.protocol import Engines
    from fmmt_deploy.parity.run import Case
    from fmmt_deploy.selection.layers import LayeredGraph
    from fmmt_deploy.selection.triage import Errors, Triage
    from fmmt_deploy.types import DataSet, GraphName

__all__ = ["triage"]


def triage(
    context: typer.Context,
    bundle: BundlePath,
    precision: PrecisionText,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Judge on a data set, not on the bundle's self-test."),
    ] = None,
    split: Split = "val",
    faces_dir: FacesDir = None,
    limit: Limit = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            metavar="X",
            min=0,
            help="A graph fails if its own outputs are off by more; default the tolerances of its precision.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = 0,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Says why a precision fails parity: which graph, which layers, which nodes, and what keeping them back costs.

    float16 and bfloat16 need no graph in the bundle. Where products have 8 bits, their scales are read from its graph.
    Ends with 4 if keeping back does not help.

    Example: fmmt triage -b my-bundle --precision swin=fp16,plm=fp16
    """
    from fmmt_deploy.bundle.precisions import text_from_precisions
    from fmmt_deploy.cli.recording import Recording, data_input, graph_subjects
    from fmmt_deploy.cli.sessions import Session, check_needs_data
    from fmmt_deploy.errors import UsageError
    from fmmt_deploy.selection.making import emulated_maker
    from fmmt_deploy.selection.triage import Trials
    from fmmt_deploy.selection.triage import triage as find

    def calibrated(graph: GraphName, precision: Precision) -> Calibration:
        from fmmt_deploy.calibration.read_back import calibration_from_graph

        return calibration_from_graph(graph, session.bundle.graph(graph, precision))

    check_needs_data(data, limit=limit, faces_dir=faces_dir)
    shown = Output("triage", as_json, quiet)
    recording = Recording(context, shown, bundle, wanted=not no_receipt)
    session = Session(shown, bundle, threads, precision=precision)
    if set(session.precisions.values()) == {"fp32"}:
        raise UsageError("There is nothing to triage: float32 keeps everything.", fix="Name a lower precision.")
    graphs = _layered(session)
    dataset = None if data is None else session.dataset(data, split, faces_dir, limit)
    reference, cases = _reference(session, dataset)
    with reference, _wide(session, reference) as wide:
        maker = emulated_maker(session.bundle, session.threads, calibrated)
        trials = Trials(session.architecture, reference, wide, maker, cases, max_error, shown.status)
        found = find(trials, graphs)
    judged_on = "self-test" if data is None else f"{data} ({split})"
    document = {"precision": text_from_precisions(session.precisions), "data": judged_on, **_document(found)}
    recording.write(
        session.bundle,
        document,
        verdict="failed" if found.hopeless else "passed",
        exit_code=found.hopeless.exit_code if found.hopeless else 0,
        subjects=graph_subjects(session.bundle, dict.fromkeys(session.precisions, "fp32")),
        inputs=data_input(dataset, split),
    )
    shown.result({**document, "receipt": recording.path}, *_parts(found, session.bundle, judged_on))
    found.raise_if_hopeless()


def _layered(session: Session) -> list[LayeredGraph]:
    from fmmt_deploy.calibration.formats import EIGHT_BITS
    from fmmt_deploy.selection.layers import layered_graph, quantised_products

    graphs = []
    for graph, precision in session.precisions.items():
        if precision != "fp32":
            quantised = precision in EIGHT_BITS
            only = quantised_products(session.bundle.graph(graph, precision)) if quantised else None
            graphs.append(layered_graph(graph, session.bundle.graph(graph), precision, only=only))
    return graphs


def _reference(session: Session, dataset: DataSet | None) -> tuple[Engines, Iterable[Case]]:
    """What is right, and the inputs, which can be gone through again and again."""
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.parity.run import cases_from_self_test, recorded_engines
    from fmmt_deploy.selection.cases import DataCases

    if dataset is None:
        stages = self_test_of(session.bundle)
        return recorded_engines(stages), list(cases_from_self_test(stages))
    reference = session.reference("torch")
    return reference, DataCases(session.pipeline(reference), dataset)


def _wide(session: Session, reference: Engines) -> Engines:
    """What computes the graphs that are not tried: the reference, but a record has no answers to new questions."""
    from fmmt_deploy.engines.emulated.load import engine_from_onnx
    from fmmt_deploy.engines.protocol import Engines
    from fmmt_deploy.parity.run import RecordedEngine

    graphs = {graph: reference[graph] for graph in session.precisions}
    *_, last = graphs
    if isinstance(graphs[last], RecordedEngine):
        graphs[last] = engine_from_onnx(last, session.bundle.graph(last), session.threads)
    return Engines("emulated", graphs)


def _document(found: Triage) -> dict[str, object]:
    return {
        "judgements": found.judgements,
        "graphs": [
            {
                "graph": each.graph,
                "precision": each.precision,
                "outcome": each.outcome,
                "before": each.before,
                "everything_kept_back": each.everything,
                "after": each.after,
                "layers": each.layers,
                "nodes": each.nodes,
                "keep": each.keep,
                "kept_in": each.wide,
                "flops_share": each.cost.flops_share,
                "weight_bytes": each.cost.weight_bytes,
                "judgements": each.judgements,
            }
            for each in found.graphs
        ],
        "together": found.together,
    }


def _parts(found: Triage, bundle: Bundle, judged_on: str) -> list[Table | str]:
    rows: list[tuple[str, ...]] = [
        (each.graph, each.precision, what, *_cells(errors))
        for each in found.graphs
        for what, errors in (
            ("nothing", each.before),
            ("everything", each.everything),
            (f"{len(each.nodes)} nodes", each.after),
        )
        if errors is not None
    ]
    rows += [("together", "", "as named", *_cells(found.together))] if found.together is not None else []
    heads = ("graph", "precision", "kept back", "own error", "logits' error", "decisions changed", "verdict")
    parts: list[Table | str] = [Table("", heads, rows)]
    kept = [
        (each.graph, each.wide, node, f"{each.cost.flops_share:.2%}", readable_bytes(each.cost.weight_bytes))
        if number == 0
        else ("", "", node, "", "")
        for each in found.graphs
        if each.after is not None
        for number, node in enumerate(each.keep)
    ]
    if kept:
        parts.append(Table("To keep back", ("graph", "in", "pattern", "FLOPs", "weights, more"), kept))
    count = f"{found.judgements} judgement{'s' * (found.judgements != 1)}"
    parts += [_advice(found, bundle), f"{count} on {judged_on}, by the emulated engine."]
    return parts


def _cells(errors: Errors) -> tuple[str, str, str, str]:
    own, logits = (f"{e:.2e}" if isfinite(e) else "not finite" for e in (errors.own, errors.logits))
    changed = f"{errors.changed} of {errors.utterances}" if errors.utterances else "–"
    return own, logits, changed, "holds" if errors.holds else "FAILS"


def _advice(found: Triage, bundle: Bundle) -> str:
    """What to do, in a line or two a graph."""
    from fmmt_deploy.bundle.precisions import adding_command

    lines = []
    for each in found.graphs:
        match each.outcome:
            case "holds":
                lines.append(f"{each.graph}: {each.precision} holds; nothing needs to be kept back.")
            case "not the precision":
                lines.append(f"{each.graph}: fails with everything kept back, too: {each.precision} is not the cause.")
            case "kept back":
                lines.append(f"{each.graph}: to blame are {', '.join(each.layers)}. Keep back, for example by")
                options = " ".join(f"{_option(each.precision)} '{pattern}'" for pattern in each.keep)
                force = " --force" * (each.precision in bundle.manifest.graphs[each.graph])
                lines.append(f"{adding_command(bundle.path, [each.graph], each.precision)} {options}{force}")
                if each.cost.flops_share > 0.5:
                    lines.append("That is most of its work: rounding errors add up everywhere. Take a wider precision.")
    return "\n".join(lines)


def _option(precision: Precision) -> str:
    return "--keep-float32" if precision in ("fp16", "bf16") else "--keep-back"
