"""Lengths of data sets, and the profiles they become: whatever the pipeline runs fits one of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.tensorrt.profiles import TOKEN_MULTIPLE, Profiles, profiles_from_toml, toml_from_profiles
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.pipeline.plan import padded_tokens
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.shapes.lengths import Lengths, distribution, lengths_of
from fmmt_deploy.shapes.suggest import check_padded_axes, face_chunks, profiles_from_lengths, text_paddings
from fmmt_deploy.types import DataSet

Bundles = Callable[[str], Bundle]
TINY = PRESETS["tiny"]


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    return meld_shaped(TINY, tmp_path, dialogues=20, faces=4)


@pytest.fixture
def lengths(tiny_bundle: Bundles, dataset: DataSet) -> Lengths:
    return lengths_of(tiny_bundle("roberta"), dataset, batch_size=8)


def fits(profiles: Profiles, graph: str, **sizes: int) -> bool:
    return any(
        all(sizes[n] in size for n, size in p.items()) for g, ps in profiles.graphs.items() for p in ps if g == graph
    )


def padded(tokens: int) -> int:
    """As `Pipeline.encode` gives them to TensorRT's engines."""
    return padded_tokens([np.zeros(tokens, np.int64)], TOKEN_MULTIPLE, 512)[0].shape[1]


def test_lengths_are_those_that_run(lengths: Lengths, dataset: DataSet) -> None:
    assert lengths.texts == tuple(len(d.tokens.input_ids) for d in dataset.dialogues if d.tokens is not None)
    utterances = [u for d in dataset.dialogues for u in d.utterances]
    assert sum(lengths.utterances) == len(utterances) == len(lengths.faces)
    assert max(lengths.utterances) == 8
    assert sum(lengths.faces) == sum(lengths.step_faces) == sum(u.vision_length for u in utterances)
    assert sum(dialogues for dialogues, _ in lengths.groups) == 20
    assert lengths.groups[0][1] == max(lengths.texts)  # the longest come first


def test_faces_are_not_read_and_labels_not_needed(tiny_bundle: Bundles, dataset: DataSet, lengths: Lengths) -> None:
    for dialogue in dataset.dialogues:
        for utterance in dialogue.utterances:
            assert utterance.label is None
            for face in utterance.faces:
                face.unlink(missing_ok=True)
    assert lengths_of(tiny_bundle("roberta"), dataset, batch_size=8) == lengths


def test_nothing_to_count(tiny_bundle: Bundles) -> None:
    with pytest.raises(DataError, match="nowhere holds no utterance"):
        lengths_of(tiny_bundle("roberta"), DataSet("nowhere", (), ()), 8)


@pytest.mark.parametrize("buckets", [1, 3, 16])
def test_whatever_runs_fits_a_profile(lengths: Lengths, buckets: int) -> None:
    profiles = profiles_from_lengths(lengths, TINY, buckets, face_batch=16, source="here")
    for dialogues, tokens in lengths.groups:
        assert fits(profiles, "plm", dialogues=dialogues, tokens=tokens)
        assert fits(profiles, "plm", dialogues=dialogues, tokens=padded(tokens))
        for utterances, faces in zip(lengths.utterances, lengths.step_faces, strict=True):
            sizes = {"utterances": utterances, "dialogues": dialogues, "tokens": tokens, "faces": max(1, faces)}
            assert fits(profiles, "fusion", **sizes)
    assert all(fits(profiles, "swin", faces=faces) for faces in face_chunks(lengths, 16))
    assert fits(profiles, "plm", dialogues=8, tokens=512)  # other data may be longer
    assert fits(profiles, "plm", dialogues=1, tokens=2)
    assert fits(profiles, "fusion", utterances=8, dialogues=8, tokens=512, faces=8 * 6)
    assert len(profiles.of("plm")) == min(buckets, len({padded(tokens) for _, tokens in lengths.groups}))
    assert profiles_from_toml(toml_from_profiles(profiles, "a comment"), TINY, "here") == profiles


def test_profiles_meet_without_overlap(lengths: Lengths) -> None:
    tokens = [profile["tokens"] for profile in profiles_from_lengths(lengths, TINY, 4, 64, "here").of("plm")]
    assert tokens[0].min == 2
    assert [after.min for after in tokens[1:]] == [before.max + 1 for before in tokens[:-1]]
    assert tokens[-1].max == 512
    assert tokens[-1].opt == padded(max(lengths.texts))  # fastest at the longest that is there, not that could be


@pytest.mark.parametrize("buckets", [1, 2, 4])
def test_profiles_are_fastest_at_sizes_that_run(lengths: Lengths, buckets: int) -> None:
    profiles = profiles_from_lengths(lengths, TINY, buckets, 64, "here")
    run = {padded(tokens) for _, tokens in lengths.groups}
    assert {profile["tokens"].opt for profile in (*profiles.of("plm"), *profiles.of("fusion"))} <= run


def test_faces_are_cut_into_batches(lengths: Lengths) -> None:
    some = replace(lengths, step_faces=(0, 5, 64, 130))
    assert sorted(face_chunks(some, 64)) == [2, 5, 64, 64, 64]
    none = replace(lengths, step_faces=(0,), faces=(0,))
    (swin,) = profiles_from_lengths(none, TINY, 3, 64, "here").of("swin")
    assert swin["faces"].min == 1


def test_paddings_agree_with_numpy(lengths: Lengths) -> None:
    paddings = {p.choice: p for p in text_paddings(lengths, TINY, 3)}
    assert {p.real for p in paddings.values()} == {int(np.sum(lengths.texts))}
    grouped = paddings["as `fmmt run` groups them, 8 utterances"]
    assert grouped.processed == int(np.sum([d * t for d, t in lengths.groups]))
    (stepped,) = (p for name, p in paddings.items() if "as TensorRT's engines run them" in name)
    assert stepped.processed == sum(d * padded(t) for d, t in lengths.groups)
    (bucketed,) = (p for name, p in paddings.items() if name.startswith("the same, padded to 3 buckets"))
    assert bucketed.processed >= stepped.processed > grouped.processed


def test_a_vision_model_has_utterances_only(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    architecture = bundle.manifest.architecture
    lengths = lengths_of(bundle, meld_shaped(architecture, tmp_path, 3, 4), batch_size=4)
    assert text_paddings(lengths, architecture, 2) == []
    assert max(lengths.utterances) == 4
    profiles = profiles_from_lengths(lengths, architecture, 2, 64, "here")
    assert profiles.graphs.keys() == {"unimodal"}
    assert fits(profiles, "unimodal", utterances=4)


@pytest.mark.parametrize(("axis", "own"), [("audio", 14), ("vision", 6), ("text", 38)])
def test_padded_axes_are_not_shrunk(axis: str, own: int) -> None:
    check_padded_axes(TINY, {axis: own})
    check_padded_axes(TINY, {axis: None})
    for other in (own - 1, own + 1):
        with pytest.raises(UsageError, match=f"{axis} keeps its {own} positions") as caught:
            check_padded_axes(TINY, {axis: other})
        assert "padded rows" in caught.value.why
        assert "another answer" in caught.value.why


def test_an_axis_that_a_model_does_not_have(tiny_bundle: Bundles) -> None:
    with pytest.raises(UsageError, match="this model reads no audio"):
        check_padded_axes(tiny_bundle("unimodal").manifest.architecture, {"audio": 60})


def test_percentiles_are_nearest_rank() -> None:
    found = distribution("x", list(range(1, 101)))
    assert (found.p50, found.p90, found.p99, found.lowest, found.highest, found.mean) == (50, 90, 99, 1, 100, 50.5)
    assert distribution("x", [7]).p99 == 7
