"""What may be calibrated on: chosen the same everywhere, never the test split, enough, and real."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.calibration.dataset import (
    calibration_data,
    check_enough,
    find_test_splits,
    halves,
    select_dialogues,
    without_test,
)
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Dialogue
from tests.calibration.talk import ARCHITECTURE, Talk, of_dialogues, renamed, tokenizer, write_jsonl
from tests.data.published import VISION_ONLY, architecture


def names(dataset: DataSet) -> list[str]:
    return [dialogue.id for dialogue in dataset.dialogues]


def test_the_choice_is_the_same_on_every_machine() -> None:
    """By the order of `printf '7 d0' | b2sum -l 128` and so on: d3, d1, d2, d5, d4, d0."""
    dataset = of_dialogues(tuple(Dialogue(f"d{n}", None, None, ()) for n in range(6)))
    backwards = of_dialogues(dataset.dialogues[::-1])
    assert names(select_dialogues(dataset, 4, seed=7)) == ["d1", "d2", "d3", "d5"]
    assert names(select_dialogues(backwards, 4, seed=7)) == ["d5", "d3", "d2", "d1"]
    assert [names(half) for half in halves(dataset, seed=7)] == [["d2", "d3", "d4"], ["d0", "d1", "d5"]]


def test_a_choice_keeps_order_and_holds_the_smaller_ones(talk: Talk) -> None:
    chosen = [set(names(select_dialogues(talk.train, count, seed=3))) for count in (2, 5, 9)]
    assert [len(each) for each in chosen] == [2, 5, 9]
    assert chosen[0] < chosen[1] < chosen[2]
    assert select_dialogues(talk.train, None) == select_dialogues(talk.train, 99) == talk.train
    some = select_dialogues(talk.train, 5, seed=4)
    assert set(names(some)) != chosen[1]
    assert some.order == tuple(u.id for d in some.dialogues for u in d.utterances)


def test_halves_are_all_of_it_and_share_nothing(talk: Talk) -> None:
    first, second = halves(select_dialogues(talk.train, 9), seed=1)
    assert (len(first.dialogues), len(second.dialogues)) == (5, 4)
    assert not set(first.order) & set(second.order)
    assert set(first.order) | set(second.order) == set(select_dialogues(talk.train, 9).order)
    assert set(halves(talk.train, 2)[0].order) != set(halves(talk.train, 1)[0].order)


def test_train_is_none_of_test(talk: Talk) -> None:
    found = calibration_data(talk.folder, "train", ARCHITECTURE, tokenizer())
    assert found.dataset.order == talk.train.order
    assert found.coverage.reading.compared_with == (str(talk.folder),)


def test_the_test_split_is_refused(talk: Talk) -> None:
    count = len(talk.test.order)
    with pytest.raises(DataError, match=f"{count} of the {count} utterances to calibrate on are in the test split"):
        calibration_data(talk.folder, "test", ARCHITECTURE, tokenizer())


def test_a_copy_of_test_called_val_is_refused(talk: Talk, tmp_path: Path) -> None:
    """Other names, no labels, another order, faces copied: in a folder of its own, and beside test."""
    path = write_jsonl(tmp_path / "val.jsonl", renamed(talk.test.dialogues, tmp_path / "faces"))
    with pytest.raises(DataError, match="are in the test split") as refused:
        calibration_data(path, "val", ARCHITECTURE, tokenizer(), test_data=talk.folder)
    assert re.search(r"test split of .* as well: x0_\d, x0_\d", refused.value.what)
    write_jsonl(tmp_path / "test.jsonl", talk.test.dialogues)
    for place in (path, tmp_path):
        with pytest.raises(DataError, match="are in the test split"):
            calibration_data(place, "val", ARCHITECTURE, tokenizer())


def test_one_dialogue_of_test_in_train_is_refused_or_left_out(talk: Talk, tmp_path: Path) -> None:
    (copied,) = renamed(talk.test.dialogues[4:5], tmp_path)
    mixed = of_dialogues((*talk.train.dialogues, copied))
    utterances = len(copied.utterances)
    with pytest.raises(DataError, match=f"^{utterances} of the {len(mixed.order)} utterances.*: x0_0, x0_1"):
        without_test(mixed, [talk.test])
    kept, left_out = without_test(mixed, [talk.test], leave_out=True)
    assert left_out == ("x0",)
    assert (kept.dialogues, kept.order) == (talk.train.dialogues, talk.train.order)


@pytest.mark.parametrize("part", ["words", "audio", "vision", "faces"])
def test_one_part_gives_an_utterance_away(talk: Talk, part: str) -> None:
    test = talk.test.dialogues[4]
    mute = {"audio_length": 0, "vision_length": 0, "faces": ()}
    kept = {"words": (), "audio": ("audio_length",), "vision": ("vision_length",), "faces": ("faces",)}[part]
    only = {name: value for name, value in mute.items() if name not in kept}
    utterances = tuple(replace(u, **only) for u in test.utterances)  # type: ignore[arg-type]
    copied = replace(test, utterances=utterances, texts=test.texts if part == "words" else None)
    with pytest.raises(DataError, match="are in the test split"):
        without_test(of_dialogues((copied,)), [talk.test])
    nothing = tuple(replace(u, **mute) for u in test.utterances)  # type: ignore[arg-type]
    without_test(of_dialogues((replace(copied, utterances=nothing, texts=None),)), [talk.test])


def test_what_everybody_says_is_no_test_data(talk: Talk) -> None:
    """A dialogue of one short text that test has, too, with features of its own."""
    first, second = (replace(s.dialogues[4].utterances[0], position=0) for s in (talk.train, talk.test))
    okay, test = (of_dialogues((Dialogue("d", ("Okay.",), None, (u,)),)) for u in (first, second))
    assert without_test(okay, [test]) == (okay, ())
    with pytest.raises(DataError, match="1 of the 1 utterances"):
        without_test(okay, [okay])


def test_where_no_test_split_is_found_the_audit_says_so(talk: Talk, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "val.jsonl", talk.train.dialogues)
    found = calibration_data(path, "val", ARCHITECTURE, tokenizer())
    assert found.coverage.reading.compared_with == ()
    assert "no test split found to compare with" in found.coverage.warnings[0]


def test_where_test_splits_are_found(talk: Talk, tmp_path: Path) -> None:
    val = write_jsonl(tmp_path / "my_val.jsonl", talk.train.dialogues[:2])
    assert find_test_splits(val, ARCHITECTURE) == ()
    assert find_test_splits(tmp_path, ARCHITECTURE) == ()
    beside = write_jsonl(tmp_path / "my_test.jsonl", talk.test.dialogues[:2])
    assert [test.source for test in find_test_splits(val, ARCHITECTURE)] == [str(beside)]
    assert [test.source for test in find_test_splits(beside, ARCHITECTURE)] == [str(beside)]
    both = find_test_splits(val, ARCHITECTURE, other=talk.folder)
    unlike = write_jsonl(tmp_path / "other" / "talk.jsonl", talk.train.dialogues[:2])
    plain = write_jsonl(tmp_path / "other" / "test.jsonl", talk.test.dialogues[:2])
    assert [test.source for test in find_test_splits(unlike, ARCHITECTURE)] == [str(plain)]
    assert [test.source for test in both] == [str(beside), str(talk.folder)]
    assert len(find_test_splits(talk.folder, ARCHITECTURE, other=talk.folder)) == 1


def test_a_test_split_that_cannot_be_read_is_an_error(talk: Talk, tmp_path: Path) -> None:
    val = write_jsonl(tmp_path / "val.jsonl", talk.train.dialogues[:2])
    (tmp_path / "test.jsonl").write_text("not a dialogue\n")
    for place in (val, tmp_path):
        with pytest.raises(DataError, match=r"can't be read, so it can't be said that none of it is calibrated on"):
            find_test_splits(place, ARCHITECTURE)
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"The test split in .*absent can't be read[\s\S]*is no folder"):
        find_test_splits(val, ARCHITECTURE, other=tmp_path / "absent")


def test_too_little_is_refused_unless_asked_for(talk: Talk) -> None:
    with pytest.raises(DataError, match=r"3 dialogues with \d+ utterances are too few") as refused:
        calibration_data(talk.folder, "train", ARCHITECTURE, tokenizer(), count=3)
    assert "--allow-small" in str(refused.value)
    found = calibration_data(talk.folder, "train", ARCHITECTURE, tokenizer(), count=3, allow_small=True)
    assert len(found.dataset.dialogues) == found.coverage.dialogues == 3
    assert any("only 3 dialogues" in warning and "allowed" in warning for warning in found.coverage.warnings)


def test_enough_is_eight_dialogues_and_32_utterances(talk: Talk) -> None:
    eight = select_dialogues(talk.train, 8)
    assert len(eight.order) >= 32
    check_enough(eight, ARCHITECTURE)
    with pytest.raises(DataError, match=r"^8 dialogues with 8 utterances are too few"):
        check_enough(
            of_dialogues(tuple(replace(d, utterances=d.utterances[:1]) for d in eight.dialogues)), ARCHITECTURE
        )


def test_nothing_is_refused_even_if_asked_for(talk: Talk) -> None:
    with pytest.raises(DataError, match="0 dialogues with 0 utterances") as refused:
        calibration_data(talk.folder, "test", ARCHITECTURE, tokenizer(), allow_small=True, leave_out_test=True)
    assert "--allow-small" not in str(refused.value)


def test_no_face_is_refused_where_the_model_looks_at_faces(talk: Talk) -> None:
    blind = of_dialogues(
        tuple(
            replace(d, utterances=tuple(replace(u, faces=(), vision_length=0) for u in d.utterances))
            for d in talk.train.dialogues
        )
    )
    with pytest.raises(DataError, match="has a face, and the model looks at faces"):
        check_enough(blind, ARCHITECTURE, allow_small=True)
    check_enough(blind, VISION_ONLY)


def test_data_of_another_architecture_is_refused(talk: Talk) -> None:
    with pytest.raises(DataError, match=r"should have the shape .*\(\d+ utterances, 14 rows.*, 32 numbers"):
        calibration_data(talk.folder, "train", architecture(audio_size=32), tokenizer())


def test_vision_only_models_are_calibrated_on_vision(talk: Talk) -> None:
    found = calibration_data(talk.folder, "train", VISION_ONLY, None)
    assert found.coverage.dialogue_tokens is None
    assert found.coverage.audio_rows is None
    with pytest.raises(DataError, match="are in the test split"):
        calibration_data(talk.folder, "test", VISION_ONLY, None)


def test_made_up_data_is_refused(talk: Talk, tmp_path: Path) -> None:
    still = tuple(
        replace(d, utterances=tuple(replace(u, audio=np.ones((14, 24), np.float32)) for u in d.utterances))
        for d in talk.train.dialogues
    )
    write_jsonl(tmp_path / "val.jsonl", still)
    assert read_data(tmp_path, "val", ARCHITECTURE).order
    with pytest.raises(DataError, match=r"the audio features are the same in all \d+ rows"):
        calibration_data(tmp_path, "val", ARCHITECTURE, tokenizer())
