"""An epoch's plan: complete, reproducible, and the same steps for any number of processes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmmt_deploy.training.planning import Step, class_weights, idle_note, own_part, plan_faces, plan_target, shares
from fmmt_deploy.training.settings import FaceSettings, StepOrder, TargetSettings

ORDERS: tuple[StepOrder, ...] = ("utterances", "dialogues")
DIALOGUES = [row for row, turns in enumerate((3, 1, 12, 5, 2, 9, 4, 4)) for _ in range(turns)]


def rows_of(steps: tuple[Step, ...]) -> list[int]:
    return [int(row) for step in steps for rows in step for row in rows]


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(
    turns=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    size=st.integers(1, 25),
    accumulate=st.integers(1, 4),
)
def test_each_utterance_is_learnt_from_once(order: StepOrder, turns: list[int], size: int, accumulate: int) -> None:
    dialogues = [row for row, count in enumerate(turns) for _ in range(count)]
    made = TargetSettings(batch_size=size, accumulate=accumulate, order=order)
    steps = plan_target(dialogues, made, 1, 1)
    assert sorted(rows_of(steps)) == list(range(len(dialogues)))
    assert all(len(step) == accumulate for step in steps[:-1])
    assert all(1 <= len(step) <= accumulate for step in steps)
    for rows in (rows for step in steps for rows in step):
        own = {dialogues[row] for row in rows}
        assert len(rows) <= size or (order == "dialogues" and len(own) == 1)
        if order == "dialogues":
            assert len(rows) == sum(turns[dialogue] for dialogue in own), "a dialogue was cut"


def test_utterances_fill_every_pass() -> None:
    steps = plan_target(DIALOGUES, TargetSettings(batch_size=8, accumulate=2), 1, 1)
    assert [[len(rows) for rows in step] for step in steps] == [[8, 8], [8, 8], [8]]


@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_has_its_own_order_and_always_the_same(order: StepOrder) -> None:
    settings = TargetSettings(batch_size=4, order=order)
    first, again, second, seeded = (
        rows_of(plan_target(DIALOGUES, settings, seed, epoch)) for seed, epoch in ((1, 1), (1, 1), (1, 2), (2, 1))
    )
    assert first == again
    assert first not in (second, seeded)
    assert first != sorted(first)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_what_one_would_take(order: StepOrder, processes: int) -> None:
    settings = TargetSettings(batch_size=5, accumulate=3, order=order)
    weights = np.random.default_rng(0).uniform(0.1, 3, len(DIALOGUES)).astype(np.float32)
    for step in plan_target(DIALOGUES, settings, 1, 1):
        expected = weights[np.concatenate(step)] / len(np.concatenate(step))
        parts = [shares(step, weights, rank, processes) for rank in range(processes)]
        for index, rows in enumerate(step):
            own = [part[index] for part in parts]
            real = [share for share in own if share.weights.any()]
            np.testing.assert_array_equal(np.concatenate([share.rows for share in real]), rows)
            assert max(len(share.rows) for share in own) - min(len(share.rows) for share in own) <= 1
            assert len(real) == min(len(rows), processes)
        found = np.concatenate([share.weights for index in range(len(step)) for share in (p[index] for p in parts)])
        np.testing.assert_allclose(found[found > 0], expected, rtol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_balanced_emotions_count_alike_over_an_epoch_however_small_its_steps(accumulate: int) -> None:
    # Divided by the weights of its own step, a lone utterance would count 1 whatever its emotion.
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(7), (40, 12, 4, 8, 16, 8, 24)))
    weights = class_weights(labels, "balanced")[labels]
    steps = plan_target(range(len(labels)), TargetSettings(batch_size=1, accumulate=accumulate), 1, 1)
    counted = np.zeros(7)
    for step in steps:
        for share in shares(step, weights, 0, 1):
            counted[labels[share.rows[0]]] += share.weights[0]
    np.testing.assert_allclose(counted, len(steps) / 7, rtol=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 6], np.int64)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(class_weights(labels, "balanced"), expected, rtol=1e-6)
    np.testing.assert_array_equal(class_weights(labels, "none"), np.ones(7))


def test_an_emotion_that_never_occurs_has_no_weight() -> None:
    weights = class_weights(np.array([0, 0, 3], np.int64), "balanced")
    np.testing.assert_allclose(weights, [3 / 14, 0, 0, 3 / 7, 0, 0, 0], rtol=1e-6)


def test_all_faces_in_steps_of_a_batch() -> None:
    settings = FaceSettings(batch_size=10)
    steps = plan_faces(34, settings, 1, 1)
    assert [len(rows) for rows in steps] == [10, 10, 10, 4]
    assert sorted(np.concatenate(steps).tolist()) == list(range(34))
    assert np.concatenate(plan_faces(34, settings, 1, 2)).tolist() != np.concatenate(steps).tolist()


@pytest.mark.parametrize(("count", "size", "expected"), [(21, 10, [10, 11]), (22, 10, [10, 10, 2]), (1, 10, [1])])
def test_no_step_of_a_single_face_behind_others(count: int, size: int, expected: list[int]) -> None:
    assert [len(rows) for rows in plan_faces(count, FaceSettings(batch_size=size), 1, 1)] == expected


def test_no_step_too_small_to_be_shared() -> None:
    sizes = [len(rows) for rows in plan_faces(150 * 3 + 17, FaceSettings(), 1, 1)]
    assert sizes == [150, 150, 167]


def test_a_limit_draws_other_faces_each_epoch() -> None:
    settings = replace(FaceSettings(batch_size=10), limit=25)
    first, second = (np.concatenate(plan_faces(100, settings, 1, epoch)) for epoch in (1, 2))
    assert len(set(first.tolist())) == len(set(second.tolist())) == 25
    assert set(first.tolist()) != set(second.tolist())


def test_parts_are_as_even_as_it_goes() -> None:
    parts = [own_part(np.arange(10), rank, 4).tolist() for rank in range(4)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("size", "accumulate", "processes", "said"),
    [
        (1, 4, 2, "batch_size=2 with target.accumulate=2 "),
        (1, 4, 3, "batch_size=4 with target.accumulate=1 "),
        (1, 4, 8, "batch_size=4 with target.accumulate=1 "),
        (2, 1, 4, "Fewer processes"),
    ],
)
def test_processes_that_can_not_help_are_told_of(size: int, accumulate: int, processes: int, said: str) -> None:
    settings = TargetSettings(batch_size=size, accumulate=accumulate)
    assert said in idle_note(settings, processes)
    assert idle_note(settings, size) == ""
    assert idle_note(replace(settings, order="dialogues"), processes) == ""
