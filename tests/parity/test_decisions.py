"""Decisions and kept faces: small cases counted by hand."""

import numpy as np
import pytest

from fmmt_deploy.parity import TOLERANCES, DecisionComparison, compare_decisions

FP32, FP16 = TOLERANCES["fp32"], TOLERANCES["fp16"]
SIZE = 400


def logits_of(classes: np.ndarray, margin: float = 1.0) -> np.ndarray:
    return (margin * np.eye(7)[classes]).astype(np.float32)


def with_changed(count: int, margin: float = 1.0) -> DecisionComparison:
    """The first `count` of 400 rows decide for the next class."""
    classes = np.arange(SIZE) % 6
    changed = classes.copy()
    changed[:count] += 1
    return compare_decisions(logits_of(classes, margin), logits_of(changed, margin), FP16)


def test_equal_decisions_pass() -> None:
    comparison = with_changed(0)
    assert comparison.passed
    assert (comparison.utterances, comparison.changed, comparison.kept_changed) == (SIZE, (), None)


def test_a_share_of_decisions_may_change() -> None:
    """99.5 % of 400 is 398."""
    assert with_changed(2).passed
    failed = with_changed(3)
    assert not failed.passed
    assert failed.changed == (0, 1, 2)
    assert failed.failures == ("decisions of 3 in 400 utterances differ (at least 99.5% must agree): rows 0, 1, 2",)
    assert with_changed(9).failures[0].endswith("rows 0, 1, 2, 3, 4 …")


def test_ties_are_told_apart() -> None:
    tied = with_changed(50, margin=3e-5)
    assert (tied.passed, tied.changed, len(tied.ties)) == (True, (), 50)
    assert not with_changed(50, margin=5e-5).passed


def test_kept_faces_must_be_the_same() -> None:
    logits = logits_of(np.zeros(10, int))
    reference = np.ones((10, 4), bool)
    kept = reference.copy()
    assert compare_decisions(logits, logits, FP32, reference, kept).kept_changed == ()
    kept[7, 1:3] = False
    comparison = compare_decisions(logits, logits, FP32, reference, kept)
    assert (comparison.passed, comparison.kept_changed, comparison.changed) == (False, (7,), ())
    assert comparison.failures[0].startswith("kept faces of 1 in 10 utterances differ (at least 100.0%")


@pytest.mark.parametrize("which", [0, 1])
def test_nan_decides_nothing(which: int) -> None:
    """Argmax of a row with NaN is the NaN: two broken runs would agree."""
    runs = [logits_of(np.zeros(3, int)), logits_of(np.zeros(3, int))]
    runs[which][0, 0] = np.nan
    comparison = compare_decisions(runs[0], runs[1], FP16)
    assert not comparison.passed
    assert comparison.utterances == 0


def test_nothing_to_compare_has_failed() -> None:
    none = np.zeros((0, 7), np.float32)
    assert "nothing to compare" in compare_decisions(none, none, FP32).failures[0]


@pytest.mark.parametrize(
    ("reference_kept", "kept"),
    [
        (np.ones((3, 2), bool), None),
        (None, np.ones((3, 2), bool)),
        (np.ones((3, 2), bool), np.ones((3, 3), bool)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool)),
    ],
)
def test_kept_faces_of_another_shape_have_failed(reference_kept: np.ndarray | None, kept: np.ndarray | None) -> None:
    logits = logits_of(np.zeros(3, int))
    assert "expected kept faces" in compare_decisions(logits, logits, FP32, reference_kept, kept).failures[0]


def test_logits_of_another_shape_have_failed() -> None:
    three, two = logits_of(np.zeros(3, int)), logits_of(np.zeros(2, int))
    assert compare_decisions(three, two, FP32).failures == ("expected logits (3, 7), found (2, 7)",)
