"""What a judgement is about: the data it stands on, and a way to treat the noise."""

from __future__ import annotations

from fmmt_deploy.receipts.judged_steps import judged_on
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Evidence

__all__ = ["VERDICT_MARKS", "data_words", "judged_mode"]

VERDICT_MARKS = {"EQUIVALENT": "✓", "DIFFERENT": "✗", "INCONCLUSIVE": "◌"}


def data_words(evidence: Evidence) -> str:
    """What was judged on: data, split, part and noise, as the command line named them; else the data's own name."""
    on = judged_on(evidence.receipt)
    if on == "self-test":
        return "the bundle's self-test"
    return f"`{on}`" if on else evidence.document["data"]["source"].text


def judged_mode(document: Document) -> Document:
    """The mode that the verdict is about: the first that has one."""
    return next((mode for mode in document["modes"] if mode["equivalence"]), Document())
