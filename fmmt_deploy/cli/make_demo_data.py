"""`fmmt make-demo-data`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from fmmt_deploy.cli.options import Force, JsonOutput, Quiet
from fmmt_deploy.cli.output import Output, Table, readable_bytes

__all__ = ["make_demo_data"]

PlmName: TypeAlias = Literal["roberta", "bert"]


def make_demo_data(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the data go.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="For other dialogues and faces.")] = 0,
    plm: Annotated[PlmName, typer.Option("--plm", help="Which language model's configuration and vocabulary.")] = (
        "roberta"
    ),
    models: Annotated[
        bool, typer.Option("--models", help="Also the models that were trained on such data, in published formats.")
    ] = False,
    force: Force = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Makes a small data set in the published formats, to try everything on: what is said, heard and seen is made up.

    Words, voices, faces and earlier turns each tell a part of the emotions. A recipe to train on it is
    training/demo.toml.

    Example: fmmt make-demo-data -o demo-data
    """
    from fmmt_deploy.demo.make import make_demo_data as make
    from fmmt_deploy.demo.paths import trained_run

    shown = Output("make-demo-data", as_json, quiet)
    shown.status(f"making {out}")
    made = make(out, plm, seed, models=models, force=force)
    rows = [("data", made.folder), ("faces with labels", made.affwild2), ("language model", made.language_model)]
    if made.checkpoint is not None:
        rows.append(("published checkpoint", made.checkpoint))
    counts = ", ".join(f"{split} {count}" for split, count in made.utterances.items())
    title = f"utterances: {counts}; {readable_bytes(made.bytes)}"
    shown.result({**asdict(made), "trained": trained_run(plm)}, Table(title, (), rows))
