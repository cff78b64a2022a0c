"""The parts of an evaluation that are about the same thing: a way to treat the noise."""

from __future__ import annotations

from fmmt_deploy.report.documents import Document

__all__ = ["VERDICT_MARKS", "judged_mode"]

VERDICT_MARKS = {"EQUIVALENT": "✓", "DIFFERENT": "✗", "INCONCLUSIVE": "◌"}


def judged_mode(document: Document) -> Document:
    """The mode that the verdict is about: the first that has one."""
    return next((mode for mode in document["modes"] if mode["equivalence"]), Document())
