"""F1 with its uncertainty, what is confused, and which decisions changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fmmt_deploy.evaluation.words import rounded_up_points
from fmmt_deploy.report.blocks import Block, Charts, Figure, Heading, Numbers, Paragraph, Section, Table
from fmmt_deploy.report.charts.heatmap import counts_heatmap
from fmmt_deploy.report.charts.intervals import IntervalRow, intervals_chart
from fmmt_deploy.report.documents import Document
from fmmt_deploy.report.facts import Evidence, Facts
from fmmt_deploy.report.figures import NONE, counted, number, percent, points, short, signed_points
from fmmt_deploy.report.modes import VERDICT_MARKS, judged_mode
from fmmt_deploy.report.sections.noise import noise_blocks
from fmmt_deploy.types import EMOTIONS

__all__ = ["classes_table", "decision_section", "interval_words"]

_SHOWN = 30


def decision_section(facts: Facts) -> Section:
    """F1 of every engine that was scored."""
    blocks: list[Block] = [
        Paragraph(
            "Weighted F1, in points (hundredths). A difference is the engine's less the reference's: negative is "
            "worse. Its interval comes from resampling whole dialogues, because utterances of one dialogue are not "
            "independent. EQUIVALENT means that the whole interval lies within the margin.",
            "lead",
        )
    ]
    for candidate in facts.candidates:
        blocks.append(Heading(candidate.label))
        for evidence in (*candidate.f1, *candidate.scores):
            blocks += _evaluation(candidate.label, evidence)
        if not candidate.f1 and not candidate.scores:
            blocks.append(Paragraph("Not scored: run `fmmt eval`.", "note"))
    if not facts.candidates:
        blocks.append(Paragraph("No engine was scored: run `fmmt eval`.", "note"))
    return Section("f1", "Decisions and F1", tuple(blocks))


def interval_words(interval: Document) -> str:
    """`−0.11 to +0.06`, in points."""
    low, high = interval["low"].number, interval["high"].number
    return NONE if low is None or high is None else f"{signed_points(low)} to {signed_points(high)}"


def _evaluation(label: str, evidence: Evidence) -> Iterator[Block]:
    document = evidence.document
    if evidence.state == "stale":
        yield Paragraph(f"Stale: {evidence.why}. What follows is of the bundle as it was then.", "note")
    yield Paragraph(_about(evidence))
    for warning in document["warnings"].texts:
        yield Paragraph(f"Warning: {warning}", "note")
    mode = judged_mode(document)
    if mode:
        yield from _equivalence(mode["equivalence"])
    else:
        mode = next(iter(document["modes"]), Document())
        yield from _scores(mode["evaluation"], label)
    yield from _pictures(mode, label)
    yield from noise_blocks(document)
    yield from _changed(mode["equivalence"], [seed.count for seed in mode["seeds"]])


def _about(evidence: Evidence) -> str:
    document = evidence.document
    data = document["data"]
    of = [f"Scored on `{data['source'].text}`" + (f", split {data['split'].text}" if data["split"].text else "")]
    if (utterances := data["utterances"].count) is not None:
        of.append(f"{counted(utterances, 'utterance')} of {counted(data['dialogues'].count or 0, 'dialogue')}")
    if document["reference"].text:
        of.append(f"against {document['reference'].text}")
    return f"{', '.join(of)}; receipt `{evidence.path}`."


def _equivalence(found: Document) -> Iterator[Block]:
    verdict = found["verdict"].text
    margin = found["margin"].number
    confidence = percent(found["interval"]["confidence"].number)
    if found["words"].text:
        yield Paragraph(found["words"].text)
    changed, decisions = found["changed"].count, (found["utterances"].count or 0) * (found["draws"].count or 1)
    passing, detectable = (_margin(found[name].number) for name in ("passing_margin", "detectable"))
    ties = f"{NONE} ties" if (count := found["ties"].count) is None else counted(count, "tie")
    interval = f"{interval_words(found['interval'])} ({confidence})"
    yield Numbers(
        (
            ("verdict", f"{VERDICT_MARKS.get(verdict, '–')} {verdict.lower()}", f"at a margin of ±{points(margin)}"),
            ("engine", points(found["f1"].number), "weighted F1"),
            ("reference", points(found["reference_f1"].number), "weighted F1"),
            ("difference", signed_points(found["difference"].number), interval),
            (
                "decisions changed",
                number(changed),
                f"of {number(decisions)}; {ties}",
            ),
            ("passes above", passing, f"such data can show {detectable}"),
        )
    )
    rows = [row for row in (_overall(found), *(_class(one) for one in found["classes"])) if row is not None]
    if rows:
        limit = None if margin is None else 100 * margin
        chart = intervals_chart("F1 difference with interval", rows, limit, "points of F1, engine less reference")
        caption = "The margin is for the weighted F1; a class has fewer cases and a wider interval."
        yield Charts((Figure(chart, "Difference of F1.", caption),), classes_table(found))


def _margin(share: float | None) -> str:
    """Rounded as the verdict's words round it: up."""
    return NONE if share is None else f"±{rounded_up_points(share)}"


def _overall(found: Document) -> IntervalRow | None:
    return _interval_row("weighted F1", found, judged=True)


def _class(found: Document) -> IntervalRow | None:
    return _interval_row(found["emotion"].text, found)


def _interval_row(label: str, found: Document, judged: bool = False) -> IntervalRow | None:
    value, low, high = (d.number for d in (found["difference"], found["interval"]["low"], found["interval"]["high"]))
    if value is None:
        return None
    return IntervalRow(
        label, 100 * value, 100 * (value if low is None else low), 100 * (value if high is None else high), judged
    )


def classes_table(found: Document) -> Table:
    """F1 of each emotion and over all, from an equivalence."""
    rows = [
        (
            one["emotion"].text,
            number(one["support"].number),
            points(one["reference_f1"].number),
            points(one["f1"].number),
            signed_points(one["difference"].number),
            interval_words(one["interval"]),
        )
        for one in found["classes"]
    ]
    rows.append(
        (
            "weighted",
            number(found["utterances"].number),
            points(found["reference_f1"].number),
            points(found["f1"].number),
            signed_points(found["difference"].number),
            interval_words(found["interval"]),
        )
    )
    confidence = found["interval"]["confidence"].number
    intervals = f", with {percent(confidence)} intervals" if confidence else ""
    return Table(
        ("emotion", ">cases", ">F1 reference", ">F1 engine", ">difference", ">interval"),
        rows,
        f"F1 by emotion{intervals}",
        total=True,
    )


def _scores(found: Document, label: str) -> Iterator[Block]:
    if not found:
        return
    yield Paragraph(
        f"Scored without a reference: this says how good {label} is, not whether it may replace the model.", "note"
    )
    names = ("weighted_f1", "macro_f1", "accuracy")
    yield Numbers(tuple((name.replace("_f1", " F1"), points(found[name].number), "points") for name in names))
    rows = [
        (c["emotion"].text, number(c["support"].number), *(points(c[n].number) for n in ("precision", "recall", "f1")))
        for c in found["classes"]
    ]
    yield Table(("emotion", ">cases", ">precision", ">recall", ">F1"), rows, "Scores by emotion")


def _pictures(mode: Document, label: str) -> Iterator[Block]:
    figures = []
    confusion = _counts(mode["evaluation"]["confusion"])
    if confusion:
        svg = counts_heatmap("Confusion", EMOTIONS, confusion, ("truth", "decision"))
        figures.append(Figure(svg, f"Confusion of {label}.", "Colour: share of the row, so the diagonal is recall."))
    flips = _counts(mode["equivalence"]["flips"])
    if any(count for i, row in enumerate(flips) for j, count in enumerate(row) if i != j):
        svg = counts_heatmap(
            "Changed decisions", EMOTIONS, flips, ("reference", "engine"), ramp="b", skip_diagonal=True
        )
        figures.append(
            Figure(
                svg,
                "Flips: what the reference decided, and what the engine decides.",
                "On the diagonal nothing changed.",
            )
        )
    if figures:
        yield Charts(tuple(figures))
    test = mode["equivalence"]["mcnemar"]
    if test:
        yield Paragraph(_mcnemar(test))


def _mcnemar(test: Document) -> str:
    only = [test[name].count for name in ("only_reference_right", "only_candidate_right")]
    told = "" if None in only else f" ({only[0]} right only in the reference, {only[1]} only in the engine)"
    return f"McNemar's exact test on right and wrong decisions: p = {short(test['p_value'].number)}{told}."


def _counts(document: Document) -> list[tuple[float, ...]]:
    """Seven rows of seven counts, or nothing."""
    rows = [row.numbers for row in document]
    right = len(rows) == len(EMOTIONS) and all(len(row) == len(EMOTIONS) for row in rows)
    return rows if right else []


def _changed(found: Document, seeds: Sequence[int | None]) -> Iterator[Block]:
    changed = list(found["changed_decisions"])
    if not changed:
        return
    rows = [
        (
            c["utterance"].text + _seed(c, seeds),
            c["label"].text,
            f"{c['reference'].text} ({percent(c['reference_probability'].number)})",
            f"{c['decision'].text} ({percent(c['probability'].number)})",
            short(c["margin"].number),
            _effect(c),
        )
        for c in changed[:_SHOWN]
    ]
    more = f", the first {_SHOWN}" if len(changed) > _SHOWN else ""
    heads = ("utterance", "truth", "reference", "engine", ">margin", "which is")
    yield Table(heads, rows, folded=f"{counted(len(changed), 'decision')} that changed{more}")


def _seed(changed: Document, seeds: Sequence[int | None]) -> str:
    """Which of several draws of the noise it was: what `fmmt diff` takes."""
    draw = changed["draw"].count
    return f", seed {seeds[draw]}" if len(seeds) > 1 and draw is not None and 0 <= draw < len(seeds) else ""


def _effect(changed: Document) -> str:
    truth = changed["label"].text
    right = [changed[name].text == truth for name in ("reference", "decision")]
    return {(True, False): "✗ worse", (False, True): "✓ better"}.get((right[0], right[1]), "wrong both times")
