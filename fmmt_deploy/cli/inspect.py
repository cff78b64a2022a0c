"""`fmmt inspect`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import JsonOutput
from fmmt_deploy.cli.output import Output, Table, readable_bytes

if typing.TYPE_CHECKING:
    from fmmt_deploy.architecture import Architecture
    from fmmt_deploy.bundle.store import Bundle

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A bundle.")],
    as_json: JsonOutput = False,
) -> None:
    """Says what is in a bundle, after checking every byte of it.

    Example: fmmt inspect my-bundle
    """
    from dataclasses import asdict

    from fmmt_deploy.bundle.store import Bundle

    bundle = Bundle.open(path)
    manifest = asdict(bundle.manifest)
    size = sum(entry.size_bytes for entry in bundle.manifest.files.values())
    document = {"kind": "bundle", "path": path, "verified": True, "size_bytes": size, "manifest": manifest}
    Output("inspect", as_json).result(document, *_bundle_parts(bundle, size))


def _bundle_parts(bundle: Bundle, size: int) -> list[Table]:
    manifest = bundle.manifest
    summary = [
        ("path", bundle.path),
        ("kind", f"bundle of schema {manifest.schema}, every hash checked"),
        ("modality", manifest.architecture.modality),
        ("size", readable_bytes(size)),
        ("emotions", ", ".join(manifest.emotions)),
        ("tau", manifest.tau),
        ("threshold", manifest.threshold),
        ("created", manifest.created),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
        *(("made from", f"{name} (SHA-256 {digest[:16]}…)") for name, digest in manifest.source.checkpoints.items()),
    ]
    graphs = [(graph, precision, file) for graph, files in manifest.graphs.items() for precision, file in files.items()]
    files = [
        (name, readable_bytes(entry.size_bytes), f"{entry.sha256[:16]}…") for name, entry in manifest.files.items()
    ]
    return [
        Table("", (), summary),
        sizes_table(manifest.architecture),
        Table("", ("graph", "precision", "file"), graphs),
        Table("", ("file", "size", "SHA-256"), files),
    ]


def sizes_table(architecture: Architecture) -> Table:
    """Every size of every part of a model, one part a row."""
    from dataclasses import asdict

    rows = [
        (part, ", ".join(f"{name} {_shown(value)}" for name, value in sizes.items()))
        for part, sizes in asdict(architecture).items()
        if isinstance(sizes, dict)
    ]
    return Table("", ("part", "sizes"), rows)


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
