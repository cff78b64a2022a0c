"""May an engine replace the model? What the evidence for one comes to, in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fmmt_deploy.evaluation.words import margin_words
from fmmt_deploy.receipts.judged_steps import judged_on
from fmmt_deploy.report.blocks import Code, Level, Listing, Paragraph, Verdict
from fmmt_deploy.report.facts import Candidate, Evidence, Facts
from fmmt_deploy.report.figures import counted, first_sentence
from fmmt_deploy.report.modes import data_words, judged_mode
from fmmt_deploy.report.speed_words import speed_words

__all__ = ["Finding", "damage_words", "finding_from_candidate", "verdict_blocks"]

_DAMAGED = 8
"""The most damaged receipts that are named at the top."""

_MARKS: dict[Level, str] = {"good": "✓ Yes.", "bad": "✗ No.", "warn": "◌ Not shown."}


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer for one engine.

    Attributes:
        level: `good` where it may replace the model, `bad` where it must not, `warn` where that is not shown.
        title: The answer, in a sentence.
        evidence: What it rests on.
        problems: What speaks against it.
        missing: What is not known.
        remarks: What else there is to say, which decides nothing: speed, and verdicts on data that were calibrated on.
        commands: What would find that out.
    """

    level: Level
    title: str
    evidence: tuple[str, ...]
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def mark(self) -> str:
        """The answer, in a word."""
        return _MARKS[self.level]


class _Notes:
    """What is found on the way."""

    def __init__(self) -> None:
        self.evidence: list[str] = []
        self.problems: list[str] = []
        self.missing: list[str] = []
        self.remarks: list[str] = []
        self.commands: list[str] = []


def finding_from_candidate(facts: Facts, candidate: Candidate) -> Finding:
    """Weighs the evidence: both proofs must be there, hold, and be about what the bundle holds now."""
    notes = _Notes()
    given = ("-b", str(facts.path), "--engine", candidate.engine, "--precision", candidate.precision)
    options = shlex.join(given)
    _parity(notes, candidate, options)
    _f1(notes, candidate, options)
    if facts.damaged:
        notes.problems.append(f"{damage_words(facts)}; see Receipts.")
        notes.commands.append(f"fmmt verify -b {shlex.quote(str(facts.path))}")
    level: Level = "bad" if notes.problems else "warn" if notes.missing else "good"
    verb = {"good": "may replace the model", "bad": "must not replace the model", "warn": "is not shown to be as good"}
    title = f"The engine {candidate.engine} in {candidate.precision} {verb[level]}"
    margin = max((m for found in candidate.f1 if (m := found.document["margin"].number) is not None), default=None)
    if level == "good" and margin is not None:
        title += (
            f", if {100 * margin:g} " + ("point of F1 does" if margin == 0.01 else "points of F1 do") + " not matter"
        )
    return Finding(
        level,
        f"{title}.",
        tuple(notes.evidence),
        tuple(notes.problems),
        tuple(notes.missing),
        (*notes.remarks, speed_words(facts, candidate)),
        tuple(dict.fromkeys(notes.commands)),
    )


def verdict_blocks(facts: Facts) -> tuple[Verdict, ...]:
    """The top of the report: damage, then one finding for each engine judged, the latest first."""
    return (*_damage(facts), *_answers(facts))


def _damage(facts: Facts) -> tuple[Verdict, ...]:
    """Receipts that can't be relied on: what they said, perhaps of an engine that is named nowhere else, is lost."""
    if not facts.damaged:
        return ()
    named = Listing(tuple(f"`{kept.path}` {kept.problem}" for kept in facts.damaged[:_DAMAGED]))
    more = len(facts.damaged) - _DAMAGED
    words = (Paragraph(f"{more} more: see Receipts."),) if more > 0 else ()
    command = Code((f"fmmt verify -b {shlex.quote(str(facts.path))}",))
    return (Verdict("bad", "✗ Damaged.", f"{damage_words(facts)}.", (named, *words, command)),)


def damage_words(facts: Facts) -> str:
    """How many receipts can't be relied on."""
    return f"{counted(len(facts.damaged), 'receipt')} of this bundle can't be relied on"


def _answers(facts: Facts) -> tuple[Verdict, ...]:
    if not facts.candidates:
        path = shlex.quote(str(facts.path))
        commands = (
            f"fmmt parity -b {path} --engine ort",
            f"fmmt eval -b {path} --data DATA --engine ort --reference torch",
        )
        words = "This bundle has no receipt of a command that judged an engine. What would leave one:"
        return (Verdict("warn", "◌ Not shown.", "No engine was judged.", (Paragraph(words), Code(commands))),)
    return tuple(_block(finding_from_candidate(facts, candidate)) for candidate in facts.candidates)


def _block(finding: Finding) -> Verdict:
    blocks: list[Paragraph | Listing | Code] = []
    if finding.problems:
        blocks.append(Listing(finding.problems))
    if finding.evidence or finding.remarks:
        blocks.append(Listing((*finding.evidence, *finding.remarks)))
    if finding.missing:
        blocks += [Paragraph("What is missing:"), Listing(finding.missing)]
    if finding.commands:
        blocks.append(Code(finding.commands))
    return Verdict(finding.level, finding.mark, finding.title, tuple(blocks))


def _parity(notes: _Notes, candidate: Candidate, options: str) -> None:
    command = f"fmmt parity {options}"
    if not candidate.parity:
        notes.missing.append("Its numbers were not compared with the reference's, stage by stage (parity).")
        notes.commands.append(command)
    for found in candidate.parity:
        if found.state == "stale":
            _stale(notes, f"Parity on {data_words(found)}", found, command)
        elif not _is_model(found.document["reference"].text):
            against = found.document["reference"].text or "nothing"
            notes.missing.append(f"Parity on {data_words(found)} was with {against}, which is not the model itself.")
            notes.commands.append(command)
        elif found.document["passed"].flag:
            stages = counted(len(found.document["stages"]), "stage")
            against = found.document["reference"].text or "the reference"
            notes.evidence.append(f"Parity: all {stages} are within tolerance of {against}, on {data_words(found)}.")
        else:
            worst = found.document["worst"]
            where = f" Worst: {worst['stage'].text}, {worst['tensor'].text}." if worst else ""
            what = "it does not compute what the reference computes"
            notes.problems.append(f"Parity FAILED on {data_words(found)}: {what}.{where}")


def _f1(notes: _Notes, candidate: Candidate, options: str) -> None:
    command = f"fmmt eval {options} --data DATA --reference torch"
    if not candidate.f1:
        scored = " It was scored, but against no reference." if candidate.scores else ""
        notes.missing.append(f"Its F1 was not judged against the reference's.{scored}")
        notes.commands.append(command)
    warned: list[str] = []
    for found in candidate.f1:
        on = judged_on(found.receipt)
        about = f"F1 on `{on}`" if on else "F1"
        if found.state == "stale":
            _stale(notes, about, found, command)
            continue
        reference = found.document["reference"].text
        if not _is_model(reference):
            notes.missing.append(f"{about} was judged against {reference or 'nothing'}, which is not the model itself.")
            notes.commands.append(command)
            continue
        word = found.document["verdict"].text
        words = first_sentence(judged_mode(found.document)["equivalence"]["words"].text)
        told = f"{about}: {words or f'{word}.'}"
        if word == "EQUIVALENT" and (warnings := found.document["warnings"].texts):
            warned.append(f"{told} But {'; '.join(warnings)}.")
        elif word == "EQUIVALENT":
            notes.evidence.append(told)
        elif word == "DIFFERENT":
            notes.problems.append(told)
        else:
            notes.missing.append(told)
            notes.commands.append(command)
    _warned(notes, warned, command)
    for found in candidate.tries:
        margin = found.document["margin"].number
        at = "" if margin is None else f" at a margin of {margin_words(margin)}"
        notes.remarks.append(
            f"Before, F1 on `{judged_on(found.receipt) or 'the same data'}` was {found.document['verdict'].text}{at} "
            f"(`{found.path}`). A margin or seeds chosen after that prove nothing."
        )


def _warned(notes: _Notes, warned: Sequence[str], command: str) -> None:
    """Verdicts on data that the engine was calibrated on are no proof, and take nothing from one on other data."""
    if any(line.startswith("F1") for line in notes.evidence):
        notes.remarks += warned
    elif warned:
        notes.missing += warned
        notes.commands.append(command)


def _is_model(reference: str) -> bool:
    """Whether a reference is PyTorch in float32, run or as the self-test has it; an engine proves nothing of itself."""
    return reference.startswith(("torch", "recorded"))


def _stale(notes: _Notes, what: str, found: Evidence, command: str) -> None:
    notes.missing.append(f"{what} was judged, but of something else than the bundle holds now: {found.why}.")
    notes.commands.append(command)
