"""The audit of calibration data: what is counted is what is there, and what is missing is said."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.calibration.coverage import Bin, Coverage, Reading, coverage_of
from fmmt_deploy.data.content import text_from_digests
from fmmt_deploy.json_values import JsonValueError, dataclass_from_json
from fmmt_deploy.types import EMOTIONS, DataSet
from tests.calibration.talk import ARCHITECTURE, Talk, of_dialogues, relabelled, renamed, tokenizer
from tests.data.published import VISION_ONLY

READING = Reading("train", 0, 0, ("elsewhere",))


def audited(dataset: DataSet, reading: Reading = READING) -> Coverage:
    return coverage_of(dataset, ARCHITECTURE, tokenizer(), reading)


def test_what_is_counted_is_there(talk: Talk) -> None:
    found = audited(talk.train)
    everybody = [u for d in talk.train.dialogues for u in d.utterances]
    assert (found.dialogues, found.utterances, found.repeated) == (10, len(talk.train.order), 0)
    assert found.faces == sum(min(len(u.faces), 6) for u in everybody)
    counts = Counter(EMOTIONS[u.label] for u in everybody if u.label is not None)
    assert found.emotions == {name: counts[name] for name in EMOTIONS}
    assert found.unlabelled == 0
    assert found.missing == tuple(name for name in EMOTIONS if name not in counts)


def test_lengths_are_numpys_quantiles_and_histogram(talk: Talk) -> None:
    found = audited(talk.train)
    lengths = [len(tokenizer().encode(d.texts).input_ids) for d in talk.train.dialogues if d.texts]
    tokens = found.dialogue_tokens
    assert tokens is not None
    expected = np.percentile(lengths, (5, 50, 95), method="inverted_cdf").tolist()
    assert (tokens.count, tokens.lowest, tokens.highest) == (10, min(lengths), max(lengths))
    assert [tokens.p5, tokens.p50, tokens.p95] == expected
    heights, _ = np.histogram(lengths, [0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513])
    powers = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert tokens.histogram == tuple(Bin(p, n) for p, n in zip(powers, heights.tolist(), strict=True) if n)


def test_bars_end_at_powers_of_two(talk: Talk) -> None:
    rows = (0, 1, 1, 2, 3, 4, 4, 5)
    first = talk.train.dialogues[4].utterances[0]
    utterances = tuple(replace(first, position=0, id=str(n), vision_length=n) for n in rows)
    found = audited(of_dialogues((replace(talk.train.dialogues[4], utterances=utterances),)))
    assert found.vision_rows is not None
    assert found.vision_rows.histogram == (Bin(0, 1), Bin(1, 2), Bin(2, 1), Bin(4, 3), Bin(8, 1))


def test_kinds_that_are_not_there_have_no_lengths(talk: Talk) -> None:
    found = coverage_of(of_dialogues(talk.train.dialogues), VISION_ONLY, None, READING)
    assert (found.dialogue_tokens, found.faces_per_utterance, found.faces) == (None, None, 0)
    assert found.vision_rows is not None


def test_it_is_the_same_from_json(talk: Talk) -> None:
    for dataset in (talk.train, of_dialogues(talk.train.dialogues[:1])):
        found = audited(dataset)
        assert dataclass_from_json(Coverage, json.loads(json.dumps(asdict(found)))) == found
    with pytest.raises(JsonValueError, match="faces should be a whole number"):
        dataclass_from_json(Coverage, json.loads(json.dumps(asdict(found))) | {"faces": None})


def test_ten_thousand_utterances_are_less_than_a_megabyte() -> None:
    """An utterance has a digest of words, audio, vision, and four faces."""
    drawn = np.random.default_rng(0).bytes(70_000 * 8)
    assert len(text_from_digests(drawn[n : n + 8] for n in range(0, len(drawn), 8))) < 1_000_000


def test_one_class_is_reported(talk: Talk) -> None:
    found = audited(relabelled(talk.train, dict.fromkeys(range(7), 4)))
    assert found.emotions == dict.fromkeys(EMOTIONS, 0) | {"joy": len(talk.train.order)}
    assert "all labelled utterances are of one emotion, joy" in found.warnings


def test_missing_and_rare_classes_are_reported(talk: Talk) -> None:
    every = of_dialogues(
        tuple(
            replace(d, utterances=tuple(replace(u, label=(3 * n + i) % 7) for i, u in enumerate(d.utterances)))
            for n, d in enumerate(talk.train.dialogues)
        )
    )
    assert not [warning for warning in audited(every).warnings if "utterance" in warning]
    fewer = audited(relabelled(every, {2: 0, 5: 0}))
    assert fewer.missing == ("fear", "disgust")
    assert "no utterance of fear, disgust" in fewer.warnings
    first = every.dialogues[4]
    rare = replace(first, utterances=(replace(first.utterances[0], label=5), *first.utterances[1:]))
    found = audited(of_dialogues((rare, *relabelled(every, {5: 0}).dialogues[5:])))
    assert any(warning.startswith("few utterances of ") and "disgust (1)" in warning for warning in found.warnings)


def test_missing_labels_are_reported(talk: Talk) -> None:
    none = audited(relabelled(talk.train, dict.fromkeys(range(7))))
    assert none.unlabelled == none.utterances
    assert "no utterance has a label: which emotions are covered can't be said" in none.warnings
    neutral = sum(u.label == 0 for d in talk.train.dialogues for u in d.utterances)
    some = audited(relabelled(talk.train, {0: None}))
    assert some.unlabelled == neutral
    assert any(warning.startswith(f"{neutral} utterances have no label") for warning in some.warnings)


def test_short_dialogues_and_few_faces_are_reported(talk: Talk) -> None:
    short = audited(of_dialogues(talk.train.dialogues[:1]))
    assert short.dialogue_tokens is not None
    longest = short.dialogue_tokens.highest
    assert f"only short dialogues: the longest has {longest} tokens, the model reads up to 512" in short.warnings
    assert any(warning.startswith(f"only {short.faces} faces") for warning in short.warnings)
    assert not [warning for warning in audited(talk.train).warnings if "short" in warning or "faces" in warning]


def test_mute_utterances_are_reported(talk: Talk) -> None:
    mute = of_dialogues(
        tuple(
            replace(d, utterances=tuple(replace(u, audio_length=0, vision_length=0) for u in d.utterances))
            for d in talk.train.dialogues
        )
    )
    assert {"no utterance has audio", "no utterance has vision features"} <= set(audited(mute).warnings)


def test_repetitions_are_reported(talk: Talk, tmp_path: Path) -> None:
    twice = of_dialogues((*talk.train.dialogues, *renamed(talk.train.dialogues, tmp_path)))
    found = audited(twice)
    assert found.repeated == len(talk.train.order)
    assert f"{found.repeated} of {found.utterances} utterances only repeat what others hold" in found.warnings
    assert found.digests == audited(talk.train).digests


def test_how_it_was_read_is_reported(talk: Talk) -> None:
    assert not any("test split" in warning for warning in audited(talk.train).warnings)
    found = audited(talk.train, Reading("val", 3, 2, ()))
    assert any(warning.startswith("no test split found to compare with") for warning in found.warnings)
    assert any(warning.startswith("2 dialogues are in a test split") for warning in found.warnings)
