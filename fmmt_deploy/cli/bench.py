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
    Force,
    JsonOutput,
    Limit,
    NoReceipt,
    Quiet,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bench"]


def bench(
    context: typer.Context,
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
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            "--scenario",
            metavar="single-stream|server|offline",
            help="How utterances come; may be given several times; default single-stream and offline.",
        ),
    ] = None,
    limit_ms: Annotated[
        float | None,
        typer.Option("--limit-ms", min=0.001, help="Of --scenario server: 99 of 100 answers come within that."),
    ] = None,
    baseline: Annotated[
        Literal["published"] | None,
        typer.Option("--baseline", help="The published loop on PyTorch, on the GPU in FP16 if an engine is there."),
    ] = None,
    min_speed_up: Annotated[
        float | None,
        typer.Option("--min-speed-up", help="Ends with 6 if the last engine, batched, is slower than that."),
    ] = None,
    baseline_report: Annotated[
        Path | None, typer.Option("--baseline-report", metavar="FILE", help="What --save wrote in an earlier run.")
    ] = None,
    fail_on_regression: Annotated[
        str | None,
        typer.Option(
            "--fail-on-regression",
            metavar="PERCENT",
            help="Ends with 6 if a figure is surely so much slower than in --baseline-report.",
        ),
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
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Turns of every engine in every table, at least; intervals need 6.")
    ] = 6,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="How long every table is measured, at least.")
    ] = 0.0,
    starts: Annotated[int, typer.Option("--starts", min=1, help="New processes for each engine's cold start.")] = 1,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="FILE", help="Write every time that was measured, as JSONL.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the result as JSON, for --baseline-report.")
    ] = None,
    force: Force = False,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Do not end with 7 where figures are INVALID; they still say so.")
    ] = False,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Measures engines in turns: compute, calls, and from files to labels; ends with 7 where that is INVALID.

    Example: fmmt bench --random full --engine torch --engine ort --baseline published --faces 10 --faces 50
    """
    import tempfile

    from fmmt_deploy.cli.bench_gates import gates_from_options, judged
    from fmmt_deploy.cli.bench_tables import bench_parts
    from fmmt_deploy.cli.benching import (
        Asked,
        OutputFiles,
        exported_at_random,
        made_workloads,
        measured,
        planned,
        record,
        scenarios_from_options,
    )
    from fmmt_deploy.cli.recording import Recording
    from fmmt_deploy.cli.sessions import Session, check_needs_data

    engines = tuple(dict.fromkeys(engine or ("ort",)))
    scenarios = scenarios_from_options(scenario or ())
    _check(bundle, random, data, faces, scenarios, limit_ms)
    check_needs_data(data, limit=limit, faces_dir=faces_dir)
    gates = gates_from_options(min_speed_up, baseline_report, fail_on_regression, allow_invalid, scenarios)
    files = OutputFiles(samples, save, force)
    shown = Output("bench", as_json, quiet, version=2)
    recording = Recording(context, shown, bundle or Path(), wanted=bundle is not None and not no_receipt)
    asked = Asked(engines, baseline is not None, scenarios, rounds, seconds, starts, limit_ms)
    with tempfile.TemporaryDirectory(prefix="fmmt-bench-") as scratch:
        model = bundle or exported_at_random(random or "tiny", Path(scratch) / "bundle", shown)
        session = Session(shown, model, threads, batch_size, cache=cache)
        if data is not None:
            workloads = [session.dataset(data, split, faces_dir, limit)]
        else:
            workloads = made_workloads(session, Path(scratch), dialogues, faces or [10.0])
        gates.check(planned(session, asked, workloads))
        found = measured(session, asked, workloads, str(bundle or random), shown)
        outcome = judged(found, gates)
        files.write(found, outcome, shown.schema)
        if bundle is not None:
            record(recording, session, asked, workloads, split, outcome)
    shown.result({**outcome.document, "receipt": recording.path}, *bench_parts(found), *outcome.parts)
    if outcome.failure is not None:
        raise outcome.failure


def _check(
    bundle: Path | None,
    random: str | None,
    data: Path | None,
    faces: Sequence[float] | None,
    scenarios: Sequence[str],
    limit_ms: float | None,
) -> None:
    from fmmt_deploy.errors import UsageError

    if (bundle is None) == (random is None):
        raise UsageError("A benchmark needs a model.", fix="Give either --bundle DIR or --random full|tiny.")
    if data is not None and faces:
        raise UsageError("--faces shapes made-up dialogues, --data brings real ones.", fix="Leave one of them out.")
    if ("server" in scenarios) != (limit_ms is not None):
        raise UsageError(
            "A server must answer within a limit, which only it has.",
            fix="Give both --scenario server and --limit-ms, or neither.",
        )
