"""What is told of one utterance: sentences, faces that turned, and nothing that could be taken for HTML."""

from dataclasses import replace
from math import inf
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmmt_deploy.evaluation.utterance import Blame, FaceStage, SideAnswer, StageError, UtteranceDiff
from fmmt_deploy.report.blocks import Faces, Paragraph, Section, Table
from fmmt_deploy.report.difference import difference_sections, html_from_difference


def side(decision: str, other: str, margin: float) -> SideAnswer:
    return SideAnswer(decision, other, margin, (margin, 0, 0, 0, 0, 0, -1.0), (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))


def face(number: int, path: Path, before: bool, after: bool) -> FaceStage:
    sure = [0.25 if kept else 0.15 for kept in (before, after)]
    return FaceStage(
        number, str(path), *sure, before, after, before, after, "joy", "joy" if before == after else "fear"
    )


@pytest.fixture
def found(tmp_path: Path) -> UtteranceDiff:
    path = tmp_path / "face.png"
    assert cv2.imwrite(str(path), np.full((30, 30, 3), 128, np.uint8))
    return UtteranceDiff(
        utterance="dia<1>",
        dialogue="dia1",
        text="Is 1 < 2 & 3 > 2?",
        label="joy",
        threshold=0.2,
        reference=side("joy", "fear", 0.5),
        engine=side("joy", "fear", 0.4),
        lead_change=-0.1,
        faces=(face(0, path, True, True), face(1, path, False, False), face(2, path, True, False)),
        unused_faces=1,
        stages=(
            StageError("logits", "fusion", (7,), 0.1, 0.01, 40.0),
            StageError("token states", "plm", (2, 4), 0, 0, inf),
        ),
        blame=(Blame("swin", 0.0, False, -0.05, 0.0), Blame("fusion", 0.1, False, 1.05, -0.1)),
    )


def words(sections: tuple[Section, ...], name: str) -> str:
    (section,) = (section for section in sections if section.name == name)
    return " ".join(block.words for block in section.blocks if isinstance(block, Paragraph))


def cells(sections: tuple[Section, ...], name: str) -> list[tuple[str, ...]]:
    (section,) = (section for section in sections if section.name == name)
    return [row for block in section.blocks if isinstance(block, Table) for row in block.rows]


def test_the_same_decision(found: UtteranceDiff) -> None:
    told = difference_sections(found, "torch fp32", "trt fp16")
    assert [section.name for section in told] == ["answer", "faces", "stages", "blame"]
    assert (
        "Both say joy. The engine's lead is 0.400, 0.100 less than the reference's, 20.0 % of the way to a flip."
        in (words(told, "answer"))
    )
    assert "The label says joy." in words(told, "answer")
    more = replace(found, lead_change=0.1, engine=side("joy", "fear", 0.6))
    assert "0.600, 0.100 more than the reference's. The" in words(difference_sections(more, "a", "b"), "answer")


def test_another_decision(found: UtteranceDiff) -> None:
    changed = replace(found, engine=side("fear", "joy", 0.2))
    told = difference_sections(changed, "a", "b")
    assert "The decision changes: the reference says joy by 0.500, the engine fear by 0.200." in words(told, "answer")
    assert "No graph flips the decision alone; together they do." in words(told, "blame")
    alone = replace(changed, blame=(replace(found.blame[0], flips=True), replace(found.blame[1], flips=True)))
    assert "The decision flips with swin or with fusion alone." in words(difference_sections(alone, "a", "b"), "blame")


def test_blame(found: UtteranceDiff) -> None:
    told = difference_sections(found, "a", "b")
    assert words(told, "blame") == (
        "105.0 % of the logits' squared error comes from fusion: what others add makes up for some of it."
    )
    assert cells(told, "blame")[0] == ("swin", "0", "no", "−5.0 %", "0.00000")
    equal = replace(found, blame=tuple(replace(each, error_share=0.0) for each in found.blame))
    assert words(difference_sections(equal, "a", "b"), "blame") == "Both sides answer the same, to the last bit."


def test_stages(found: UtteranceDiff) -> None:
    assert cells(difference_sections(found, "a", "b"), "stages") == [
        ("logits", "fusion", "7", "0.100", "0.0100", "40.0 dB"),
        ("token states", "plm", "2 × 4", "0", "0", "exact"),
    ]


def test_faces(found: UtteranceDiff) -> None:
    told = difference_sections(found, "a", "b")
    assert words(told, "faces") == (
        "A face is kept if Σp² is above 0.2. Of 3 faces the reference keeps 2, the engine 1; 1 turned. "
        "1 more face without a place in the model."
    )
    assert [row[4:] for row in cells(told, "faces")] == [
        ("kept", "joy"),
        ("dropped", "joy"),
        ("kept → dropped", "joy → fear"),
    ]
    assert not [block for section in told for block in section.blocks if isinstance(block, Faces)]
    shown = difference_sections(found, "a", "b", pictures=True)
    (pictures,) = (block for section in shown for block in section.blocks if isinstance(block, Faces))
    assert [picture.state for picture in pictures.faces] == ["kept", "dropped", "turned"]
    assert pictures.faces[2].words == "2: kept → dropped, 0.2500 → 0.1500"
    none = replace(found, faces=tuple(replace(each, passed=False, kept=True) for each in found.faces))
    assert "None passes for the engine, so all are used." in words(difference_sections(none, "a", "b"), "faces")
    assert [s.name for s in difference_sections(replace(found, faces=()), "a", "b")] == ["answer", "stages", "blame"]


def test_the_page_escapes_what_it_was_told(found: UtteranceDiff) -> None:
    text = html_from_difference(found, "torch fp32", "trt fp16", "Bundle `a<b`.")
    assert "<title>dia&lt;1&gt;: trt fp16 against torch fp32</title>" in text
    assert "Is 1 &lt; 2 &amp; 3 &gt; 2?" in text
    assert "<code>a&lt;b</code>" in text
    assert text.count("<img ") == 3
    assert 'class="turned"' in text
