"""The verdict on two runs: scores by scikit-learn, intervals by SciPy and a plain loop, cases counted by hand."""

import json
import tracemalloc
from itertools import pairwise
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from fmmt_deploy.errors import DataError, NotEquivalentError, UsageError
from fmmt_deploy.evaluation.equivalence import equivalence
from fmmt_deploy.evaluation.verdict import Equivalence
from fmmt_deploy.types import EMOTIONS, FloatArray, IntArray
from tests.evaluation.planted import CLUSTERS, NAMES, UTTERANCE_IDS, Planted, onehot


def judged(
    labels: IntArray, reference: FloatArray, logits: FloatArray, clusters: IntArray, **options: Any
) -> Equivalence:
    ids = [f"u{i}" for i in range(len(labels))]
    return equivalence(ids, [f"d{c}" for c in clusters], labels.tolist(), reference, logits, **options)


def equal_runs(dialogues: int, length: int = 9) -> Equivalence:
    """Two runs that are the same, and half right."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, dialogues * length)
    logits = onehot(np.where(np.arange(len(labels)) % 2, labels, (labels + 1) % 7))
    return judged(labels, logits, logits, np.repeat(np.arange(dialogues), length))


def two_runs(seed: int = 4, size: int = 400) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    random = np.random.default_rng(seed)
    labels = random.choice(7, size, p=[0.4, 0.1, 0.05, 0.1, 0.15, 0.05, 0.15])
    reference = (2 * onehot(labels) + random.standard_normal((size, 7))).astype(np.float32)
    logits = (reference + 0.4 * random.standard_normal((size, 7))).astype(np.float32)
    return labels, reference, logits, np.sort(random.integers(0, 50, size))


def test_scores_are_scikit_learns() -> None:
    labels, reference, logits, clusters = two_runs()
    found = judged(labels, reference, logits, clusters)
    before, after = reference.argmax(1), logits.argmax(1)
    scores = [f1_score(labels, run, average="weighted") for run in (before, after)]
    assert [found.reference_f1, found.f1, found.difference] == pytest.approx([*scores, scores[1] - scores[0]])
    assert found.flips == tuple(map(tuple, confusion_matrix(before, after, labels=range(7)).tolist()))
    assert found.changed == len(found.changed_decisions) == (before != after).sum() > 20
    classes = [f1_score(labels, run, average=None, labels=range(7)) for run in (before, after)]
    assert [c.reference_f1 for c in found.classes] == pytest.approx(classes[0])
    assert [c.f1 for c in found.classes] == pytest.approx(classes[1])
    assert [c.difference for c in found.classes] == pytest.approx(classes[1] - classes[0])
    assert [(c.emotion, c.support) for c in found.classes] == list(zip(EMOTIONS, np.bincount(labels), strict=True))
    only = [(before == labels) & (after != labels), (before != labels) & (after == labels)]
    assert found.mcnemar is not None
    assert found.mcnemar.p_value == pytest.approx(binomtest(only[0].sum(), np.sum(only)).pvalue)
    assert (found.utterances, found.dialogues, found.draws) == (400, len(set(clusters)), 1)


def test_the_interval_is_that_of_a_plain_loop() -> None:
    """Dialogue by dialogue with scikit-learn's weighted F1; the unseen dialogue's cost counted out."""
    labels, reference, logits, clusters = two_runs(size=300)
    found = judged(labels, reference, logits, clusters)
    before, after = reference.argmax(1), logits.argmax(1)
    gained = (after == labels).astype(int) - (before == labels)
    net = [abs(gained[clusters == c].sum()) for c in set(clusters)]
    cost = (sum(n * n for n in net) + 9) / (sum(net) + 3)
    random, low, high = np.random.default_rng(1), [], []
    numbers = np.unique(clusters, return_inverse=True)[1]
    for _ in range(1000):
        shares = random.dirichlet(np.ones(numbers.max() + 2))
        weights = shares[numbers]
        score = [f1_score(labels, run, average="weighted", sample_weight=weights) for run in (before, after)]
        unseen = shares[-1] / (weights.sum() + shares[-1] * len(labels) / (numbers.max() + 1))
        seen = (score[1] - score[0]) * weights.sum() / (weights.sum() + shares[-1] * len(labels) / (numbers.max() + 1))
        low.append(seen - cost * unseen)
        high.append(seen + cost * unseen)
    width = found.interval.high - found.interval.low
    assert found.unseen_decisions == pytest.approx(cost)
    assert found.interval.low == pytest.approx(np.quantile(low, 0.05), abs=0.06 * width)
    assert found.interval.high == pytest.approx(np.quantile(high, 0.95), abs=0.06 * width)
    assert found.interval.confidence == pytest.approx(0.9)


def test_without_a_change_the_interval_is_that_of_clopper_and_pearson() -> None:
    """Equal runs bound the share of dialogues with another answer by 1 − 0.05^(1/D), each taken to cost 3 decisions."""
    for dialogues in (5, 20, 100):
        share = binomtest(0, dialogues).proportion_ci(0.9, "exact").high
        assert share == pytest.approx(1 - 0.05 ** (1 / dialogues))
        interval = equal_runs(dialogues).interval
        assert (interval.low, interval.high) == pytest.approx((-3 / 9 * share, 3 / 9 * share), rel=0.05)


@pytest.mark.parametrize("swapped", [False, True])
def test_margins_are_those_of_the_farther_end(swapped: bool) -> None:
    """All right on one side, every fifth wrong on the other: the far end is a loss, or a gain once they are swapped."""
    labels = np.random.default_rng(0).integers(0, 7, 400)
    sides = [onehot(labels), onehot(np.where(np.arange(400) % 5, labels, (labels + 1) % 7))]
    found = judged(labels, *(sides[::-1] if swapped else sides), np.arange(400) // 8)
    low, high, difference = found.interval.low, found.interval.high, found.difference
    far, near = (high, low) if swapped else (-low, -high)
    assert 0 < near < far == found.passing_margin
    assert found.detectable >= max(difference - low, high - difference)
    passing = judged(labels, *(sides[::-1] if swapped else sides), np.arange(400) // 8, margin=far + 1e-9)
    failing = judged(labels, *(sides[::-1] if swapped else sides), np.arange(400) // 8, margin=far - 1e-9)
    assert (passing.verdict, failing.verdict) == ("EQUIVALENT", "INCONCLUSIVE")


@given(pairs=st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_where_dialogues_change_alike_its_lower_end_is_not_above_clopper_and_pearson(pairs: int) -> None:
    """200 dialogues of one utterance, two classes that lose alike, so that F1 is accuracy."""
    labels = np.arange(200) % 2
    after = np.where(np.arange(200) < 2 * pairs, 1 - labels, labels)
    found = judged(labels, onehot(labels), onehot(after), np.arange(200), resamples=20_000)
    exact = binomtest(2 * pairs, 200).proportion_ci(0.9, "exact").high
    unseen = found.unseen_decisions - 1  # beyond the single decision that each of the others lost
    assert exact - 0.002 <= -found.interval.low <= exact + 0.015 * unseen + 0.002


def test_the_whole_test_set_without_a_change_is_equivalent_and_a_small_one_is_not() -> None:
    labels, reference, _ = (rows[0] for rows in Planted(0.0, 0.01).sets(1, 0))
    logits = onehot(reference)
    meld = equivalence(UTTERANCE_IDS, NAMES, labels.tolist(), logits, logits)
    assert (meld.verdict, meld.dialogues, meld.utterances, meld.changed) == ("EQUIVALENT", 280, 2610, 0)
    assert equal_runs(20).verdict == "INCONCLUSIVE"
    assert equal_runs(1, 5).verdict == "INCONCLUSIVE"
    assert equal_runs(1, 1).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("dialogues", "length"), [(1, 1000), (2, 1000), (10, 300)])
def test_a_few_long_dialogues_without_a_change_prove_nothing(dialogues: int, length: int) -> None:
    """One that was not seen is taken to lose a quarter, and up to 0.05^(1/D) of all may be so."""
    found = equal_runs(dialogues, length)
    share = binomtest(0, dialogues).proportion_ci(0.9, "exact").high
    assert found.verdict == "INCONCLUSIVE"
    assert found.unseen_decisions == length / 4
    assert found.interval.low == pytest.approx(-share / 4, rel=0.05)


def test_a_quarter_is_of_the_dialogue_that_an_utterance_is_usually_in() -> None:
    """One of 100 utterances and 100 of one: half of all are in the long one, so 50.5 on average, and not 2."""
    labels, clusters = np.arange(200) % 7, np.append(np.zeros(100, int), np.arange(1, 101))
    right = onehot(np.where(clusters % 2, labels, (labels + 1) % 7))
    assert judged(labels, right, right, clusters).unseen_decisions == 13  # a quarter, rounded


def test_no_margin_is_above_all_of_f1() -> None:
    """A single utterance, lost."""
    found = judged(np.ones(1, int), onehot(np.ones(1, int)), onehot(np.zeros(1, int)), np.zeros(1, int))
    assert found.detectable == 1.0


def test_the_margin_decides() -> None:
    labels, reference, logits, clusters = two_runs()
    found = judged(labels, reference, logits, clusters)
    ends = sorted(abs(end) for end in (found.interval.low, found.interval.high))
    assert found.passing_margin == ends[1]
    assert judged(labels, reference, logits, clusters, margin=ends[1] + 1e-6).verdict == "EQUIVALENT"
    assert judged(labels, reference, logits, clusters, margin=ends[1] - 1e-6).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("better", [False, True])
def test_wholly_outside_is_different(better: bool) -> None:
    labels, reference, _, clusters = two_runs()
    worse = np.where(np.arange(400)[:, None] % 3 == 0, np.roll(reference, 1, axis=1), reference)
    runs = (worse, reference) if better else (reference, worse)
    found = judged(labels, *runs, clusters)
    assert found.verdict == "DIFFERENT"
    near = min(abs(found.interval.low), abs(found.interval.high))
    assert judged(labels, *runs, clusters, margin=near - 1e-6).verdict == "DIFFERENT"
    assert judged(labels, *runs, clusters, margin=near + 1e-6).verdict == "INCONCLUSIVE"
    with pytest.raises(NotEquivalentError, match=r"DIFFERENT: .* by more than 0\.50 points"):
        found.raise_unless_equivalent()


def test_a_dialogue_that_was_not_seen_wins_no_more_than_is_wrong_in_any() -> None:
    """Four dialogues, each right in the reference and wrong in the engine: 0.05^¼ of all others at least, at 95 %."""
    labels = np.arange(32) % 7
    found = judged(labels, onehot(labels), onehot((labels + 1) % 7), np.repeat(np.arange(4), 8), margin=0.25)
    assert found.verdict == "DIFFERENT"
    assert found.interval.high == pytest.approx(-binomtest(4, 4).proportion_ci(0.9, "exact").low, abs=0.02)
    assert found.interval.low == pytest.approx(-1.0, abs=0.01)


def test_a_stricter_level_is_wider() -> None:
    labels, reference, logits, clusters = two_runs()
    runs = [judged(labels, reference, logits, clusters, alpha=alpha).interval for alpha in (0.2, 0.05, 0.01)]
    assert all(wide.low < narrow.low and wide.high > narrow.high for narrow, wide in pairwise(runs))


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = two_runs()
    assert judged(*runs, seed=1, resamples=300) == judged(*runs, seed=1, resamples=300)
    assert judged(*runs, seed=1, resamples=300).interval != judged(*runs, seed=2, resamples=300).interval


def test_the_order_of_utterances_does_not_matter() -> None:
    labels, reference, logits, clusters = two_runs()
    order = np.random.default_rng(0).permutation(len(labels))
    first = judged(labels, reference, logits, clusters).interval
    second = judged(labels[order], reference[order], logits[order], clusters[order]).interval
    assert (second.low, second.high) == pytest.approx((first.low, first.high))


def test_exchanging_the_runs_mirrors_the_interval() -> None:
    labels, reference, logits, clusters = two_runs()
    one, other = judged(labels, reference, logits, clusters), judged(labels, logits, reference, clusters)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.interval.low, other.interval.high) == pytest.approx((-one.interval.high, -one.interval.low), rel=0.05)


def test_a_changed_decision_is_described() -> None:
    reference = np.zeros((2, 7), np.float32)
    reference[:, 4], reference[:, 6] = 2.0, 1.5
    logits = reference.copy()
    logits[1, 6] = 3.0
    (change,) = equivalence(["a", "b"], ["d", "d"], [4, 6], reference, logits).changed_decisions
    assert (change.utterance, change.label, change.reference, change.decision) == ("b", "anger", "joy", "anger")
    assert change.reference_probability == pytest.approx(softmax(reference[1].astype(float))[4])
    assert change.probability == pytest.approx(softmax(logits[1].astype(float))[6])
    assert (change.margin, change.tie, change.draw) == (pytest.approx(0.5), False, 0)


def test_ties_are_counted_and_still_count_for_f1() -> None:
    """Reference logits 3e-5 apart can be turned by rounding, 5e-5 apart not."""
    labels = np.zeros(40, np.int64)
    for margin, ties in ((3e-5, 40), (5e-5, 0)):
        reference, logits = np.zeros((2, 40, 7), np.float32)
        reference[:, 0], logits[:, 1] = margin, margin
        found = judged(labels, reference, logits, np.arange(40))
        assert (found.changed, found.ties, found.f1) == (40, ties, 0.0)


def test_draws_of_the_noise_are_averaged() -> None:
    """F1 is the mean over draws; a set of draws that are all alike says as much as one."""
    labels, reference, logits, clusters = two_runs()
    once = judged(labels, reference, logits, clusters)
    thrice = judged(labels, np.stack([reference] * 3), np.stack([logits] * 3), clusters)
    assert (thrice.interval.low, thrice.interval.high) == pytest.approx((once.interval.low, once.interval.high))
    assert (thrice.draws, thrice.changed, thrice.mcnemar) == (3, 3 * once.changed, None)
    assert {change.draw for change in thrice.changed_decisions} == {0, 1, 2}
    mixed = judged(labels, np.stack([reference, logits]), np.stack([logits, logits]), clusters)
    assert mixed.difference == pytest.approx(once.difference / 2)
    with pytest.raises(NotEquivalentError, match="found 2 and 3 times"):
        judged(labels, np.stack([reference] * 2), np.stack([logits] * 3), clusters)


def test_the_detectable_margin_is_what_four_in_five_such_sets_pass_at() -> None:
    """Sets without a loss, judged at the margin that a typical one of them says it could detect."""
    runs = list(Planted(0.0, 0.01).judged(300, seed=3, resamples=1000))
    margin = float(np.median([run.detectable for run in runs]))
    passed = np.mean([run.passing_margin < margin for run in runs])
    assert 0.72 <= passed <= 0.90  # 0.8; three standard errors are 0.07, and a set's own estimate scatters


def test_a_whole_test_set_takes_no_time_and_little_memory() -> None:
    labels, reference, decisions = (rows[0] for rows in Planted(0.0, 0.01).sets(1, 0))
    sides = onehot(reference), onehot(decisions)
    tracemalloc.start()
    start = process_time()
    equivalence(UTTERANCE_IDS, NAMES, labels.tolist(), *sides)
    assert process_time() - start < 1  # 0.03 s on one core
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert CLUSTERS.max() == 279


def test_json_is_plain_and_has_the_words() -> None:
    found = judged(*two_runs())
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["words"] == found.words
    assert document["verdict"] == found.verdict
    assert document["interval"]["confidence"] == pytest.approx(0.9)
    assert document["changed_decisions"][0]["utterance"].startswith("u")
    assert len(document["flips"]) == 7


def test_what_can_not_be_judged_is_refused() -> None:
    labels, reference, logits, clusters = two_runs()
    for options, found in (({"margin": 0.0}, "found 0"), ({"margin": 1.0}, "found 100"), ({"alpha": 0.5}, r"0\.5")):
        with pytest.raises(UsageError, match=found):
            judged(labels, reference, logits, clusters, **options)
    broken = logits.copy()
    broken[7, 3] = np.nan
    with pytest.raises(NotEquivalentError, match="1 of 400 utterances: u7"):
        judged(labels, reference, broken, clusters)
    with pytest.raises(NotEquivalentError, match=r"\(400, 7\)"):
        judged(labels, reference, logits[:, :6], clusters)
    with pytest.raises(DataError, match="u1"):
        equivalence(["u0", "u1"], ["d", "d"], [0, None], reference[:2], logits[:2])
