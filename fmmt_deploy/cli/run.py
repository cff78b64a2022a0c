"""`fmmt run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    DataPath,
    DryRun,
    Engine,
    EngineCache,
    FacesDir,
    Force,
    JsonOutput,
    Limit,
    Noise,
    PrecisionText,
    Quiet,
    Seed,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table

__all__ = ["run"]


def run(
    bundle: BundlePath,
    data: DataPath,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the answers go, as JSONL.")],
    split: Split = "test",
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    cache: EngineCache = None,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    noise: Noise = "none",
    seed: Seed = 0,
    faces_dir: FacesDir = None,
    limit: Limit = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Answers every utterance of a data set: one JSON line each, in the data set's order.

    Example: fmmt run -b my-bundle --data meld-data --split test -o answers.jsonl
    """
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.pipeline.answers import check_new_file, write_answers

    shown = Output("run", as_json, quiet)
    check_new_file(out, force)
    session = Session(shown, bundle, threads, batch_size, precision, cache)
    dataset = session.dataset(data, split, faces_dir, limit)
    draws = session.noise(noise, seed, dataset)
    document = {
        "path": out,
        "engine": engine,
        "precisions": session.precisions,
        "data": dataset.source,
        "utterances": len(dataset.order),
    }
    if dry_run:
        shown.result({"dry_run": True, **document}, f"would write {len(dataset.order)} answers to {out}")
        return
    answers = session.answers(session.engines(engine), dataset, draws)
    write_answers(out, answers, force)
    counts = {label: sum(answer.label == label for answer in answers) for label in session.labels}
    rows = list(counts.items())
    shown.result(
        {"dry_run": False, **document, "labels": counts},
        Table(f"wrote {len(answers)} answers to {out}", ("label", "utterances"), rows),
    )
