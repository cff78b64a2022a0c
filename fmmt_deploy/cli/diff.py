"""`fmmt diff`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import (
    BundlePath,
    DataPath,
    Engine,
    EngineCache,
    EngineKind,
    FacesDir,
    Force,
    JsonOutput,
    Noise,
    PrecisionText,
    Quiet,
    Seed,
    Split,
    Threads,
)
from fmmt_deploy.cli.output import Output, Table

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

    from fmmt_deploy.report.blocks import Section

__all__ = ["diff"]


def diff(
    utterance: Annotated[str, typer.Argument(metavar="UTTERANCE", help="Its id, as in `fmmt run`'s answers.")],
    bundle: BundlePath,
    data: DataPath,
    split: Split = "test",
    engine: Engine = "ort",
    precision: PrecisionText = "fp32",
    cache: EngineCache = None,
    reference: Annotated[
        EngineKind, typer.Option("--reference", help="What is right: this engine in float32.")
    ] = "torch",
    noise: Noise = "none",
    seed: Seed = 0,
    faces_dir: FacesDir = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page too, with the faces' pictures.")
    ] = None,
    force: Force = False,
    threads: Threads = 0,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Shows one utterance through an engine and its reference: faces kept, errors by stage, logits, who is to blame.

    It judges nothing and writes no receipt.

    Example: fmmt diff dia0_utt3 -b my-bundle --data meld-data --engine trt --precision fp16 --html dia0_utt3.html
    """
    from fmmt_deploy.bundle.precisions import text_from_precisions
    from fmmt_deploy.cli.sessions import Session
    from fmmt_deploy.evaluation.stages import utterance_diff
    from fmmt_deploy.pipeline.answers import check_new_file, write_text
    from fmmt_deploy.report.difference import difference_sections, html_from_difference

    if html is not None:
        check_new_file(html, force)
    shown = Output("diff", as_json, quiet)
    session = Session(shown, bundle, threads, precision=precision, cache=cache)
    dataset = session.dataset(data, split, faces_dir, None)
    draws = session.noise(noise, seed, dataset)
    with session.reference(reference) as right, session.engines(engine) as engines:
        found = utterance_diff(session.bundle, right, engines, dataset, utterance, noise=draws, threads=session.threads)
    lowered = {graph: each for graph, each in session.precisions.items() if each != "fp32"}
    mixed = ",".join(f"{graph}={each}" for graph, each in lowered.items())  # the others are float32, as the reference
    precisions = mixed if 0 < len(lowered) < len(session.precisions) else text_from_precisions(session.precisions)
    names = (f"{reference} fp32", f"{engine} {precisions}")
    if html is not None:
        drawn = f"{noise} {seed}" if noise == "gumbel" else noise
        about = f"Bundle `{session.bundle.path.name}`, data `{data.name}`, split {split}, noise {drawn}."
        write_text(html, html_from_difference(found, *names, about), force)
        shown.status(f"wrote {html}")
    document = {
        "bundle": bundle,
        "engine": engine,
        "precisions": session.precisions,
        "reference": reference,
        "data": {"source": dataset.source, "split": split},
        "noise": noise,
        "seed": seed if noise == "gumbel" else None,
        **found.to_json(),
        "html": html,
    }
    shown.result(document, *_parts(difference_sections(found, *names)))


def _parts(sections: tuple[Section, ...]) -> Iterator[Table | str]:
    """What a terminal can show of them."""
    from fmmt_deploy.report.blocks import Paragraph
    from fmmt_deploy.report.blocks import Table as Rows

    for section in sections:
        yield section.title.upper()
        for block in section.blocks:
            if isinstance(block, Paragraph):
                yield block.words
            elif isinstance(block, Rows):
                yield Table(block.caption, [name for name, _ in block.heads], block.rows)
