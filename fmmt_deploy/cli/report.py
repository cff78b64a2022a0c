"""`fmmt report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmmt_deploy.cli.options import BundlePath, FacesDir, Force, JsonOutput, Quiet, Split
from fmmt_deploy.cli.output import Output

__all__ = ["report"]


def report(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the page goes, for example x.html.")],
    card: Annotated[
        Path | None, typer.Option("--card", metavar="FILE", help="Also a deployment card, in Markdown.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="The data set, for pictures of the faces of changed decisions."),
    ] = None,
    split: Split = "test",
    faces_dir: FacesDir = None,
    force: Force = False,
    as_json: JsonOutput = False,
    quiet: Quiet = False,
) -> None:
    """Writes what a bundle's receipts say as one page: may the engine replace the model, and on what evidence?

    The page needs no network and no script, and can be printed. Nothing is measured or checked for it: `fmmt verify`
    checks the files.

    Example: fmmt report -b my-bundle -o report.html --card card.md
    """
    from fmmt_deploy.cli.sessions import check_needs_data
    from fmmt_deploy.errors import UsageError
    from fmmt_deploy.pipeline.answers import check_new_file, write_text
    from fmmt_deploy.report.card import card_from_facts
    from fmmt_deploy.report.facts import facts_from_bundle
    from fmmt_deploy.report.finding import damage_words, finding_from_candidate
    from fmmt_deploy.report.report import html_from_facts
    from fmmt_deploy.report.sections.faces import faces_section

    check_needs_data(data, faces_dir=faces_dir)
    shown = Output("report", as_json, quiet)
    for path in (out, card):
        if path is not None:
            check_new_file(path, force)
    if card is not None and card.resolve() == out.resolve():
        raise UsageError(f"--out and --card are both {out}.", fix="Give the card another name, such as card.md.")
    facts = facts_from_bundle(bundle)
    extra = () if data is None else (faces_section(facts, data, split, faces_dir),)
    write_text(out, html_from_facts(facts, extra), force)
    if card is not None:
        write_text(card, card_from_facts(facts), force)
    findings = {candidate.label: finding_from_candidate(facts, candidate) for candidate in facts.candidates}
    document = {
        "bundle": bundle,
        "page": out,
        "card": card,
        "receipts": len(facts.receipts),
        "damaged": [kept.path for kept in facts.damaged],
        "findings": [{"engine": label, "finding": finding} for label, finding in findings.items()],
    }
    damage = [f"✗ Damaged. {damage_words(facts)}."] if facts.damaged else []
    lines = [f"{finding.mark} {finding.title}" for finding in findings.values()] or ["◌ No engine was judged."]
    wrote = " and ".join(str(path) for path in (out, card) if path is not None)
    shown.result(document, "\n".join([*damage, *lines, f"wrote {wrote}"]))
