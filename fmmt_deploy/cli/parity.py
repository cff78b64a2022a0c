"""`fmmt parity`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    Engine,
    EngineCache,
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
from fmmt_deploy.cli.output import Output, Table

if typing.TYPE_CHECKING:
    from fmmt_deploy.cli.options import EngineKind
    from fmmt_deploy.cli.recording import Recording
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.engines.protocol import Engines

__all__ = ["parity"]


def parity(
    context: typer.Context,
    bundle: BundlePath,
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    cache: EngineCache = None,
    against_itself: Annotated[
        bool,
        typer.Option("--self", help="Needs no reference: are answers the same in any batch, order, size and padding?"),
    ] = False,
    reference: Annotated[
        Literal["torch", "torch-cuda", "recorded"] | None,
        typer.Option(
            "--reference",
            help="PyTorch float32 on the CPU or on a GPU, or what it answered when the bundle was made.",
            show_default="torch",
        ),
    ] = None,
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
    no_receipt: NoReceipt = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Compares an engine with PyTorch float32, graph by graph and end to end; ends with 4 where they differ.

    With --self it is compared with itself. TensorRT's engines are trusted by other commands once they passed that.

    Example: fmmt parity -b my-bundle --engine ort
    """
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.cli.recording import Recording, data_input, file_input, subjects_of
    from fmmt_deploy.cli.sessions import Session, check_needs_data
    from fmmt_deploy.errors import ParityError, UsageError
    from fmmt_deploy.parity.run import cases_from_dataset, cases_from_self_test, recorded_engines
    from fmmt_deploy.parity.run import parity as compare

    if against_itself and (reference is not None or data is not None):
        raise UsageError(
            "--self compares an engine with itself, on questions made from the bundle's self-test.",
            fix="Leave out --reference and --data, or --self.",
        )
    if data is not None and reference == "recorded":
        raise UsageError(
            "--reference recorded has answers for the bundle's self-test only.", fix="Leave out --data, or use torch."
        )
    check_needs_data(data, limit=limit, faces_dir=faces_dir, noise=None if noise == "none" else noise)
    shown = Output("parity", as_json, quiet)
    recording = Recording(context, shown, bundle, wanted=not no_receipt)
    session = Session(shown, bundle, threads, batch_size, precision, cache)
    stages = self_test_of(session.bundle)
    if against_itself:
        _against_itself(shown, session, engine, recording)
        return
    dataset = None if data is None else session.dataset(data, split, faces_dir, limit)
    right = recorded_engines(stages) if reference == "recorded" else session.reference(reference or "torch")
    with right, _opened(session, engine) as engines:
        if dataset is None:
            cases = cases_from_self_test(stages)
        else:
            cases = cases_from_dataset(session.pipeline(engines), dataset, session.noise(noise, seed, dataset))
        report = compare(session.architecture, right, engines, cases)
    document = {"data": "self-test" if data is None else data, **report.to_json()}
    recorded = noise not in ("none", "gumbel")
    recording.write(
        session.bundle,
        document,
        verdict="passed" if report.passed else "failed",
        exit_code=0 if report.passed else ParityError.exit_code,
        subjects=subjects_of(session.bundle, engine, session.precisions, cache),
        inputs=data_input(dataset, split) | file_input(Path(noise) if recorded else None, "noise"),
        seeds={"noise": [seed]} if noise == "gumbel" else {},
    )
    shown.result({**document, "receipt": recording.path}, report.table())
    report.raise_unless_passed()


def _against_itself(shown: Output, session: Session, kind: EngineKind, recording: Recording) -> None:
    from fmmt_deploy.bundle.selftest import self_test_of
    from fmmt_deploy.cli.recording import subjects_of
    from fmmt_deploy.errors import ParityError
    from fmmt_deploy.parity.consistency import self_consistency
    from fmmt_deploy.parity.consistency_report import COLUMNS
    from fmmt_deploy.parity.trial import try_engines

    if kind in ("trt", "trt-rtx"):
        report = try_engines(session.bundle, kind, session.precisions, session.cache)
    else:
        with session.engines(kind) as engines:
            report = self_consistency(session.architecture, engines, self_test_of(session.bundle))
    recording.write(
        session.bundle,
        report.to_json(),
        verdict="passed" if report.passed else "failed",
        exit_code=0 if report.passed else ParityError.exit_code,
        subjects=subjects_of(session.bundle, kind, session.precisions, session.cache),
    )
    shown.result({**report.to_json(), "receipt": recording.path}, Table("", COLUMNS, report.rows()), report.summary())
    report.raise_unless_passed()


def _opened(session: Session, kind: EngineKind) -> Engines:
    """As for any other command, but for TensorRT's engines, which need not be trusted to be examined."""
    if kind not in ("trt", "trt-rtx"):
        return session.engines(kind)
    from fmmt_deploy.engines.tensorrt.load import engines_from_bundle

    return engines_from_bundle(session.bundle, kind, session.precisions, cache=session.cache, trusted_only=False)
