"""`fmmt profile-data`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BatchSize,
    BundlePath,
    DataPath,
    DryRun,
    FacesDir,
    Force,
    JsonOutput,
    Limit,
    Quiet,
    Split,
)
from fmmt_deploy.cli.output import Output, Table

if typing.TYPE_CHECKING:
    from fmmt_deploy.engines.tensorrt.profiles import Profiles
    from fmmt_deploy.shapes.lengths import Lengths
    from fmmt_deploy.shapes.padding import Padding
    from fmmt_deploy.types import DataSet

__all__ = ["profile_data"]


def profile_data(
    bundle: BundlePath,
    data: DataPath,
    split: Split = "test",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where the profile goes, as TOML, for fmmt build."),
    ] = None,
    buckets: Annotated[
        int,
        typer.Option("--buckets", min=1, max=16, help="Length classes of texts and of face batches, one profile each."),
    ] = 1,
    batch_size: BatchSize = 8,
    face_batch: Annotated[
        int, typer.Option("--face-batch", min=1, help="Faces that go through the face model together.")
    ] = 64,
    audio: Annotated[int | None, typer.Option("--audio", hidden=True)] = None,
    vision: Annotated[int | None, typer.Option("--vision", hidden=True)] = None,
    text: Annotated[int | None, typer.Option("--text", hidden=True)] = None,
    faces_dir: FacesDir = None,
    limit: Limit = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Turns the lengths in a data set into the sizes to build TensorRT engines for, and shows what padding wastes.

    Faces are not decoded, and labels are not needed. Audio and vision keep their length: there the padding is part of
    the arithmetic.

    Example: fmmt profile-data -b my-bundle --data meld-data --split val --buckets 4 -o my-profile.toml
    """
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.engines.tensorrt.profiles import toml_from_profiles
    from fmmt_deploy.pipeline.answers import check_new_file, write_text
    from fmmt_deploy.shapes.lengths import lengths_of
    from fmmt_deploy.shapes.suggest import check_padded_axes, face_paddings, profiles_from_lengths, text_paddings

    shown = Output("profile-data", as_json, quiet)
    if out is not None:
        check_new_file(out, force)
    session = Session(shown, bundle, batch_size=batch_size)
    check_padded_axes(session.architecture, {"audio": audio, "vision": vision, "text": text})
    dataset = session.dataset(data, split, faces_dir, limit)
    lengths = lengths_of(session.bundle, dataset, batch_size)
    paddings = {
        "tokens": text_paddings(lengths, session.architecture, buckets),
        "faces": face_paddings(lengths, buckets, face_batch),
    }
    profiles = profiles_from_lengths(lengths, session.architecture, buckets, face_batch, dataset.source)
    if out is not None and not dry_run:
        write_text(out, toml_from_profiles(profiles, _comment(dataset, lengths, buckets)), force)
    shown.result(
        _document(out, dry_run, dataset, lengths, paddings, profiles),
        *_tables(lengths, paddings, profiles),
        *([] if out is None else [f"{'would write' if dry_run else 'wrote'} {out}"]),
    )


def _comment(dataset: DataSet, lengths: Lengths, buckets: int) -> str:
    return (
        f"From the lengths of {dataset.source}: {len(dataset.dialogues)} dialogues, {len(dataset.order)} utterances.\n"
        f"fmmt profile-data --batch-size {lengths.batch_size} --buckets {buckets}"
    )


def _document(
    out: Path | None,
    dry_run: bool,
    dataset: DataSet,
    lengths: Lengths,
    paddings: dict[str, list[Padding]],
    profiles: Profiles,
) -> dict[str, object]:
    from dataclasses import asdict

    from fmmt_deploy.shapes.lengths import distribution

    return {
        "path": out,
        "dry_run": dry_run,
        "data": dataset.source,
        "batch_size": lengths.batch_size,
        "lengths": [distribution(what, found) for what, found in lengths.named().items()],
        "padding": {
            what: [{**asdict(padding), "ratio": padding.ratio} for padding in each] for what, each in paddings.items()
        },
        "profiles": profiles.graphs,
    }


def _tables(lengths: Lengths, paddings: dict[str, list[Padding]], profiles: Profiles) -> list[Table]:
    from fmmt_deploy.shapes.lengths import distribution

    described = [distribution(what, found) for what, found in lengths.named().items()]
    tables = [
        Table(
            "lengths",
            ("", "count", "mean", "min", "p50", "p90", "p99", "max"),
            [(d.what, d.count, f"{d.mean:.1f}", d.lowest, d.p50, d.p90, d.p99, d.highest) for d in described],
        )
    ]
    for what, each in paddings.items():
        rows = [(p.choice, p.processed, f"{p.ratio:.3f}") for p in each]
        if rows:
            tables.append(Table(f"{what}: real ÷ computed ({each[0].real} are real)", ("", "computed", "ratio"), rows))
    ranges = [
        (graph, number, name, size.min, size.opt, size.max)
        for graph, each_profile in profiles.graphs.items()
        for number, profile in enumerate(each_profile)
        for name, size in profile.items()
    ]
    return [*tables, Table("profiles", ("graph", "profile", "dimension", "smallest", "usual", "largest"), ranges)]
