"""Scores against scikit-learn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fmmt_deploy.evaluation.scores import accuracy, class_scores, confusion_matrix, macro_f1, weighted_f1

CLASS = st.integers(0, 6)
PAIRS = st.lists(st.tuples(CLASS, CLASS), min_size=1, max_size=80)
FEW_CLASSES = st.lists(st.tuples(st.sampled_from([0, 5]), st.sampled_from([0, 3])), min_size=1, max_size=10)


@given(pairs=PAIRS | FEW_CLASSES)
@settings(max_examples=60, deadline=None)
def test_scores_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, decisions = np.array(pairs).T
    confusion = confusion_matrix(labels, decisions)
    every = list(range(7))
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, decisions, labels=every))
    scores = class_scores(confusion)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, decisions, labels=every, zero_division=0
    )
    np.testing.assert_allclose(scores.precision, precision, rtol=0, atol=1e-15)
    np.testing.assert_allclose(scores.recall, recall, rtol=0, atol=1e-15)
    np.testing.assert_allclose(scores.f1, f1, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(scores.support, support)
    weighted = metrics.f1_score(labels, decisions, average="weighted", zero_division=0)
    np.testing.assert_allclose(weighted_f1(confusion), weighted, rtol=0, atol=1e-12)
    macro = metrics.f1_score(labels, decisions, labels=every, average="macro", zero_division=0)
    np.testing.assert_allclose(macro_f1(confusion), macro, rtol=0, atol=1e-12)
    np.testing.assert_allclose(accuracy(confusion), metrics.accuracy_score(labels, decisions), rtol=0, atol=1e-15)


@given(pairs=st.lists(PAIRS, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_many_matrices_at_once_score_as_each_alone(pairs: list[list[tuple[int, int]]]) -> None:
    matrices = [confusion_matrix(*np.array(pair).T) for pair in pairs]
    for score in (weighted_f1, macro_f1, accuracy):
        np.testing.assert_array_equal(score(np.stack(matrices)), [score(matrix) for matrix in matrices])
