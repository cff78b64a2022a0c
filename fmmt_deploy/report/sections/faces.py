"""The faces of utterances that an engine decides otherwise, and of the gate's decisions that crossed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.data.dataset import first_dialogues, read_data
from fmmt_deploy.data.fingerprint import fingerprint
from fmmt_deploy.errors import DataError
from fmmt_deploy.report.blocks import Block, Face, Faces, Heading, Paragraph, Section
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Evidence, Facts
from fmmt_deploy.report.modes import judged_mode
from fmmt_deploy.report.pictures import picture_from_face
from fmmt_deploy.types import DataSet, Utterance

__all__ = ["faces_section"]

_UTTERANCES, _FACES = 12, 16
"""The most that are shown: a page is to be read, and each picture takes some kilobytes."""


def faces_section(facts: Facts, data: Path, split: str, faces_dir: Path | None = None) -> Section:
    """Pictures from a data set; which faces were kept is what the receipts say.

    Args:
        facts: What is known.
        data: The data set that the engine was scored on.
        split: Which part of it.
        faces_dir: Where its face images are, if their paths are of another machine.

    Raises:
        DataError: It can't be read, or is not what an engine was judged on.
    """
    dataset = read_data(data, split, facts.manifest.architecture, faces_dir)
    judged = [(candidate.label, f1) for candidate in facts.candidates for f1 in candidate.f1]
    same = _judged_on(judged, dataset)
    if judged and not same:
        raise _other_data(data, split, [f1 for _, f1 in judged])
    changed = [one for label, f1 in same for one in _changes(label, f1.document)]
    known = {utterance.id: utterance for dialogue in dataset.dialogues for utterance in dialogue.utterances}
    shown = [one for one in changed if one.utterance in known][:_UTTERANCES]
    blocks: list[Block] = [] if changed else [Paragraph("No decision changed on these data.", "note")]
    blocks += [block for one in shown for block in _utterance(one, known[one.utterance])]
    if len(changed) > len(shown):
        blocks.append(Paragraph(f"{len(changed) - len(shown)} more changed and are not shown.", "note"))
    return Section("faces", "Faces of changed decisions", tuple(blocks))


def _judged_on(judged: Sequence[tuple[str, Evidence]], dataset: DataSet) -> list[tuple[str, Evidence]]:
    """Those that were judged on these very data: ids are alike in other splits and sets, the people are not."""
    hashes: dict[object, str] = {}
    found = []
    for label, f1 in judged:
        setting = f1.receipt.settings.get("limit")
        limit = setting.value if setting is not None and isinstance(setting.value, int) else None
        if limit not in hashes:
            hashes[limit] = fingerprint(first_dialogues(dataset, limit))
        if f1.document["data"]["sha256"].text == hashes[limit]:
            found.append((label, f1))
    return found


def _other_data(data: Path, split: str, judged: Sequence[Evidence]) -> DataError:
    named = dict.fromkeys(
        f"{one['source'].text} ({one['split'].text})" for one in (f1.document["data"] for f1 in judged)
    )
    return DataError(
        f"{data} ({split}) is not what an engine was judged on.",
        why=f"Its SHA-256 is another than those in the receipts, of {', '.join(named)}.",
        fix="Give the data and the split that the engine was scored on.",
        path=data,
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """A changed decision; which faces each side kept, None where the receipt does not say."""

    utterance: str
    words: str
    reference: frozenset[int] | None
    engine: frozenset[int] | None


def _changes(label: str, document: Document) -> list[_Change]:
    mode = judged_mode(document)
    faces = mode["audit"]["faces"]
    found = {}
    for change in mode["equivalence"]["changed_decisions"]:
        name = change["utterance"].text
        decided = f"{change['reference'].text} → {change['decision'].text}"
        words = f"{name}: {decided}; the label says {change['label'].text} ({label})"
        found[name] = _Change(name, words, _kept(faces[name]["reference"]), _kept(faces[name]["engine"]))
    return list(found.values())


def _kept(faces: Document) -> frozenset[int] | None:
    return frozenset(count for face in faces if (count := face.count) is not None) if faces else None


def _utterance(change: _Change, utterance: Utterance) -> list[Block]:
    paths = utterance.faces[: utterance.vision_length]
    blocks: list[Block] = [Heading(change.words)]
    if not paths:
        return [*blocks, Paragraph("It has no face.", "note")]
    blocks.append(Faces(tuple(_face(number, path, change) for number, path in enumerate(paths[:_FACES]))))
    if change.reference is None:
        blocks.append(Paragraph("Which of them were used is not told: the audit is of the first draw only.", "note"))
    if len(paths) > _FACES:
        blocks.append(Paragraph(f"The first {_FACES} of {len(paths)} faces.", "note"))
    return blocks


def _face(number: int, path: Path, change: _Change) -> Face:
    picture = picture_from_face(path)
    if change.reference is None or change.engine is None:
        return Face(picture, "shown", f"{number}")
    before, after = number in change.reference, number in change.engine
    fates = ["kept" if kept else "dropped" for kept in (before, after)]
    if before != after:
        return Face(picture, "turned", f"{number}: {fates[0]} → {fates[1]}")
    return Face(picture, "kept" if before else "dropped", f"{number}: {fates[0]}")
