"""One utterance that two sides answered, for a terminal and as a page with its faces."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf
from pathlib import Path
from typing import Literal

from fmmt_deploy.evaluation.utterance import FaceStage, UtteranceDiff
from fmmt_deploy.report.blocks import Block, Face, Faces, Paragraph, Section, Table
from fmmt_deploy.report.figures import counted, percent, short, signed
from fmmt_deploy.report.markup import rendered
from fmmt_deploy.report.page import page
from fmmt_deploy.report.pictures import picture_from_face
from fmmt_deploy.types import EMOTIONS

__all__ = ["difference_sections", "html_from_difference"]


def html_from_difference(found: UtteranceDiff, reference: str, engine: str, about: str) -> str:
    """A page of its own, with the pictures of the faces inside it.

    Args:
        found: The difference.
        reference: What computed the reference, in a word or two.
        engine: What computed the rest.
        about: Which bundle, data and noise; between backticks, code.

    Raises:
        DataError: A face can't be read.
    """
    title = f"{found.utterance}: {engine} against {reference}"
    sections = difference_sections(found, reference, engine, pictures=True)
    foot = "Written by `fmmt diff`. It judges nothing, and loads nothing from anywhere."
    return page(title, rendered("report.jinja", title=title, about=about, verdicts=(), sections=sections, foot=foot))


def difference_sections(
    found: UtteranceDiff, reference: str, engine: str, *, pictures: bool = False
) -> tuple[Section, ...]:
    """What is to be told of it.

    Args:
        found: The difference.
        reference: What computed the reference, in a word or two.
        engine: What computed the rest.
        pictures: Whether to read the faces and show them.
    """
    faces = _faces(found, reference, engine, pictures)
    sections = [Section("answer", "The answer", (*_answer(found, reference, engine),))]
    if faces:
        sections.append(Section("faces", "Faces", (*faces,)))
    sections.append(Section("stages", "Errors stage by stage", (*_stages(found),)))
    sections.append(Section("blame", "Which graph is to blame", (*_blame(found),)))
    return tuple(sections)


def _answer(found: UtteranceDiff, reference: str, engine: str) -> Iterator[Block]:
    if found.text is not None:
        yield Paragraph(f"“{found.text}”", "lead")
    yield Paragraph(_decided(found) + ("" if found.label is None else f" The label says {found.label}."))
    yield Table(
        ("", "decision", ">probability", ">lead", "flips first to"),
        [
            (name, side.decision, f"{max(side.probabilities):.4f}", short(side.margin), side.next)
            for name, side in ((reference, found.reference), (engine, found.engine))
        ],
    )
    one, two = found.reference, found.engine
    rows = [
        (emotion, *(f"{x:.5f}".replace("-", "−") for x in (a, b)), _change(b - a), f"{p:.4f}", f"{q:.4f}")
        for emotion, a, b, p, q in zip(
            EMOTIONS, one.logits, two.logits, one.probabilities, two.probabilities, strict=True
        )
    ]
    heads = ("emotion", f">logit, {reference}", f">{engine}", ">change", f">probability, {reference}", f">{engine}")
    yield Table(heads, rows)


def _decided(found: UtteranceDiff) -> str:
    one, two = found.reference, found.engine
    if found.changed:
        return (
            f"The decision changes: the reference says {one.decision} by {short(one.margin)}, "
            f"the engine {two.decision} by {short(two.margin)}."
        )
    change = found.lead_change
    moved = f"{short(abs(change))} {'less' if change < 0 else 'more'} than the reference's" if change else "no less"
    left = f", {percent(abs(change) / one.margin, 1)} of the way to a flip" if change < 0 < one.margin else ""
    return f"Both say {one.decision}. The engine's lead is {short(two.margin)}, {moved}{left}."


def _change(difference: float) -> str:
    return signed(difference, 5)


def _faces(found: UtteranceDiff, reference: str, engine: str, pictures: bool) -> Iterator[Block] | None:
    return _face_blocks(found, reference, engine, pictures) if found.faces else None


def _face_blocks(found: UtteranceDiff, reference: str, engine: str, pictures: bool) -> Iterator[Block]:
    faces = found.faces
    turned = sum(face.kept != face.reference_kept for face in faces)
    kept = [sum(getattr(face, name) for face in faces) for name in ("reference_kept", "kept")]
    unused = f" {counted(found.unused_faces, 'more face')} without a place in the model." if found.unused_faces else ""
    none = "".join(
        f" None passes for the {side}, so all are used."
        for side, passed in (
            ("reference", any(face.reference_passed for face in faces)),
            ("engine", any(face.passed for face in faces)),
        )
        if not passed
    )
    yield Paragraph(
        f"A face is kept if Σp² is above {found.threshold:g}. Of {counted(len(faces), 'face')} the reference keeps "
        f"{kept[0]}, the engine {kept[1]}; {turned} turned.{none}{unused}"
    )
    if pictures:
        yield Faces(tuple(_picture(face) for face in faces))
    rows = [
        (
            str(face.face),
            f"{face.reference_confidence:.6f}",
            f"{face.confidence:.6f}",
            _change(face.confidence - face.reference_confidence),
            _fate(face),
            _pair(face.reference_emotion, face.emotion),
        )
        for face in faces
    ]
    yield Table(("face", f">Σp², {reference}", f">{engine}", ">change", "gate", "emotion of the face"), rows)


def _picture(face: FaceStage) -> Face:
    state: Literal["kept", "dropped", "turned"] = "turned"
    if face.kept == face.reference_kept:
        state = "kept" if face.kept else "dropped"
    words = f"{face.face}: {_fate(face)}, {face.reference_confidence:.4f} → {face.confidence:.4f}"
    return Face(picture_from_face(Path(face.path)), state, words)


def _fate(face: FaceStage) -> str:
    return _pair(*("kept" if kept else "dropped" for kept in (face.reference_kept, face.kept)))


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _stages(found: UtteranceDiff) -> Iterator[Block]:
    yield Paragraph("Each stage with the engine's own outputs of the stages before it.")
    rows = [
        (
            stage.stage,
            stage.graph,
            " × ".join(map(str, stage.shape)),
            short(stage.largest),
            "∞" if isinf(stage.relative) else short(stage.relative),
            "exact" if stage.sqnr_db == float("inf") else f"{stage.sqnr_db:.1f} dB".replace("-", "−"),
        )
        for stage in found.stages
    ]
    yield Table(("after", "graph", "compared", ">largest error", ">relative", ">SQNR"), rows)


def _blame(found: UtteranceDiff) -> Iterator[Block]:
    yield Paragraph(_blamed(found))
    rows = [
        (
            each.graph,
            short(each.alone),
            "yes" if each.flips else "no",
            f"{100 * each.error_share:.1f} %".replace("-", "−"),
            _change(each.margin_share),
        )
        for each in found.blame
    ]
    heads = ("graph", ">error alone", "flips alone", ">of the logits' squared error", ">of the lead's change")
    yield Table(heads, rows)


def _blamed(found: UtteranceDiff) -> str:
    worst = max(found.blame, key=lambda each: each.error_share)
    if not worst.error_share:
        return "Both sides answer the same, to the last bit."
    share = percent(worst.error_share, 1)  # as in the table
    most = f"{share} of the logits' squared error comes from {worst.graph}"
    most += ": what others add makes up for some of it." if worst.error_share > 1 else "."
    if not found.changed or len(found.blame) == 1:
        return most
    alone = [each.graph for each in found.blame if each.flips]
    if alone:
        return f"{most} The decision flips with {' or with '.join(alone)} alone."
    return f"{most} No graph flips the decision alone; together they do."
