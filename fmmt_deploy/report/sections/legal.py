"""Licences, and what the law asks of those who use such a model."""

from __future__ import annotations

from fmmt_deploy.report.blocks import Heading, Listing, Paragraph, Section, Table

__all__ = ["LICENCES", "LICENCE_HEADS", "NOTICE", "legal_section"]

LICENCE_HEADS = ("what", "terms")
LICENCES = (
    ("fmmt-deploy, and this page's form", "Apache License 2.0"),
    ("FacialMMT's published code and weights", "GPL-3.0"),
    ("MELD's annotation", "GPL-3.0"),
    ("MELD's clips (from a television series)", "may not be passed on"),
    ("Aff-Wild2", "under its licence agreement; may not be passed on"),
    ("other checkpoints and data", "those under which you got them"),
)
"""As in the project's NOTICE."""

NOTICE = (
    "Recognising emotions of people is regulated. In the European Union, Regulation (EU) 2024/1689 (the AI Act) "
    "prohibits AI systems that infer emotions of people in the workplace or in education, except for medical or safety "
    "reasons (Article 5(1)(f)). Elsewhere, where it is permitted at all, emotion recognition from biometric data such "
    "as faces is listed as high-risk (Annex III, point 1(c)), and whoever uses it must tell the people who are exposed "
    "to it (Article 50(3)). Faces and voices are personal data, and other laws hold in other places.",
    "What the model recognises is how people appear to annotators, not what they feel. Nothing here measured "
    "whether it answers equally well for different groups of people.",
    "That an engine may replace a model says that it answers alike. It does not say that the model is good enough "
    "for a purpose, nor that the purpose is allowed.",
    "This is a plain notice and no legal advice.",
)


def legal_section() -> Section:
    """The licences and the notice."""
    terms = (
        "The model's own terms are those of the checkpoint it was made from, which a bundle does not know. If it is "
        "the published one, or was trained on the data named here, these hold:"
    )
    return Section(
        "legal",
        "Licences and legal notice",
        (Paragraph(terms), Table(LICENCE_HEADS, LICENCES), Heading("Legal notice"), Listing(NOTICE)),
    )
