"""`fmmt cast`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BundlePath,
    DryRun,
    FacesDir,
    Force,
    JsonOutput,
    Limit,
    NoReceipt,
    Quiet,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from fmmt_deploy.bundle.manifest import Precision
    from fmmt_deploy.bundle.selftest import Stage
    from fmmt_deploy.calibration.decisions import Held
    from fmmt_deploy.calibration.draft import Draft
    from fmmt_deploy.calibration.observing import Inputs
    from fmmt_deploy.calibration.ranges import TensorRange
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.types import DataSet, GraphName

    Ranges = Mapping[GraphName, Sequence[TensorRange]]

__all__ = ["cast"]

WORST = 3
"""So many tensors a graph are shown to people; all are in the JSON."""


def cast(
    context: typer.Context,
    bundle: BundlePath,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="TYPE|GRAPH=TYPE,…",
            help="What to make: fp16 or bf16, for all graphs or for each by name; 8 bits need `fmmt calibrate`.",
        ),
    ],
    require: Annotated[
        str | None,
        typer.Option("--require", metavar="TYPE>=SHARE", help="Fail if less of the FLOPs are in a type: 'fp16>=0.95'."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Audit ranges on a data set, not on the bundle's self-test."),
    ] = None,
    split: Split = "val",
    faces_dir: FacesDir = None,
    limit: Limit = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep-float32", metavar="GLOB", help="Nodes to keep in float32; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A new bundle; default into the one given.")
    ] = None,
    threads: Threads = 0,
    force: Force = False,
    dry_run: DryRun = False,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Adds typed float16 or bfloat16 graphs to a bundle, audited for overflow and accepted against PyTorch float32.

    Example: fmmt cast -b my-bundle --precision swin=fp16,plm=fp16 --require 'fp16>=0.95'
    """
    from fmmt_deploy.bundle.replacing import check_replaceable
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.calibration.cast import audit_ranges, cast_bundle, check_castable, plan_casts, typed_files
    from fmmt_deploy.calibration.ranges import check_ranges
    from fmmt_deploy.calibration.requirements import requirement_from_option
    from fmmt_deploy.cli.recording import Recording, data_input, graph_subjects
    from fmmt_deploy.cli.sessions import Session, check_needs_data
    from fmmt_deploy.engines.emulated.load import engine_from_onnx
    from fmmt_deploy.parity.run import accept_graph

    def accept(graph: GraphName, path: Path, precision: Precision) -> None:
        engine = engine_from_onnx(graph, path, session.threads)
        accept_graph(graph, engine, stages[graph], precision)
        engine.close()

    check_needs_data(data, limit=limit, faces_dir=faces_dir)
    shown = Output("cast", as_json, quiet)
    recording = Recording(context, shown, out or bundle, wanted=not (dry_run or no_receipt), making=True)
    requirement = None if require is None else requirement_from_option(require)
    session = Session(shown, bundle, threads, precision=precision)
    check_replaceable(out or bundle, force or out is None, bundle)
    wanted = check_castable(session.bundle, session.precisions, force=force or out is not None)
    stages = self_test_of(session.bundle)
    planned = plan_casts(session.bundle, wanted, keep or (), requirement)
    shown.status("auditing ranges, on float32 graphs")
    dataset = None if data is None else session.dataset(data, split, faces_dir, limit)
    cases = _cases(session, shown, stages, dataset)
    ranges = audit_ranges(session.bundle, planned, cases, session.threads)
    for typed in planned:
        check_ranges(ranges[typed.graph], f"{typed.graph} in {typed.precision}")
    audited = "self-test" if data is None else f"{data} ({split})"

    def document(path: Path) -> dict[str, object]:
        return {"dry_run": dry_run, "path": path, "data": audited, **_document(planned, ranges)}

    path = session.bundle.path if out is None else out
    if not dry_run:
        finish = recording.into_new(
            lambda made: document(made.path),
            made=[name for typed in planned for name in typed_files(typed.graph, typed.precision)],
            subjects=graph_subjects(session.bundle, dict.fromkeys(wanted, "fp32")),
            inputs=data_input(dataset, split),
        )
        path = cast_bundle(
            session.bundle, planned, accept=accept, out=out, force=force, finish=finish, status=shown.status
        ).path
    shown.result({**document(path), "receipt": recording.path}, *_parts(planned, ranges, path, audited, dry_run))


def _cases(
    session: Session,
    shown: Output,
    stages: Mapping[GraphName, Stage],
    dataset: DataSet | None,
) -> Iterator[Mapping[GraphName, Inputs]]:
    """For each batch the inputs of every graph, without those that other graphs compute."""
    from fmmt_deploy.engines.protocol import Engines
    from fmmt_deploy.parity.run import cases_from_dataset, cases_from_self_test

    if dataset is None:
        yield from (case.by_graph() for case in cases_from_self_test(stages))
        return
    pipeline = session.pipeline(Engines("emulated", {}))  # it prepares inputs, and runs nothing
    with shown.progress("auditing", len(dataset.order)) as advance:
        for case in cases_from_dataset(pipeline, dataset, session.noise("none", 0, dataset)):
            yield case.by_graph()
            advance(len(case.last["vision_mask"]))


def _document(planned: Sequence[Draft], ranges: Ranges) -> dict[str, object]:
    from fmmt_deploy.bundle.products import constant_bytes
    from fmmt_deploy.calibration.cast import shares_of, typed_files
    from fmmt_deploy.calibration.ranges import JUDGE

    graphs = [
        {
            "graph": typed.graph,
            "precision": typed.precision,
            "file": typed_files(typed.graph, typed.precision)[0],
            "flops_share": shares_of(typed),
            "weight_bytes": constant_bytes(typed.model),
            "casts": typed.casts,
            "nodes": [
                {"node": d.node, "operator": d.operator, "type": _type(d.held, typed), "reason": d.reason}
                for d in typed.decisions
            ],
            "ranges": ranges[typed.graph],
        }
        for typed in planned
    ]
    return {"judge": JUDGE, "graphs": graphs}


def _type(held: Held, typed: Draft) -> str:
    types: dict[Held, str] = {"low": typed.precision, "fp32": "fp32", "exact": "integer"}
    return types[held]


def _parts(planned: Sequence[Draft], ranges: Ranges, path: Path, audited: str, dry_run: bool) -> list[Table | str]:
    from fmmt_deploy.calibration.ranges import JUDGE

    ending = "not written: a dry run" if dry_run else "accepted against PyTorch float32 by the emulated engine"
    return [
        _summary(planned, ranges, f"{'would write' if dry_run else 'wrote'} {path}"),
        _rules(planned),
        _largest(planned, ranges),
        f"Ranges on {audited}, judged by {JUDGE}. Graphs {ending}.",
    ]


def _summary(planned: Sequence[Draft], ranges: Ranges, title: str) -> Table:
    from fmmt_deploy.bundle.products import constant_bytes
    from fmmt_deploy.calibration.cast import shares_of

    rows = []
    for typed in planned:
        shares = ", ".join(f"{precision} {share:.2%}" for precision, share in shares_of(typed).items())
        held = [found for found in ranges[typed.graph] if typed.precision in found.held]
        edge = sum(found.verdict == "near the edge" for found in held)
        largest = f"{max((found.largest for found in held), default=0.0):.4g}"
        size = readable_bytes(constant_bytes(typed.model))
        rows.append((typed.graph, typed.precision, shares, size, typed.casts, largest, edge))
    heads = ("graph", "precision", "matrix-product FLOPs", "weights", "casts", "largest value", "near the edge")
    return Table(title, heads, rows)


def _rules(planned: Sequence[Draft]) -> Table:
    """Which kinds of nodes are in which type, and why."""
    counts: dict[tuple[str, str, str], dict[str, int]] = {}
    for typed in planned:
        for d in sorted(typed.decisions, key=lambda d: d.held != "low"):
            if d.held != "exact":
                operators = counts.setdefault((typed.graph, _type(d.held, typed), d.reason), {})
                operators[d.operator] = operators.get(d.operator, 0) + 1
    rows = [
        (graph, type_, ", ".join(f"{count} {name}" for name, count in operators.items()), reason)
        for (graph, type_, reason), operators in counts.items()
    ]
    return Table("Which nodes compute in which type, and why", ("graph", "type", "nodes", "why"), rows)


def _largest(planned: Sequence[Draft], ranges: Ranges) -> Table:
    from fmmt_deploy.calibration.decisions import MOVE

    rows = []
    for typed in planned:
        moves = {d.node for d in typed.decisions if d.reason == MOVE}
        held = [f for f in ranges[typed.graph] if typed.precision in f.held and f.node not in moves]
        for found in sorted(held, key=lambda found: -found.largest)[:WORST]:
            numbers = (f"{found.largest:.4g}", f"{found.smallest:.4g}", f"{found.below_normal:.2%}")
            rows.append((typed.graph, found.tensor, *numbers, f"{found.below_smallest:.2%}", found.verdict))
    heads = ("graph", "tensor", "largest", "smallest", "subnormal", "to zero", "verdict")
    return Table("The largest tensors that are held in the low type", heads, rows)
