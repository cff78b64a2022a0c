"""The parts of an evaluation that are about the same thing: a way to treat the noise."""

from __future__ import annotations

from fmmt_deploy.report.documents import Document

__all__ = ["judged_mode"]


def judged_mode(document: Document) -> Document:
    """The mode that the verdict is about: the last of those with one that says the same."""
    judged = [mode for mode in document["modes"] if mode["equivalence"]]
    same = [mode for mode in judged if mode["equivalence"]["verdict"].text == document["verdict"].text]
    return (same or judged or [Document()])[-1]
