"""Data that a bundle was calibrated on are found again by what they hold, and said."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.content import content_of, text_from_digests
from fmmt_deploy.selection.calibrated import overlap_warnings
from fmmt_deploy.types import DataSet
from tests.pipeline.conversations import conversations, dataset

Bundles = Callable[[str], Bundle]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Without faces, which are of the same few images in every dialogue."""
    folder = tmp_path / "faces"
    folder.mkdir()
    return dataset(
        [
            replace(d, utterances=tuple(replace(u, faces=(), vision_length=0) for u in d.utterances))
            for d in conversations(folder)
        ]
    )


@pytest.fixture
def bundle(tiny_bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle whose receipts lie elsewhere."""
    bundle = tiny_bundle("roberta")
    (tmp_path / "receipts").mkdir()
    monkeypatch.setattr(bundle, "path", tmp_path)
    return bundle


def receipt(bundle: Bundle, name: str, data: DataSet) -> None:
    digests = text_from_digests(digest for content in content_of(data) for digest in content.digests)
    document = {"schema": "x/1", "coverage": {"source": "meld", "digests": digests}}
    (bundle.path / "receipts" / f"calibration-{name}.json").write_text(json.dumps(document))


def test_no_receipts_no_warnings(bundle: Bundle, data: DataSet) -> None:
    assert overlap_warnings(bundle, data) == ()


def test_the_same_data_are_found(bundle: Bundle, data: DataSet) -> None:
    first, rest = dataset(data.dialogues[:1]), dataset(data.dialogues[1:])
    receipt(bundle, "swin-int8", first)
    receipt(bundle, "plm-int8", rest)
    (warning,) = overlap_warnings(bundle, first)
    assert warning.startswith("5 of 5 utterances were calibrated on (swin-int8)")
    assert "judge on another split" in warning
    assert len(overlap_warnings(bundle, data)) == 2


def test_graphs_calibrated_on_the_same_are_told_once(bundle: Bundle, data: DataSet) -> None:
    first = dataset(data.dialogues[:1])
    receipt(bundle, "plm-int8", first)
    receipt(bundle, "swin-int8", first)
    (warning,) = overlap_warnings(bundle, first)
    assert warning.startswith("5 of 5 utterances were calibrated on (plm-int8, swin-int8)")


def test_other_data_are_not(bundle: Bundle, data: DataSet) -> None:
    receipt(bundle, "swin-int8", dataset(data.dialogues[1:2]))
    assert overlap_warnings(bundle, dataset(data.dialogues[3:])) == ()


@pytest.mark.parametrize("text", ["{", '{"digests": "%%%"}', '{"digests": "YQ=="}'])
def test_a_damaged_receipt_is_told(bundle: Bundle, data: DataSet, text: str) -> None:
    (bundle.path / "receipts" / "calibration-swin.json").write_text(text)
    (warning,) = overlap_warnings(bundle, data)
    assert warning.startswith("calibration-swin.json can't be read")


def test_what_several_dialogues_have_in_common_is_no_evidence(bundle: Bundle, data: DataSet) -> None:
    receipt(bundle, "swin-int8", dataset(data.dialogues[:1]))
    twice = dataset([data.dialogues[0], replace(data.dialogues[0], id="again")])
    assert overlap_warnings(bundle, twice) == ()
