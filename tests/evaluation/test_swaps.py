"""The swap matrix on planted mixtures: F1 by scikit-learn, shares by all orders, blame by construction."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.errors import DataError
from fmmt_deploy.evaluation.shapley import shapley_shares
from fmmt_deploy.evaluation.significance import Interval, clustered_bootstrap_interval
from fmmt_deploy.evaluation.swapped import SwappedRuns, swapped_runs
from fmmt_deploy.evaluation.swaps import SwapMatrix, swap_matrix
from fmmt_deploy.evaluation.swaps_words import blamed, words_about
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import DataSet, Dialogue, GraphName, Utterance
from tests.parity.faults import Outputs, spoilt
from tests.pipeline.conversations import dataset, texts, utterance

GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion")
ROWS = tuple(product(("reference", "engine"), repeat=3))
U, DIALOGUES = 600, 60
LABELS = np.random.default_rng(0).integers(0, 7, U)


def data(labels: Sequence[int | None], dialogues: int = DIALOGUES) -> DataSet:
    """Utterances with these labels, as many in each dialogue."""
    each = len(labels) // dialogues
    made = [
        Dialogue(
            f"d{d}",
            None,
            None,
            tuple(Utterance(f"u{d * each + i}", i, labels[d * each + i], (), None, 0, None, 0) for i in range(each)),
        )
        for d in range(dialogues)
    ]
    return dataset(made)


def runs_of(decide: Callable[[frozenset[str]], np.ndarray], graphs: tuple[GraphName, ...] = GRAPHS) -> SwappedRuns:
    """Mixtures from what is decided when some graphs are the engine's."""
    rows = tuple(product(("reference", "engine"), repeat=len(graphs)))
    answers = []
    for row in rows:
        decisions = decide(frozenset(g for g, side in zip(graphs, row, strict=True) if side == "engine"))
        logits = np.eye(7, dtype=np.float32)[decisions]
        answers.append(tuple(Prediction(f"u{i}", each, ()) for i, each in enumerate(logits)))
    return SwappedRuns(graphs, rows, tuple(answers))


def wrong(places: Mapping[str, Sequence[int]]) -> Callable[[frozenset[str]], np.ndarray]:
    """A perfect reference; each graph of the engine gets some utterances wrong."""

    def decide(engine: frozenset[str]) -> np.ndarray:
        decisions = LABELS.copy()
        for graph in engine & set(places):
            decisions[list(places[graph])] = (LABELS[list(places[graph])] + 1) % 7
        return decisions

    return decide


def matrix(places: Mapping[str, Sequence[int]]) -> SwapMatrix:
    return swap_matrix(runs_of(wrong(places)), data(LABELS.tolist()))


def by_all_orders(values: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Shapley's definition, word for word."""
    shares = dict.fromkeys(GRAPHS, 0.0)
    for order in permutations(GRAPHS):
        for place, graph in enumerate(order):
            shares[graph] += (values[frozenset(order[: place + 1])] - values[frozenset(order[:place])]) / 6
    return shares


def test_shares_are_shapley_s() -> None:
    rng = np.random.default_rng(0)
    subsets = [frozenset(g for g, side in zip(GRAPHS, row, strict=True) if side == "engine") for row in ROWS]
    order = rng.permutation(8)
    values = rng.standard_normal((8, 5))
    shares = shapley_shares([[g in subsets[i] for g in GRAPHS] for i in order], values[order])
    assert shares.shape == (3, 5)
    for column in range(5):
        expected = by_all_orders({subset: values[i, column] for i, subset in enumerate(subsets)})
        assert shares[:, column] == pytest.approx([expected[g] for g in GRAPHS])
    np.testing.assert_allclose(shares.sum(axis=0), values[-1] - values[0])
    assert shapley_shares([[False], [True]], np.array([0.25, 1.0])).tolist() == [0.75]


def test_every_row_is_scored_and_shares_add_up() -> None:
    """Mistakes that overlap, and swin's undone by fusion's, so that no graph's effect is a plain difference."""
    rng = np.random.default_rng(1)
    chosen = {graph: rng.random(U) < 0.2 for graph in GRAPHS}

    def decide(engine: frozenset[str]) -> np.ndarray:
        shift = sum((chosen[g] * (-1 if g == "fusion" else 1) for g in engine), np.zeros(U, int))
        return (LABELS + shift) % 7

    found = swap_matrix(runs_of(decide), data(LABELS.tolist()))
    f1 = {}
    changed = {}
    for row, sides in zip(found.rows, ROWS, strict=True):
        engine = frozenset(g for g, side in zip(GRAPHS, sides, strict=True) if side == "engine")
        decisions = decide(engine)
        f1[engine] = f1_score(LABELS, decisions, average="weighted")
        changed[engine] = float((decisions != LABELS).sum())
        assert row.sides == dict(zip(GRAPHS, sides, strict=True))
        assert (row.f1, row.difference) == pytest.approx((f1[engine], f1[engine] - 1))
        assert row.changed == changed[engine]
        assert row.error == pytest.approx(np.sqrt(2 * (decisions != LABELS).mean() / 7))
    assert found.shares == pytest.approx(by_all_orders(f1))
    assert found.changed_shares == pytest.approx(by_all_orders(changed))
    assert sum(found.shares.values()) == pytest.approx(found.rows[-1].difference)
    assert sum(found.changed_shares.values()) == pytest.approx(found.rows[-1].changed)
    assert sum(found.error_shares.values()) == pytest.approx(1)


def test_errors_that_add_up_are_shared_by_projection() -> None:
    """Where a graph's effect on the logits does not depend on the others, its share is the inner product with all."""
    rng = np.random.default_rng(0)
    effects = {graph: rng.standard_normal((U, 7)) * size for graph, size in zip(GRAPHS, (1, 3, 0.5), strict=True)}
    answers = []
    for sides in ROWS:
        total = sum((effects[g] for g, side in zip(GRAPHS, sides, strict=True) if side == "engine"), np.zeros((U, 7)))
        answers.append(tuple(Prediction(f"u{i}", row, ()) for i, row in enumerate(total.astype(np.float32))))
    found = swap_matrix(SwappedRuns(GRAPHS, ROWS, tuple(answers)), data(LABELS.tolist()))
    whole = sum(effects.values())
    expected = {graph: float((effect * whole).sum() / (whole**2).sum()) for graph, effect in effects.items()}
    assert found.error_shares == pytest.approx(expected, rel=1e-4)
    assert "squared error 8" in found.words
    assert "comes from plm" in found.words


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_graph_that_is_off_is_blamed(graph: GraphName) -> None:
    found = matrix({graph: range(0, U, 20)})
    others = [g for g in GRAPHS if g != graph]
    assert found.shares[graph] == pytest.approx(found.rows[-1].difference)
    assert [found.shares[g] for g in others] == [0, 0]
    assert found.intervals[graph].high < 0
    assert [(found.intervals[g].low, found.intervals[g].high) for g in others] == [(0, 0), (0, 0)]
    assert found.words.startswith(f"{graph} for −5.0")
    assert "is to blame: of −5.0" in found.words
    assert "30 decisions changed" in found.words


def test_two_can_be_to_blame_the_worse_comes_first() -> None:
    found = matrix({"swin": range(0, U, 50), "fusion": range(1, U, 10)})
    assert found.words.startswith("fusion for −10.")
    assert " and swin for −2.0" in found.words
    assert "are to blame: of −12." in found.words


def test_better_is_no_blame() -> None:
    right = wrong({"swin": range(0, U, 20)})
    found = swap_matrix(
        runs_of(lambda engine: right(frozenset({"swin"} if not engine & {"swin"} else ()))), data(LABELS.tolist())
    )
    assert found.rows[-1].difference > 0
    assert "is the cause: of +" in found.words


def test_who_made_it_less_bad_is_not_to_blame() -> None:
    shares: Mapping[GraphName, float] = {"swin": -0.05, "plm": 0.02, "fusion": -0.001}
    surely = {"swin": Interval(-0.06, -0.04, 0.95), "plm": Interval(0.01, 0.03, 0.95)}
    assert blamed(-0.031, shares, {**surely, "fusion": Interval(-0.003, 0.001, 0.95)}) == ("swin",)
    assert blamed(0.031, shares, {**surely}) == ("plm",)


def test_nobody_is_blamed_for_chance() -> None:
    found = matrix({"plm": [0], "swin": [20]})
    assert found.words.startswith("2 decisions changed, but nobody can be blamed: no graph's share in the difference")
    assert matrix({}).words == "No decision changed, so nobody is to blame."


@pytest.mark.parametrize(("changed", "told"), [(5, False), (6, True)])
def test_a_handful_of_changes_blames_nobody(changed: int, told: bool) -> None:
    """All of n by a coin's toss: 2^(1 - n) (SciPy: binomtest(5, 5).pvalue is 1/16, of 6 it is 1/32)."""
    assert (binomtest(changed, changed).pvalue < 0.05) == told
    shares: Mapping[GraphName, float] = {"plm": -0.02}
    words = words_about(-0.02, changed, shares, {"plm": Interval(-0.03, -0.01, 0.95)}, {"plm": 0.0})
    assert ("is to blame" in words) == told
    assert ("nobody can be blamed" in words) != told


def test_a_single_dialogue_says_nothing_about_chance() -> None:
    found = swap_matrix(runs_of(wrong({"plm": range(300)})), data(LABELS.tolist(), dialogues=1))
    assert found.intervals == {}
    assert "nobody can be blamed: no graph's share in the difference of −" in found.words
    assert "on a single dialogue" in found.words


def test_the_interval_of_the_only_graph_is_that_of_the_difference() -> None:
    """The clustered bootstrap of `significance`, with the same seed."""
    decide = wrong({"unimodal": range(0, U, 7)})
    found = swap_matrix(runs_of(decide, ("unimodal",)), data(LABELS.tolist()), seed=3)
    names = np.repeat([f"d{i}" for i in range(DIALOGUES)], U // DIALOGUES)
    clusters = np.unique(names, return_inverse=True)[1]
    expected = clustered_bootstrap_interval(LABELS, LABELS, decide(frozenset({"unimodal"})), clusters, seed=3)
    assert [row.sides for row in found.rows] == [{"unimodal": "reference"}, {"unimodal": "engine"}]
    assert (found.intervals["unimodal"].low, found.intervals["unimodal"].high) == pytest.approx(
        (expected.low, expected.high)
    )
    assert found.words.startswith("unimodal for −")
    assert "squared error" not in found.words


def test_it_is_plain_json() -> None:
    shown = json.loads(json.dumps(matrix({"plm": range(0, U, 20)}).to_json()))
    assert {"rows", "shares", "words"} <= set(shown)
    assert len(shown["rows"]) == 8
    assert set(shown["rows"][0]) == {"swin", "plm", "fusion", "f1", "difference", "changed", "error"}
    assert shown["rows"][1]["fusion"] == "engine"
    assert set(shown["intervals"]["plm"]) == {"low", "high", "confidence"}


def test_labels_are_needed() -> None:
    with pytest.raises(DataError, match="label"):
        swap_matrix(runs_of(wrong({})), data([None, *LABELS[1:].tolist()]))


def test_a_real_engine_whose_plm_is_off(tiny_bundle: Callable[[str], Bundle]) -> None:
    """Labels are the reference's own decisions; what `plm` says is turned upside down."""
    bundle = tiny_bundle("roberta")
    rng = np.random.default_rng(0)
    talks = dataset(
        [
            Dialogue(f"d{n}", texts(rng, 2, 6, ()), None, tuple(utterance(rng, f"d{n}", i, 0, []) for i in range(2)))
            for n in range(24)
        ]
    )

    def turned(outputs: Outputs) -> Outputs:
        return {name: -4 * array for name, array in outputs.items()}

    with open_engines(bundle, "ort", threads=1) as engines:
        decided = {answer.utterance: int(answer.logits.argmax()) for answer in Pipeline(bundle, engines).run(talks)}
        labelled = dataset(
            [
                replace(d, utterances=tuple(replace(u, label=decided[u.id]) for u in d.utterances))
                for d in talks.dialogues
            ]
        )
        found = swap_matrix(
            swapped_runs(bundle, engines, spoilt(engines, GRAPHS, {"plm": turned}), labelled), labelled, seed=1
        )
    assert found.rows[0].f1 == 1
    assert found.shares["plm"] == pytest.approx(found.rows[-1].difference) != 0
    assert "plm for −" in found.words
    assert "Of the logits' mean squared error 100% comes from plm." in found.words
