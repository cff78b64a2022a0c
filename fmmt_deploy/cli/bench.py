"""`fmmt bench`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    EngineCache,
    FacesDir,
    JsonOutput,
    Limit,
    Quiet,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fmmt_deploy.benchmark.choices import Choice
    from fmmt_deploy.benchmark.report import BenchReport, RateRow
    from fmmt_deploy.bundle.store import Bundle
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.types import DataSet

__all__ = ["bench"]


def bench(
    bundle: Annotated[Path | None, typer.Option("--bundle", "-b", metavar="DIR", help="The bundle.")] = None,
    random: Annotated[
        Literal["full", "tiny"] | None,
        typer.Option(
            "--random", help="Instead of a bundle: the real architecture, or a tiny one, with random weights."
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="KIND[:PRECISION]",
            help="What computes, and the precision of its graphs: ort, trt:fp16, trt:swin=fp16,plm=fp16; may be given "
            "several times; default ort.",
        ),
    ] = None,
    cache: EngineCache = None,
    baseline: Annotated[
        Literal["published"] | None,
        typer.Option("--baseline", help="The published loop on PyTorch, on the GPU in FP16 if an engine is there."),
    ] = None,
    min_speed_up: Annotated[
        float | None,
        typer.Option("--min-speed-up", help="Ends with 6 if the last engine, batched, is slower than that."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="Real dialogues instead of MELD-shaped ones.")
    ] = None,
    split: Split = "test",
    faces_dir: FacesDir = None,
    limit: Limit = None,
    dialogues: Annotated[int, typer.Option("--dialogues", min=1, help="How many MELD-shaped dialogues.")] = 2,
    faces: Annotated[
        list[float] | None,
        typer.Option("--faces", min=0, help="Mean faces an utterance, MELD-shaped; may be given several times."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often every dialogue is answered.")] = 3,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Measures latency and throughput of engines in turns, a stage at a time and end to end.

    Example: fmmt bench --random full --engine torch --engine ort --baseline published --faces 10 --faces 50
    """
    import tempfile

    from fmmt_deploy.benchmark.choices import choice_from_option
    from fmmt_deploy.benchmark.memory import peak_bytes
    from fmmt_deploy.cli.sessions import Session, check_needs_data
    from fmmt_deploy.errors import UsageError

    if (bundle is None) == (random is None):
        raise UsageError("A benchmark needs a model.", fix="Give either --bundle DIR or --random full|tiny.")
    if data is not None and faces:
        raise UsageError("--faces shapes made-up dialogues, --data brings real ones.", fix="Leave one of them out.")
    check_needs_data(data, limit=limit, faces_dir=faces_dir)
    shown = Output("bench", as_json, quiet)
    with tempfile.TemporaryDirectory(prefix="fmmt-bench-") as scratch:
        if random is not None:
            bundle = _random_bundle(random, Path(scratch) / "bundle", shown)
        assert bundle is not None
        session = Session(shown, bundle, threads, batch_size, cache=cache)
        if data is not None:
            workloads = [session.dataset(data, split, faces_dir, limit)]
        else:
            workloads = list(_made_workloads(session.bundle, Path(scratch), dialogues, faces or [10.0]))
        choices = [choice_from_option(text, session.architecture) for text in dict.fromkeys(engine or ["ort"])]
        reports = [_measured(session, choices, baseline, rounds, workload, shown) for workload in workloads]
        shown.status("measuring memory, an engine at a time")
        memory = {choice.name: peak_bytes(session.bundle.path, choice, session.threads, cache) for choice in choices}
    rows = [(name, readable_bytes(peak)) for name, peak in memory.items()]
    shown.result(
        {"model": random or bundle, "reports": [report.to_json() for report in reports], "peak_bytes": memory},
        *(part for report in reports for part in _parts(report)),
        Table("peak memory of a process that opens the bundle and answers", (), rows),
    )
    if min_speed_up is not None:
        _check_speed(reports, min_speed_up)


def _check_speed(reports: list[BenchReport], wanted: float) -> None:
    """Raises SlowerError where the last engine, batched, is not so many times as fast as the baseline."""
    from fmmt_deploy.errors import SlowerError

    for report in reports:
        last = report.ways[-1]
        if last.speed_up is None or last.speed_up.median < wanted:
            found = "nothing to compare with" if last.speed_up is None else f"{last.speed_up.median:.2f} times"
            raise SlowerError(
                f"{last.engine} should be {wanted:g} times as fast as the baseline, found {found}.",
                why=report.workload,
                fix="See the stages' share of the machine's rate for what is slow; run it on an idle machine.",
            )


def _measured(
    session: Session,
    choices: Sequence[Choice],
    baseline: str | None,
    rounds: int,
    workload: DataSet,
    shown: Output,
) -> BenchReport:
    from fmmt_deploy.benchmark.contenders import opened_contenders, tokens_of_dialogues
    from fmmt_deploy.benchmark.rates import copy_rate_for, rates_for
    from fmmt_deploy.benchmark.report import report
    from fmmt_deploy.benchmark.run import measure

    shown.status(f"measuring {workload.source}")
    opened = opened_contenders(
        session.bundle, choices, baseline is not None, session.batch_size, session.threads, session.cache
    )
    with opened as contenders:
        total = len(contenders) * rounds * len(workload.dialogues)
        on_gpu = any(contender.device == "cuda" for contender in contenders)
        copied, samplers = copy_rate_for(contenders), rates_for(contenders, session.threads)
        with shown.progress("dialogues", total) as advance:
            measured, rates = measure(contenders, workload, rounds, samplers, advance, warm_up_rounds=int(on_gpu))
    tokens = tokens_of_dialogues(session.bundle, workload)
    return report(measured, rates, workload, tokens, session.bundle, rounds, session.threads, copied)


def _made_workloads(bundle: Bundle, scratch: Path, dialogues: int, faces: list[float]) -> Iterator[DataSet]:
    from fmmt_deploy.benchmark.workload import meld_shaped

    for mean in faces:
        yield meld_shaped(bundle.manifest.architecture, scratch, dialogues, mean)


def _random_bundle(preset: Literal["full", "tiny"], path: Path, shown: Output) -> Path:
    from fmmt_deploy.export.export import export_bundle
    from fmmt_deploy.export.source import random_source

    shown.status(f"making a {preset} model with random weights")
    export_bundle(random_source(preset), path, accept=lambda *_: None, status=shown.status)
    return path


def _rate(row: RateRow) -> str:
    low, high = row.gflops_range
    return f"{row.gflops:.0f} GFLOP/s measured here on {row.name} ({low:.0f}–{high:.0f})"


def _parts(report: BenchReport) -> list[Table | str]:
    about = [
        ("workload", report.workload),
        (
            "size",
            f"{report.utterances} utterances, {report.tokens} tokens, {report.faces} faces; {report.rounds} rounds",
        ),
        ("threads", report.threads),
        ("baseline", report.baseline),
        *(("matrix products", _rate(row)) for row in report.rates),
    ]
    if report.copy_gb_per_s is not None:
        about.append(("the GPU's memory", f"{report.copy_gb_per_s:.0f} GB/s read and written"))
    ways = ("engine", "way", "p50", "p90", "p95", "p99", "utt/s", "speed-up")
    stages = ("engine", "way", "stage", "per utterance", "GFLOP", "GFLOP/s", "of matrix rate")
    return [
        Table("", (), about),
        Table("latency of an answer, and throughput", ways, report.way_rows()),
        Table("where the time goes", stages, report.stage_rows()),
    ]
