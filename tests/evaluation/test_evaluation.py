"""One run's scores: golden weighted F1 of the published code, scikit-learn's report, and what is refused."""

import json
import statistics

import numpy as np
import pytest
from sklearn.metrics import classification_report

from fmmt_deploy.errors import DataError, NotEquivalentError
from fmmt_deploy.evaluation import Evaluation, evaluate, over_seeds
from fmmt_deploy.types import EMOTIONS
from tests.golden import GOLDEN


def made_run(seed: int, size: int = 60) -> Evaluation:
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, 7, size).tolist()
    return evaluate([f"u{i}" for i in range(size)], labels, random.standard_normal((size, 7)).astype(np.float32))


@pytest.mark.parametrize("model", ["roberta", "bert"])
def test_golden_weighted_f1(model: str) -> None:
    """Expected from the published code's own evaluation."""
    expected = np.load(GOLDEN / model / "expected.npz")
    labels = expected["labels"].tolist()
    evaluation = evaluate([str(i) for i in range(len(labels))], labels, expected["logits"])
    assert evaluation.weighted_f1 == pytest.approx(float(expected["weighted_f1"]), abs=1e-12)
    assert sum(score.support for score in evaluation.classes) == len(labels)


def test_every_field_is_scikit_learns_report() -> None:
    random = np.random.default_rng(3)
    labels, logits = random.integers(0, 6, 90), random.standard_normal((90, 7)).astype(np.float32)
    report = classification_report(
        labels,
        logits.argmax(1),
        labels=list(range(7)),
        target_names=list(EMOTIONS),
        output_dict=True,
        zero_division=0,
    )
    evaluation = evaluate([f"u{i}" for i in range(90)], labels.tolist(), logits)
    for score in evaluation.classes:
        expected = report[score.emotion]
        assert [score.precision, score.recall, score.f1] == pytest.approx(
            [expected["precision"], expected["recall"], expected["f1-score"]], abs=1e-12
        )
        assert score.support == expected["support"]
    assert [score.emotion for score in evaluation.classes] == list(EMOTIONS)
    assert evaluation.macro_f1 == pytest.approx(report["macro avg"]["f1-score"], abs=1e-12)
    assert evaluation.accuracy == pytest.approx(np.mean(labels == logits.argmax(1)), abs=1e-12)
    assert json.loads(json.dumps(evaluation.to_json()))["weighted_f1"] == evaluation.weighted_f1


def test_equal_logits_decide_for_the_first() -> None:
    evaluation = evaluate(["a"], [2], np.array([[0, 0, 1, 1, 1, 0, 0]], np.float32))
    assert evaluation.confusion[2][2] == 1


def test_utterances_without_a_label_are_named() -> None:
    with pytest.raises(DataError, match="found none for 2: dia0_utt1, dia0_utt2"):
        evaluate(["dia0_utt0", "dia0_utt1", "dia0_utt2"], [0, None, 7], np.zeros((3, 7), np.float32))


def test_no_utterance_or_another_number_of_labels_is_refused() -> None:
    with pytest.raises(DataError, match="found 0 for 0"):
        evaluate([], [], np.zeros((0, 7), np.float32))
    with pytest.raises(DataError, match="found 1 for 2"):
        evaluate(["a", "b"], [1], np.zeros((2, 7), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = np.zeros((8, 7), np.float32)
    logits[1:7, 6] = value
    with pytest.raises(NotEquivalentError, match="6 of 8 utterances: u1, u2, u3, u4, u5 …"):
        evaluate([f"u{i}" for i in range(8)], [0] * 8, logits)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(NotEquivalentError, match=r"\(2, 7\), found \(2, 6\)"):
        evaluate(["a", "b"], [0, 1], np.zeros((2, 6), np.float32))


def test_spread_over_seeds() -> None:
    """Expected from Python's own statistics module."""
    runs = [made_run(seed) for seed in range(5)]
    spread = over_seeds(runs)
    assert set(spread) == {"weighted_f1", "macro_f1", "accuracy"} | {f"f1/{emotion}" for emotion in EMOTIONS}
    for name, values in (
        ("weighted_f1", [run.weighted_f1 for run in runs]),
        ("f1/joy", [run.classes[4].f1 for run in runs]),
    ):
        found = spread[name]
        assert found.mean == pytest.approx(statistics.mean(values), abs=1e-12)
        assert found.deviation == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert (found.lowest, found.highest, found.seeds) == (min(values), max(values), 5)
    assert json.loads(json.dumps(spread["accuracy"].to_json()))["seeds"] == 5


def test_a_single_seed_has_no_deviation() -> None:
    assert over_seeds([made_run(1)])["weighted_f1"].deviation == 0


def test_seeds_over_different_utterances_are_refused() -> None:
    with pytest.raises(DataError, match="found 2 that differ"):
        over_seeds([made_run(0), made_run(1, size=59)])
    with pytest.raises(DataError, match="at least one run"):
        over_seeds([])
