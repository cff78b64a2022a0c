"""Made dialogues: MELD's lengths, the same for the same seed, and their tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.workload import meld_shaped, tokens_of_dialogues
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import DataSet
from tests.models import TINY


def test_meld_shaped_dialogues_have_melds_lengths(tmp_path: Path) -> None:
    full = PRESETS["full"]
    dataset = meld_shaped(full, tmp_path, dialogues=60, faces=10)
    tokens = [len(d.tokens.input_ids) for d in dataset.dialogues if d.tokens is not None]
    counts = [u.vision_length for d in dataset.dialogues for u in d.utterances]
    assert np.mean(tokens) == pytest.approx(134, rel=0.1)  # MELD's test set: mean 134, longest 510
    assert max(tokens) <= 512
    assert len(counts) / 60 == pytest.approx(9.3, rel=0.1)
    assert np.mean(counts) == pytest.approx(10, rel=0.1)
    assert min(counts) >= 5
    assert max(counts) <= 15


def test_made_dialogues_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, two = (meld_shaped(PRESETS["tiny"], tmp_path, 2, 4, seed=3) for _ in range(2))
    for a, b in zip(one.dialogues, two.dialogues, strict=True):
        assert a.tokens is not None
        assert b.tokens is not None
        np.testing.assert_array_equal(a.tokens.input_ids, b.tokens.input_ids)
        assert [u.faces for u in a.utterances] == [u.faces for u in b.utterances]


def test_made_dialogues_are_named_with_their_numbers(tmp_path: Path) -> None:
    names = [meld_shaped(TINY["roberta"], tmp_path, dialogues=n, faces=n).source for n in (1, 2)]
    assert names == [
        "MELD-shaped: 1 dialogue, 1 face an utterance",
        "MELD-shaped: 2 dialogues, 2 faces an utterance",
    ]


def test_dataset_of_made_dialogues_is_in_order(tmp_path: Path) -> None:
    dataset: DataSet = meld_shaped(PRESETS["tiny"], tmp_path, 3, 1)
    assert dataset.order == tuple(u.id for d in dataset.dialogues for u in d.utterances)


def test_tokens_are_those_of_the_dialogues(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(bundle.manifest.architecture, tmp_path, 2, 2)
    own = [len(d.tokens.input_ids) for d in dataset.dialogues if d.tokens is not None]
    assert tokens_of_dialogues(bundle, dataset) == own
    unimodal = tiny_bundle("unimodal")
    assert tokens_of_dialogues(unimodal, meld_shaped(unimodal.manifest.architecture, tmp_path, 2, 2)) == [0, 0]
