"""Two runs compared: small cases counted by hand, F1 by scikit-learn, and each reason to refuse made to happen."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

from fmmt_deploy.errors import DataError, NotEquivalentError
from fmmt_deploy.evaluation import EQUIVALENCE_RULES, Comparison, EquivalenceRule, compare
from fmmt_deploy.evaluation.comparison import Precision

STRICT = EquivalenceRule(max_changed_share=0, max_f1_drop=0)
SIZE = 1000
IDS = [f"u{i}" for i in range(SIZE)]
LABELS = np.random.default_rng(0).integers(0, 7, SIZE).tolist()
LOGITS = np.random.default_rng(1).standard_normal((SIZE, 7)).astype(np.float32)


def right_logits(scale: float = 1.0) -> np.ndarray:
    """Logits that decide every utterance rightly."""
    return (scale * np.eye(7)[LABELS]).astype(np.float32)


def with_wrong(count: int, margin: float = 1.0) -> Comparison:
    """A perfect reference against a run that decides the first `count` utterances wrongly."""
    logits = right_logits(margin)
    logits[np.arange(count), (np.array(LABELS[:count]) + 1) % 7] = 2 * margin
    return compare(IDS, LABELS, right_logits(margin), logits, EQUIVALENCE_RULES["fp16"], resamples=50)


def test_equal_runs_are_equivalent_by_the_strictest_rule() -> None:
    comparison = compare(IDS, LABELS, LOGITS, LOGITS.copy(), STRICT)
    assert comparison.equivalent
    assert (comparison.changed, comparison.ties, comparison.f1_difference) == ((), (), 0.0)
    assert comparison.mcnemar.p_value == 1.0
    comparison.raise_unless_equivalent()


def test_a_changed_decision_is_described() -> None:
    reference = np.zeros((2, 7), np.float32)
    reference[:, 4], reference[:, 6] = 2.0, 1.5
    logits = reference.copy()
    logits[1, 6] = 3.0
    (changed,) = compare(["a", "b"], [4, 6], reference, logits, STRICT).changed
    assert (changed.utterance, changed.label, changed.reference, changed.decision) == ("b", "anger", "joy", "anger")
    assert changed.reference_probability == pytest.approx(softmax(reference[1].astype(float))[4])
    assert changed.probability == pytest.approx(softmax(logits[1].astype(float))[6])
    assert changed.margin == pytest.approx(0.5)


def test_differences_are_run_minus_reference() -> None:
    logits = LOGITS.copy()
    logits[:200] = right_logits()[:200]
    comparison = compare(IDS, LABELS, LOGITS, logits, STRICT)
    expected = [f1_score(LABELS, run.argmax(1), average="weighted") for run in (LOGITS, logits)]
    assert [comparison.reference_f1, comparison.f1] == pytest.approx(expected, abs=1e-12)
    assert comparison.f1_difference == pytest.approx(expected[1] - expected[0], abs=1e-12)
    assert 0 < comparison.f1_interval.low < comparison.f1_difference < comparison.f1_interval.high
    assert comparison.mcnemar.only_reference_right == 0
    assert comparison.mcnemar.only_candidate_right == len(comparison.changed) > 150
    assert comparison.mcnemar.p_value < 1e-30


def test_the_share_of_changed_decisions_is_judged() -> None:
    """5 in 1,000 is what fp16 may change; half a per cent is not more than half a per cent."""
    rule = EquivalenceRule(max_changed_share=0.005, max_f1_drop=1.0)
    for count, equivalent in ((5, True), (6, False)):
        logits = LOGITS.copy()
        logits[np.arange(count), (LOGITS[:count].argmax(1) + 1) % 7] = 9.0
        comparison = compare(IDS, LABELS, LOGITS, logits, rule, resamples=50)
        assert comparison.equivalent is equivalent
        assert comparison.changed_share == count / 1000
    with pytest.raises(NotEquivalentError, match=r"6 of 1000 decisions changed \(0\.60%, allowed 0\.50%\)"):
        comparison.raise_unless_equivalent()


def test_a_drop_of_f1_is_judged_alone() -> None:
    comparison = with_wrong(4)
    assert comparison.changed_share == 0.004
    assert not comparison.equivalent
    with pytest.raises(NotEquivalentError, match=r"weighted F1 dropped by 0\.00\d+ \(allowed 0\.00250\)"):
        comparison.raise_unless_equivalent()
    assert with_wrong(1).equivalent


def test_ties_are_told_apart_and_not_judged() -> None:
    """Reference logits 3e-5 apart can be turned by rounding, 5e-5 apart not."""
    tied = with_wrong(40, margin=3e-5)
    assert tied.equivalent
    assert (len(tied.changed), len(tied.ties)) == (0, 40)
    assert tied.f1_difference < -0.03
    assert tied.judged_f1_difference == 0
    real = with_wrong(40, margin=5e-5)
    assert (len(real.changed), len(real.ties), real.equivalent) == (40, 0, False)
    assert real.judged_f1_difference == real.f1_difference


def test_the_rules_allow_the_published_agreement() -> None:
    """performance.md's goals: float32 99.9 %, FP16 99.5 %, INT8 98 % of decisions; a rule is never stricter at less."""
    shares: Mapping[Precision, float] = {"fp32": 0.001, "fp16": 0.005, "int8": 0.02}
    assert {name: EQUIVALENCE_RULES[name].max_changed_share for name in shares} == shares
    ordered = [EQUIVALENCE_RULES[name] for name in ("fp32", "fp16", "bf16", "int8")]
    drops = [rule.max_f1_drop for rule in ordered]
    assert drops == sorted(drops)
    assert len({rule.tie_margin for rule in ordered}) == 1


def test_json_is_plain() -> None:
    report = json.loads(json.dumps(with_wrong(6).to_json(), allow_nan=False))
    assert report["equivalent"] is False
    assert report["changed_share"] == 0.006
    assert report["changed"][0]["utterance"] == "u0"


@pytest.mark.parametrize("which", [0, 1])
def test_logits_that_are_not_finite_are_refused(which: int) -> None:
    runs = [LOGITS.copy(), LOGITS.copy()]
    runs[which][7, 3] = np.nan
    with pytest.raises(NotEquivalentError, match="1 of 1000 utterances: u7"):
        compare(IDS, LABELS, runs[0], runs[1], STRICT)


def test_unlabelled_utterances_are_refused() -> None:
    with pytest.raises(DataError, match="u1"):
        compare(["u0", "u1"], [0, None], LOGITS[:2], LOGITS[:2], STRICT)
