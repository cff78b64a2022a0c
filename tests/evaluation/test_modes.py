"""The ways to treat noise, apart: means and pooled verdicts against NumPy, SciPy and scikit-learn."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

from fmmt_deploy.errors import DataError
from fmmt_deploy.evaluation.audit import audit
from fmmt_deploy.evaluation.modes import Asked, Draw, asked_from_dataset, mean_logits, modes_from_draws
from fmmt_deploy.pipeline.noise import gumbel_noise, no_noise
from fmmt_deploy.pipeline.run import Prediction
from fmmt_deploy.types import DataSet, Dialogue, FloatArray, Utterance
from tests.models import TINY

U, SEEDS = 120, 4
ASKED = Asked(
    tuple(f"u{i}" for i in range(U)),
    tuple(f"d{i // 6}" for i in range(U)),
    tuple(np.random.default_rng(0).integers(0, 7, U).tolist()),
)
ARCHITECTURE = TINY["unimodal"]


def answers(logits: FloatArray) -> list[Prediction]:
    return [Prediction(id_, row, ()) for id_, row in zip(ASKED.utterances, logits, strict=True)]


def runs(seed: int) -> FloatArray:
    """(K, U, 7), mostly right."""
    random = np.random.default_rng(seed)
    signal = 2 * np.eye(7)[list(ASKED.labels)]
    return (signal + random.standard_normal((SEEDS, U, 7))).astype(np.float32)


REFERENCE = runs(1)
ENGINE = (REFERENCE + 0.2 * np.random.default_rng(2).standard_normal(REFERENCE.shape)).astype(np.float32)


def f1(logits: FloatArray) -> float:
    return float(f1_score(ASKED.labels, logits.argmax(-1), average="weighted"))


def draws(count: int, reference: bool = True) -> list[Draw]:
    return [
        Draw(gumbel_noise(i), answers(ENGINE[i]), answers(REFERENCE[i]) if reference else None) for i in range(count)
    ]


def test_a_single_run_is_one_mode() -> None:
    (mode,) = modes_from_draws(
        ASKED, [Draw(no_noise, *map(answers, (ENGINE[0], REFERENCE[0])))], "none", (), ARCHITECTURE
    )
    assert (mode.mode, mode.seeds, mode.spread, mode.band) == ("none", (), None, None)
    assert mode.evaluation.weighted_f1 == pytest.approx(f1(ENGINE[0]))
    assert mode.reference_evaluation is not None
    assert mode.reference_evaluation.weighted_f1 == pytest.approx(f1(REFERENCE[0]))
    assert mode.equivalence is not None
    assert mode.equivalence.difference == pytest.approx(f1(ENGINE[0]) - f1(REFERENCE[0]))
    assert (mode.equivalence.dialogues, mode.equivalence.draws) == (20, 1)
    assert mode.audit is not None
    assert mode.audit.decision.crossed == mode.equivalence.changed > 0


def test_without_a_reference_nothing_is_judged() -> None:
    (mode,) = modes_from_draws(ASKED, draws(1, reference=False), "seeded", (0,), ARCHITECTURE)
    assert (mode.equivalence, mode.audit, mode.reference_evaluation, mode.seeds) == (None, None, None, (0,))
    seeded, averaged = modes_from_draws(ASKED, draws(3, reference=False), "seeded", (0, 1, 2), ARCHITECTURE)
    assert (seeded.equivalence, seeded.band, averaged.equivalence) == (None, None, None)
    assert seeded.spread is not None
    assert seeded.spread["weighted_f1"].mean == pytest.approx(np.mean([f1(run) for run in ENGINE[:3]]))


def test_several_seeds_are_judged_by_their_mean_and_beside_it_the_mean_of_the_draws() -> None:
    seeds = range(SEEDS)
    seeded, averaged = modes_from_draws(ASKED, draws(SEEDS), "seeded", seeds, ARCHITECTURE, margin=0.1, published=0.5)
    by_seed = [[f1(run) for run in side] for side in (REFERENCE, ENGINE)]
    assert seeded.equivalence is not None
    assert seeded.equivalence.draws == SEEDS
    assert seeded.equivalence.margin == 0.1
    assert seeded.equivalence.difference == pytest.approx(np.mean(by_seed[1]) - np.mean(by_seed[0]))
    assert seeded.equivalence.changed == (REFERENCE.argmax(2) != ENGINE.argmax(2)).sum()
    assert seeded.evaluation.weighted_f1 == pytest.approx(np.mean(by_seed[1]))
    assert np.sum(seeded.evaluation.confusion) == SEEDS * U
    assert seeded.band is not None
    assert seeded.band.values == pytest.approx(by_seed[0])
    assert seeded.band.engine_values == pytest.approx(by_seed[1])
    assert seeded.band.published == 0.5
    means = [softmax(side.astype(float), axis=2).mean(axis=0) for side in (REFERENCE, ENGINE)]
    assert averaged.mode == "mean"
    assert averaged.equivalence is not None
    assert averaged.equivalence.reference_f1 == pytest.approx(f1(means[0]))
    assert averaged.equivalence.f1 == averaged.evaluation.weighted_f1 == pytest.approx(f1(means[1]))
    assert (averaged.band, averaged.audit, averaged.spread) == (None, None, None)
    assert averaged.seeds == seeded.seeds == (0, 1, 2, 3)


def test_the_mean_of_the_draws_is_softmaxs() -> None:
    expected = np.log(softmax(REFERENCE.astype(float), axis=2).mean(axis=0))
    np.testing.assert_allclose(mean_logits(REFERENCE), expected, atol=1e-12)
    large = np.full((2, 1, 7), 1000, np.float32)
    np.testing.assert_allclose(mean_logits(large), np.log(1 / 7))


def test_the_audit_is_of_the_first_seed_with_its_noise() -> None:
    random = np.random.default_rng(5)
    faces = [random.standard_normal((2, U, 3, 7)).astype(np.float32) for _ in range(2)]

    def run(draw: int) -> Draw:
        sides = [
            [Prediction(id_, row, (0,), found) for id_, row, found in zip(ASKED.utterances, rows, own, strict=True)]
            for rows, own in zip((ENGINE[draw], REFERENCE[draw]), faces[draw], strict=True)
        ]
        return Draw(gumbel_noise(draw), *sides)

    made = [run(0), run(1)]
    assert made[0].reference is not None
    gate: dict[str, Any] = {"vision_length": ARCHITECTURE.vision_length, "tau": 2.0, "threshold": 0.3}
    expected = audit(made[0].reference, made[0].answers, ASKED.labels, **gate, noise=gumbel_noise(0))
    modes = modes_from_draws(ASKED, made, "seeded", (0, 1), ARCHITECTURE, tau=2.0, threshold=0.3)
    assert modes[0].audit == expected
    assert audit(made[0].reference, made[0].answers, ASKED.labels, **gate) != expected


def test_json_is_plain() -> None:
    for mode in modes_from_draws(ASKED, draws(2), "seeded", (0, 1), ARCHITECTURE):
        document = json.loads(json.dumps(mode.to_json(), allow_nan=False))
        assert set(document) == {
            *("mode", "seeds", "evaluation", "spread", "reference_evaluation", "band", "equivalence", "audit"),
        }
        assert document["equivalence"]["words"]


def made_dataset(labels: list[int | None]) -> DataSet:
    def utterance(i: int, label: int | None) -> Utterance:
        return Utterance(f"u{i}", i, label, (), None, 0, None, 0)

    first = Dialogue("d0", None, None, tuple(utterance(i, label) for i, label in enumerate(labels[:2])))
    second = Dialogue("d1", None, None, (utterance(2, labels[2]),))
    return DataSet("made", (first, second), ("u2", "u0", "u1"))


def test_utterances_are_asked_in_the_data_sets_order() -> None:
    asked = asked_from_dataset(made_dataset([4, 5, 6]))
    assert asked == Asked(("u2", "u0", "u1"), ("d1", "d0", "d0"), (6, 4, 5))
    with pytest.raises(DataError, match="u1"):
        asked_from_dataset(made_dataset([4, None, 6]))
