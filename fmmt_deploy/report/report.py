"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fmmt_deploy.report.blocks import Section
from fmmt_deploy.report.facts import Facts
from fmmt_deploy.report.figures import counted
from fmmt_deploy.report.finding import verdict_blocks
from fmmt_deploy.report.markup import rendered
from fmmt_deploy.report.page import page
from fmmt_deploy.report.sections.audits import audit_section, swap_section
from fmmt_deploy.report.sections.decisions import decision_section
from fmmt_deploy.report.sections.legal import legal_section
from fmmt_deploy.report.sections.origins import environment_section, receipts_section
from fmmt_deploy.report.sections.precision import precision_section
from fmmt_deploy.report.sections.speed import speed_section
from fmmt_deploy.report.sections.stages import parity_section

__all__ = ["html_from_facts"]

_KINDS = {"T+A+V": "words, voice and faces", "V": "faces only"}


def html_from_facts(facts: Facts, extra: Sequence[Section] = (), now: datetime | None = None) -> str:
    """The page.

    Args:
        facts: What is known.
        extra: Sections after the decisions, such as pictures.
        now: The day it is written; default today.
    """
    day = (now or datetime.now(UTC)).date().isoformat()
    sections = (
        decision_section(facts),
        *extra,
        parity_section(facts),
        audit_section(facts),
        swap_section(facts),
        speed_section(facts),
        precision_section(facts),
        receipts_section(facts),
        environment_section(facts),
        legal_section(),
    )
    title = f"May the engine replace the model? {facts.name}"
    body = rendered(
        "report.jinja",
        title=title,
        about=f"Bundle `{facts.name}`: {_KINDS.get(facts.manifest.architecture.modality, '')}. Written {day} from "
        f"{counted(len(facts.receipts), 'receipt')} by `fmmt report`.",
        verdicts=verdict_blocks(facts),
        sections=sections,
        foot="Made of the receipts in the bundle; nothing was computed for this page. It loads nothing from anywhere.",
    )
    return page(title, body)
