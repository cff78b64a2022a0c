"""`fmmt calibrate`."""

from __future__ import annotations

import typing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import (
    BundlePath,
    DataPath,
    DryRun,
    FacesDir,
    Force,
    JsonOutput,
    NoReceipt,
    Quiet,
    SplitName,
    Threads,
)
from fmmt_deploy.cli.output import Output

if typing.TYPE_CHECKING:
    from fmmt_deploy.types import GraphName

__all__ = ["calibrate"]

Method = Literal["best", "max", "percentile", "entropy", "mse"]
"""As `calibration.settings.MethodChoice`, which is not imported because it needs NumPy and `--help` does not."""


def calibrate(
    context: typer.Context,
    bundle: BundlePath,
    data: DataPath,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="TYPE|GRAPH=TYPE,…",
            help="What to make: int8 or fp8 (for GPUs), int8-fp32 (for CPUs), for all graphs or for each by name.",
        ),
    ] = None,
    split: Annotated[SplitName, typer.Option("--split", help="What to calibrate on; never the test split.")] = "train",
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="Precisions and settings from a TOML file.")
    ] = None,
    dialogues: Annotated[
        int | None,
        typer.Option("--dialogues", min=1, metavar="N", help="How many to calibrate on; default 64, or the recipe's."),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method", help="How ranges are chosen; default best: for each tensor what suits its products best."
        ),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option("--percentile", metavar="P", help="Of the method percentile; default 99.99.")
    ] = None,
    smooth: Annotated[
        str | None,
        typer.Option("--smooth", metavar="none|GRAPH,…", help="Graphs where SmoothQuant is tried; default plm."),
    ] = None,
    keep_back: Annotated[
        list[str] | None,
        typer.Option("--keep-back", metavar="GLOB", help="Products to keep out of 8 bits; may be given several times."),
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Find the fastest precisions that hold, and make them; see --max-f1-drop.")
    ] = False,
    device: Annotated[
        Literal["gpu", "cpu"] | None,
        typer.Option("--for", help="With --auto: for which precisions to look; default gpu."),
    ] = None,
    max_f1_drop: Annotated[
        float | None,
        typer.Option(
            "--max-f1-drop",
            min=0,
            metavar="POINTS",
            help="With --auto: in points of weighted F1; default 0.5.",
        ),
    ] = None,
    judge_split: Annotated[
        SplitName | None,
        typer.Option("--judge-split", help="With --auto: what to judge on; default val, or the rest of it."),
    ] = None,
    write_recipe: Annotated[
        Path | None,
        typer.Option(
            "--write-recipe",
            metavar="FILE",
            help="With --auto: where the recipe goes; default calibration/BUNDLE-gpu.toml.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Of the choice of dialogues; default 0, or the recipe's."),
    ] = None,
    test_data: Annotated[
        Path | None,
        typer.Option("--test-data", metavar="PATH", help="A test split to keep out, besides the one beside the data."),
    ] = None,
    leave_out_test: Annotated[
        bool, typer.Option("--leave-out-test", help="Go on without dialogues that are in a test split, too.")
    ] = False,
    allow_small: Annotated[bool, typer.Option("--allow-small", help="Calibrate on very few dialogues.")] = False,
    min_sqnr: Annotated[
        float,
        typer.Option("--min-sqnr", metavar="DB", help="Refuse graphs whose own answers have more noise than this."),
    ] = 10.0,
    faces_dir: FacesDir = None,
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
    """Adds graphs with 8-bit products to a bundle, calibrated on real dialogues, audited, and held against float32.

    Killed at any moment, it goes on where it was when it is started again.

    Example: fmmt calibrate -b my-bundle --precision swin=int8,plm=int8 --data meld-data --split train
    """
    from fmmt_deploy.bundle.replacing import check_replaceable
    from fmmt_deploy.calibration.planning import plan_calibrated
    from fmmt_deploy.cli.calibrate_auto import Auto
    from fmmt_deploy.cli.calibrate_options import Options
    from fmmt_deploy.cli.calibrating import Source, document, made_files, parts, write_planned
    from fmmt_deploy.cli.recording import Recording, data_input, file_input, graph_subjects
    from fmmt_deploy.cli.sessions import Session

    options = Options(precision, recipe, tuple(keep_back or ()), method, percentile, smooth, dialogues, seed)
    options.check(auto, device=device, max_f1_drop=max_f1_drop, judge_split=judge_split, write_recipe=write_recipe)
    options.check_values(split, judge_split, min_sqnr)
    shown = Output("calibrate", as_json, quiet)
    recording = Recording(context, shown, out or bundle, wanted=not (dry_run or no_receipt), making=True)
    session = Session(shown, bundle, threads)
    check_replaceable(out or bundle, force or out is None, bundle)
    may_replace = force or out is not None or dry_run
    settings = options.settings(session.architecture)
    if recipe is not None:
        recording.from_recipe(recipe, asdict(settings))
    searching = None
    if auto:
        searching = Auto(session, shown, device or "gpu", max_f1_drop, write_recipe, may_replace, force, out)
    wanted, keep = ({}, {}) if auto else options.wanted(session.bundle, may_replace)
    source = Source.opened(
        session,
        shown,
        settings,
        data,
        split,
        faces_dir=faces_dir,
        test_data=test_data,
        leave_out_test=leave_out_test,
        allow_small=allow_small,
        beside=out,
    )
    if searching is not None:
        wanted, keep = searching.run(source, data, split, judge_split, faces_dir, test_data, leave_out_test)
    calibrator = source.calibrator(list(wanted))
    planned = plan_calibrated(session.bundle, wanted, calibrator, settings, keep)
    path = session.bundle.path if out is None else out
    sqnr: dict[GraphName, dict[str, float]] = {}

    def told(path: Path) -> dict[str, object]:
        found = None if searching is None else searching.found_document()
        return {"dry_run": dry_run, "path": path, "auto": found, **document(planned, source, sqnr)}

    if planned and not dry_run:
        finish = recording.into_new(
            lambda made: told(made.path),
            made=made_files(planned),
            subjects=graph_subjects(session.bundle, dict.fromkeys(wanted, "fp32")),
            inputs=data_input(source.data.dataset, split)
            | data_input(None if searching is None else searching.dataset, judge_split or "val", "judged on")
            | file_input(recipe, "recipe"),
            seeds={"dialogues": [settings.seed]},
        )
        path = write_planned(
            session,
            source,
            planned,
            sqnr,
            out=out,
            force=force,
            least_db=min_sqnr,
            finish=finish,
            status=shown.status,
        ).path
    calibrator.finish()
    title = f"{'would write' if dry_run else 'wrote'} {path}" if planned else "nothing to write"
    shown_first = [] if searching is None else searching.results(dry_run)
    shown.result(
        {**told(path), "receipt": recording.path},
        *shown_first,
        *parts(planned, source, sqnr, title),
    )
