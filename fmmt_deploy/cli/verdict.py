"""`fmmt verdict`."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    DataPath,
    Engine,
    EngineCache,
    FacesDir,
    JsonOutput,
    Limit,
    NoReceipt,
    Quiet,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table

if typing.TYPE_CHECKING:
    from fmmt_deploy.selection.report import Verdict

__all__ = ["verdict"]


def verdict(
    context: typer.Context,
    bundle: BundlePath,
    data: DataPath,
    split: Split = "val",
    engine: Engine = "emulated",
    cache: EngineCache = None,
    max_f1_drop: Annotated[
        float | None,
        typer.Option(
            "--max-f1-drop",
            metavar="POINTS",
            min=0,
            max=100,
            help="What counts as harmful: 0.5 is half a point of weighted F1. Default: each precision's own rule.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw cost against accuracy: an .svg or a .png.")
    ] = None,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Measure speed where this machine can.")] = True,
    faces_dir: FacesDir = None,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Says what each precision of a bundle costs in accuracy and gains, graph by graph, and which are worth it.

    Accuracy is measured against PyTorch float32. Speed is measured for int8-fp32 in ONNX Runtime on the CPU, and with
    --engine trt or trt-rtx on the GPU; elsewhere bytes and FLOPs are counted.

    Example: fmmt verdict -b my-bundle --data meld-data --split val --plot verdict.svg
    """
    from fmmt_deploy.cli.recording import Recording, data_input
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.errors import DataError, EnvironmentProblem
    from fmmt_deploy.selection.calibrated import overlap_warnings
    from fmmt_deploy.selection.judge import judge_from_bundle
    from fmmt_deploy.selection.marks import few_warnings
    from fmmt_deploy.selection.matrix import judged_matrix
    from fmmt_deploy.selection.plot import check_plot, plot_verdict
    from fmmt_deploy.selection.report import Verdict

    if plot is not None:
        check_plot(plot)
    shown = Output("verdict", as_json, quiet)
    recording = Recording(context, shown, bundle, wanted=not no_receipt)
    session = Session(shown, bundle, threads, batch_size, cache=cache)
    dataset = session.dataset(data, split, faces_dir, limit)
    warnings = overlap_warnings(session.bundle, dataset)
    if engine == "ort":
        warnings += ("ONNX Runtime computes float16 in float32 on a CPU: --engine emulated rounds as a GPU does",)
    total = len(dataset.order)
    warnings += few_warnings(total)
    for warning in warnings:
        shown.status(f"warning: {warning}")

    @contextmanager
    def progress(what: str) -> Iterator[Callable[[int], None]]:
        shown.status(f"judging {what}")
        with shown.progress(what, total) as advance:
            yield advance

    with session.reference("torch") as reference:
        with shown.progress("PyTorch float32", total) as advance:
            judge = judge_from_bundle(
                session.bundle, dataset, reference, batch_size=batch_size, threads=session.threads, advance=advance
            )
        if max_f1_drop is not None and not judge.labelled:
            raise DataError(
                f"--max-f1-drop {max_f1_drop} needs a label for every utterance of {dataset.source}.",
                fix="Leave it out: decisions are then held to each precision's own rule. Or give labelled data.",
            )
        drop = None if max_f1_drop is None else max_f1_drop / 100
        rows = judged_matrix(
            session.bundle,
            judge,
            engine,
            threads=session.threads,
            cache=cache,
            timing_seconds=5.0 if timed else None,
            max_f1_drop=drop,
            progress=progress,
        )
    if all(row.judgement is None for row in rows):
        raise EnvironmentProblem(
            f"--engine {engine} can judge nothing of {session.bundle.path} here.",
            why=next((row.note for row in rows if row.note), ""),
            fix="Use --engine emulated, which judges every precision.",
        )
    found = Verdict(
        session.bundle.path,
        engine,
        dataset.source,
        len(judge.utterances),
        len(set(judge.dialogues)),
        judge.labelled,
        drop,
        rows,
        warnings,
    )
    if plot is not None:
        plot_verdict(found, plot)
    document = {**found.to_json(), "plot": plot}
    listed = {name: entry.sha256 for name, entry in session.bundle.manifest.files.items()}
    recording.write(session.bundle, document, subjects=listed, inputs=data_input(dataset, split))
    shown.result({**document, "receipt": recording.path}, *_parts(found, plot))


def _parts(found: Verdict, plot: Path | None) -> list[Table | str]:
    from fmmt_deploy.evaluation.words import counted
    from fmmt_deploy.selection.report import ACCURACY_COLUMNS, MARK_COLUMNS, MISSING_COLUMNS

    title = f"{found.data}: {counted(found.utterances, 'utterance')} of {counted(found.dialogues, 'dialogue')}"
    parts: list[Table | str] = [
        Table(title, ACCURACY_COLUMNS, found.accuracy_rows()),
        Table("what it gains", MARK_COLUMNS, found.mark_rows()),
    ]
    missing = found.missing_rows()
    if missing:
        parts.append(Table("not judged, or not timed", MISSING_COLUMNS, missing))
    parts.append(found.summary() + (f"\nwrote {plot}" if plot is not None else ""))
    return parts
