"""`fmmt parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    Engine,
    FacesDir,
    JsonOutput,
    Limit,
    Noise,
    PrecisionText,
    Quiet,
    Seed,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output

__all__ = ["parity"]


def parity(
    bundle: BundlePath,
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    reference: Annotated[
        Literal["torch", "recorded"],
        typer.Option("--reference", help="PyTorch float32, or what it answered when the bundle was made."),
    ] = "torch",
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Compare on a data set, not on the bundle's self-test."),
    ] = None,
    split: Split = "test",
    faces_dir: FacesDir = None,
    limit: Limit = None,
    noise: Noise = "none",
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    threads: Threads = 0,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Compares an engine with PyTorch float32, graph by graph and end to end; ends with 4 where they differ.

    Example: fmmt parity -b my-bundle --engine ort
    """
    from fmmt_deploy.bundle.selftest import read_self_test
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.errors import BundleError, UsageError
    from fmmt_deploy.parity.run import cases_from_dataset, cases_from_self_test, recorded_engines
    from fmmt_deploy.parity.run import parity as compare

    if data is not None and reference == "recorded":
        raise UsageError(
            "--reference recorded has answers for the bundle's self-test only.", fix="Leave out --data, or use torch."
        )
    shown = Output("parity", as_json, quiet)
    session = Session(shown, bundle, threads, batch_size, precision)
    if session.bundle.manifest.self_test is None:
        raise BundleError(f"The bundle {bundle} holds no self-test.", fix="Export it again.", path=bundle)
    stages = read_self_test(session.bundle.file(session.bundle.manifest.self_test))
    right = recorded_engines(stages) if reference == "recorded" else session.reference("torch")
    with right, session.engines(engine) as engines:
        if data is None:
            cases = cases_from_self_test(stages)
        else:
            dataset = session.dataset(data, split, faces_dir, limit)
            cases = cases_from_dataset(session.pipeline(engines), dataset, session.noise(noise, seed, dataset))
        report = compare(session.architecture, right, engines, cases)
    shown.result({"data": "self-test" if data is None else data, **report.to_json()}, report.table())
    report.raise_unless_passed()
