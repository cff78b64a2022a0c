"""Verifies everything that a GPU can show: `python -m fmmt_deploy.verification`."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmmt_deploy.cli.options import Force
from fmmt_deploy.cli.output import Output, show_error
from fmmt_deploy.errors import INTERRUPTED, FmmtError, UsageError
from fmmt_deploy.interrupts import Interrupts
from fmmt_deploy.pipeline.answers import check_new_file
from fmmt_deploy.verification.settings import settings_for
from fmmt_deploy.verification.steps import steps_of
from fmmt_deploy.verification.tables import tables_of
from fmmt_deploy.verification.verify import exit_code_of, verify
from fmmt_deploy.verification.worker import Worker

__all__ = ["main"]


class Flavour(StrEnum):
    """`FLAVOURS` once more: typer takes no list of literals."""

    TRT = "trt"
    TRT_RTX = "trt-rtx"


class Low(StrEnum):
    """The precisions that can be built."""

    FP16 = "fp16"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


def main(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The record, as JSON.")] = Path(
        "verification.json"
    ),
    model: Annotated[
        Literal["full", "tiny"], typer.Option("--model", help="A random model of the published sizes, or a tiny one.")
    ] = "full",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long all of it may take.")] = 480.0,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="Sizes that engines accept; see engines/README.md.")
    ] = None,
    opt_level: Annotated[int, typer.Option("--opt-level", min=0, max=5, help="How hard TensorRT optimises.")] = 3,
    flavour: Annotated[
        list[Flavour] | None, typer.Option("--flavour", help="Only this TensorRT; may be given several times.")
    ] = None,
    precision: Annotated[
        list[Low] | None, typer.Option("--precision", help="Only engines of this type; may be given several times.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="KIND[:PRECISION]", help="Engines beside TensorRT's; may be given several times."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Builds, checks and measures everything on this machine's GPU, and says what it could not do and why.

    The record is complete after every step. Ends with 4 where an engine answers wrongly, 3 without a GPU or TensorRT,
    1 where something failed or was late, 7 where a figure that a goal is about is INVALID, 6 where a goal is missed.
    """
    shown = Output("verification")
    try:
        check_new_file(out, force)
    except UsageError as error:
        show_error(error)
        raise typer.Exit(error.exit_code) from error
    with tempfile.TemporaryDirectory(prefix="fmmt-verification-") as scratch:
        given = {"others": engine, "flavours": flavour, "precisions": precision}
        changes: dict[str, object] = {"profile": profile, "optimization_level": opt_level}
        changes |= {name: tuple(map(str, values)) for name, values in given.items() if values}
        settings = settings_for(model, seconds, Path(scratch), **changes)
        try:
            with Interrupts(alone=True).taken():  # else its worker would outlive it, and keep the GPU
                runner = Worker(settings, steps_of)
                outcomes = verify(settings, steps_of(settings), runner, out, lambda outcome: shown.status(outcome.line))
        except KeyboardInterrupt:
            shown.status(f"interrupted; {out} holds what is done")
            raise typer.Exit(INTERRUPTED) from None
        except FmmtError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from error
    shown.result({}, *tables_of(settings, outcomes), f"wrote {out}")
    raise typer.Exit(exit_code_of(settings, outcomes))


if __name__ == "__main__":
    typer.run(main)
