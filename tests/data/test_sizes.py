"""Sizes of features, read off a data set's files: the golden data's are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.architecture import Modality
from fmmt_deploy.data.features import Sizes
from fmmt_deploy.data.sizes import FeatureSizes, feature_sizes
from fmmt_deploy.errors import DataError
from tests.data.published import copy_published, edit_pickle, write_jsonl
from tests.golden import GOLDEN

BOTH = FeatureSizes(Sizes(14, 24), Sizes(6, 16))
VISION = FeatureSizes(None, Sizes(6, 16))
MODALITIES: tuple[tuple[Modality, FeatureSizes], ...] = (("T+A+V", BOTH), ("V", VISION))


@pytest.mark.parametrize(("modality", "expected"), MODALITIES)
def test_of_every_form(modality: Modality, expected: FeatureSizes, tmp_path: Path) -> None:
    assert feature_sizes(GOLDEN / "roberta", "test", modality) == expected
    folder = copy_published(tmp_path, with_dt=True)
    (dt,) = folder.rglob("*.dt")
    assert feature_sizes(dt, "test", modality) == expected
    for path in folder.rglob("*.pkl"):
        path.unlink()
    assert feature_sizes(folder, "test", modality) == expected


def test_a_vision_only_model_has_the_vision_features_of_its_own(tmp_path: Path) -> None:
    folder = copy_published(tmp_path)
    edit_pickle(folder, "meld_test_vision_utt.pkl", lambda arrays: arrays.update(vision=np.zeros((31, 9, 11), "f4")))
    assert feature_sizes(folder, "test", "T+A+V").vision == Sizes(9, 11)
    assert feature_sizes(folder, "test", "V") == VISION


def test_of_a_jsonl_the_longest_decides(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, lambda dialogues: dialogues[0]["utterances"].reverse())
    assert feature_sizes(path, "any", "T+A+V") == FeatureSizes(Sizes(20, 24), Sizes(2, 16))
    assert feature_sizes(tmp_path, "test", "V") == FeatureSizes(None, Sizes(2, 16))


def test_a_jsonl_of_other_features_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((2, 17), np.float32))

    def mixed(dialogues: list[Any]) -> None:
        dialogues[0]["utterances"][1]["vision"] = "other.npy"

    path = write_jsonl(tmp_path, mixed)
    with pytest.raises(DataError, match="line 1: b: vision has 17 numbers a row, those before it have 16"):
        feature_sizes(path, "any", "V")


def test_a_jsonl_without_a_modality_is_refused(tmp_path: Path) -> None:
    def without(dialogues: list[Any]) -> None:
        for dialogue in dialogues:
            for turn in dialogue["utterances"]:
                turn.pop("audio", None)

    path = write_jsonl(tmp_path, without)
    with pytest.raises(DataError, match="has no audio features"):
        feature_sizes(path, "any", "T+A+V")
    assert feature_sizes(path, "any", "V").vision == Sizes(2, 16)


@pytest.mark.parametrize("left", ["nothing", "context"])
def test_a_jsonl_without_utterances_says_so(left: str, tmp_path: Path) -> None:
    def context(dialogues: list[Any]) -> None:
        for dialogue in dialogues:
            for turn in dialogue["utterances"]:
                turn["target"] = False

    path = write_jsonl(tmp_path, context if left == "context" else list.clear)
    with pytest.raises(DataError, match="has no utterances to classify"):
        feature_sizes(path, "any", "T+A+V")


def test_a_missing_feature_file_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    (tmp_path / "v1.npy").unlink()
    with pytest.raises(DataError, match="line 1: a: vision is not there"):
        feature_sizes(path, "any", "V")


@pytest.mark.parametrize(
    "value", [None, "text", np.zeros((31, 6), "f4"), np.zeros((31, 6, 16), "i4"), np.zeros((31, 0, 16))]
)
def test_an_array_that_is_no_features_is_refused(tmp_path: Path, value: object) -> None:
    folder = copy_published(tmp_path)
    edit_pickle(folder, "meld_test_vision_utt.pkl", lambda arrays: arrays.update(vision=value))
    with pytest.raises(DataError, match="vision should be an array"):
        feature_sizes(folder, "test", "T+A+V")


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no train split"):
        feature_sizes(copy_published(tmp_path), "train", "T+A+V")
    with pytest.raises(DataError, match="is no folder"):
        feature_sizes(tmp_path / "absent", "train", "V")
