"""The best epoch's scores: without noise, and spread over five seeds of it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.training.scoring import NOISE_SEEDS, score_split
from fmmt_deploy.training.validation import answers, noise_of
from fmmt_deploy.types import Utterance
from tests.golden import GOLDEN
from tests.models import TINY, tiny_source


def few_faces(utterance: Utterance) -> Utterance:
    """At most two, for speed."""
    assert utterance.vision is not None
    rows, length = utterance.vision.copy(), min(2, utterance.vision_length)
    rows[length:] = 0
    return replace(utterance, faces=utterance.faces[:2], vision=rows, vision_length=length)


def test_scores_are_scikit_learns_of_each_seed() -> None:
    source, whole = tiny_source("roberta"), read_data(GOLDEN / "roberta", "test", TINY["roberta"])
    dialogues = tuple(replace(d, utterances=tuple(map(few_faces, d.utterances))) for d in whole.dialogues[:2])
    utterances = [utterance for dialogue in dialogues for utterance in dialogue.utterances]
    dataset = replace(whole, dialogues=dialogues, order=tuple(utterance.id for utterance in utterances))
    truth = [utterance.label for utterance in utterances]

    def decided(seed: int | None) -> np.ndarray:
        noise = noise_of("none", 0) if seed is None else noise_of("gumbel", seed)
        return answers(source.model, source.tokenizer, dataset, noise).argmax(axis=1)

    found = score_split(source.model, source.tokenizer, dataset, "cpu")
    assert found.plain.weighted_f1 == pytest.approx(f1_score(truth, decided(None), average="weighted"))
    noisy = [decided(seed) for seed in range(5)]
    assert len({each.tobytes() for each in noisy}) > 1
    assert found.gumbel is not None
    for name, score in {
        "weighted_f1": lambda each: f1_score(truth, each, average="weighted"),
        "accuracy": lambda each: accuracy_score(truth, each),
    }.items():
        values = [score(each) for each in noisy]
        assert found.gumbel[name].seeds == len(NOISE_SEEDS) == 5
        assert found.gumbel[name].mean == pytest.approx(np.mean(values))
        assert found.gumbel[name].deviation == pytest.approx(np.std(values, ddof=1))
    document = found.to_json()
    assert document["none"] == found.plain.to_json()
    assert document["gumbel"]["seeds"] == [0, 1, 2, 3, 4]  # type: ignore[index]


def test_a_vision_only_model_has_no_noise() -> None:
    source = tiny_source("unimodal")
    found = score_split(source.model, None, read_data(GOLDEN / "roberta", "test", TINY["unimodal"]), "cpu")
    assert found.gumbel is None
    assert found.to_json()["gumbel"] is None
