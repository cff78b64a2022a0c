"""`fmmt eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    DataPath,
    Engine,
    EngineCache,
    EngineKind,
    FacesDir,
    JsonOutput,
    Limit,
    Noise,
    NoReceipt,
    PrecisionText,
    Quiet,
    Seed,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    bundle: BundlePath,
    data: DataPath,
    split: Split = "test",
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    cache: EngineCache = None,
    reference: Annotated[
        EngineKind | None,
        typer.Option(
            "--reference", help="Judge against this engine in float32; ends with 5 unless the two are EQUIVALENT."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option("--margin", metavar="POINTS", help="Differences of weighted F1 below it do not matter."),
    ] = 0.5,
    swap: Annotated[
        bool,
        typer.Option("--swap", help="Also run every mixture of reference and engine: which graph is to blame?"),
    ] = False,
    noise: Noise = "none",
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="With --noise gumbel: so many runs, each with noise of its own.")
    ] = 1,
    published: Annotated[
        float | None,
        typer.Option(
            "--published", metavar="POINTS", help="A weighted F1 from elsewhere: does it lie in the reference's band?"
        ),
    ] = None,
    faces_dir: FacesDir = None,
    limit: Limit = None,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Scores an engine on labelled data; with --reference, says whether it may replace that.

    The verdict is EQUIVALENT if the difference of weighted F1 lies within the margin, with its whole 90 % interval
    over dialogues; DIFFERENT if it lies wholly beyond; else INCONCLUSIVE, which small data sets often are.

    With --seeds, both sides get the same draws, and the verdict is about the mean over them. Beside it stand the
    reference's own band from seed to seed, which the engine's mean should lie in (PASS), and the verdict on
    probabilities that are averaged over the draws.

    Example: fmmt eval -b my-bundle --data meld-data --split test --engine ort --reference torch
    """
    from pathlib import Path

    from fmmt_deploy.cli.evaluating import Wanted, judged
    from fmmt_deploy.cli.evaluation_tables import parts_from_modes
    from fmmt_deploy.cli.recording import Recording, data_input, file_input, subjects_of
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.errors import NotEquivalentError, UsageError
    from fmmt_deploy.selection.calibrated import overlap_warnings

    points = None if published is None else published / 100
    wanted = Wanted(engine, reference, noise, range(seed, seed + seeds), margin / 100, points, swap)
    given = context.get_parameter_source("margin")
    if reference is None and given is not None and given.name != "DEFAULT":  # else a gate would be passed unseen
        raise UsageError("--margin judges against a reference.", fix="Add --reference torch, for example.")
    shown = Output("eval", as_json, quiet, version=2)
    recording = Recording(context, shown, bundle, wanted=not no_receipt)
    session = Session(shown, bundle, threads, batch_size, precision, cache)
    dataset = session.dataset(data, split, faces_dir, limit)
    warnings = overlap_warnings(session.bundle, dataset, session.precisions)
    for warning in warnings:
        shown.status(f"warning: {warning}")
    modes, swaps = judged(shown, session, dataset, wanted)
    inputs = data_input(dataset, split)
    found = modes[0].equivalence
    document = {
        "bundle": bundle,
        "engine": engine,
        "precisions": session.precisions,
        "reference": reference,
        "data": {
            "source": dataset.source,
            "split": split,
            "sha256": inputs["data"].sha256,
            "utterances": len(dataset.order),
            "dialogues": len(dataset.dialogues),
        },
        "warnings": warnings,
        "margin": wanted.margin,
        "modes": [mode.to_json() for mode in modes],
        "swaps": None if swaps is None else swaps.to_json(),
        "verdict": None if found is None else found.verdict,
    }
    recorded = Path(noise) if wanted.mode == "replayed" else None
    recording.write(
        session.bundle,
        document,
        verdict="" if found is None else found.verdict,
        exit_code=0 if found is None or found.verdict == "EQUIVALENT" else NotEquivalentError.exit_code,
        subjects=subjects_of(session.bundle, engine, session.precisions, cache),
        inputs=inputs | file_input(recorded, "noise"),
        seeds={"noise": list(wanted.seeds)} if wanted.mode == "seeded" else {},
    )
    parts = parts_from_modes(modes, swaps, warnings, engine, reference)
    shown.result({**document, "receipt": recording.path}, *parts)
    if found is not None:
        found.raise_unless_equivalent()
