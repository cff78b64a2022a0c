"""A model without one of its sources: what it then reads, and the scores that come of it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.faces import read_faces
from fmmt_deploy.data.text import DialogueTokenizer
from fmmt_deploy.errors import DataError, UsageError
from fmmt_deploy.export.source import Source
from fmmt_deploy.pipeline.inputs import utterance_inputs
from fmmt_deploy.pipeline.noise import gumbel_noise
from fmmt_deploy.pipeline.plan import padded_tokens, plan_groups
from fmmt_deploy.training.ablation import SOURCES, SourceName, ablate, without
from fmmt_deploy.training.validation import answers
from fmmt_deploy.types import DataSet, TokenizedDialogue
from tests.golden import GOLDEN
from tests.models import TINY, tiny_source

SOURCE: Source = tiny_source("roberta")
WHOLE = read_data(GOLDEN / "roberta", "test", TINY["roberta"])
DATA = replace(
    WHOLE,
    dialogues=WHOLE.dialogues[:2],
    order=tuple(u for u in WHOLE.order if u in {v.id for d in WHOLE.dialogues[:2] for v in d.utterances}),
)
"""Two dialogues of it, short enough that no word is cut off."""


def tokenizer() -> DialogueTokenizer:
    assert SOURCE.tokenizer is not None
    return DialogueTokenizer(SOURCE.tokenizer, "roberta")


@cache
def inputs_with_everything() -> Mapping[str, Any]:
    """Every graph's inputs for the whole data set at once, in its order, with Gumbel noise."""
    sizes = SOURCE.model.architecture.fusion
    assert sizes is not None
    (group,) = plan_groups(DATA, tokenizer(), sizes.text_length, batch_size=1000)
    ids, mask = padded_tokens(group.windows)
    members = {member.utterance.id: member for member in group.members}
    ordered = [members[utterance] for utterance in DATA.order]
    faces = read_faces([path for m in ordered for path in m.utterance.faces[: sizes.vision_length]])
    fused = utterance_inputs(ordered, sizes, gumbel_noise(7))
    return {"plm": {"input_ids": ids, "attention_mask": mask}, "swin": {"faces": faces}, "fusion": fused}


def computed(changed: Mapping[str, Any]) -> np.ndarray:
    """Logits by the model's parts, with some of the fusion's inputs changed."""
    model, given = SOURCE.model, inputs_with_everything()
    asked: dict[Any, dict[str, torch.Tensor]] = {
        graph: {name: torch.tensor(array) for name, array in arrays.items()} for graph, arrays in given.items()
    }
    states = model.run("plm", asked["plm"])["token_states"]
    faces = model.run("swin", asked["swin"])["face_logits"]
    fused = asked["fusion"] | {"token_states": states, "face_logits": faces}
    fused |= {name: torch.tensor(array) for name, array in changed.items()}
    return model.run("fusion", fused)["logits"].numpy()


def zeros(*names: str) -> dict[str, Any]:
    fused = inputs_with_everything()["fusion"]
    return {name: np.zeros_like(fused[name]) for name in names}


@pytest.mark.parametrize(
    ("source", "emptied"),
    [("text", ("text_length",)), ("audio", ("audio", "audio_length")), ("vision", ("vision", "vision_mask"))],
)
def test_without_a_modality_its_arrays_are_empty(source: SourceName, emptied: tuple[str, ...]) -> None:
    reduced = without(source, DATA, tokenizer())
    assert reduced.order == DATA.order
    found = answers(SOURCE.model, SOURCE.tokenizer, reduced, gumbel_noise(7))
    np.testing.assert_allclose(found, computed(zeros(*emptied)), rtol=0, atol=1e-5)
    assert np.abs(found - computed({})).max() > 1e-3


def test_without_other_turns_each_text_is_alone() -> None:
    reduced = without("other turns", DATA, tokenizer())
    texts = {u.id: d.texts[u.position] for d in DATA.dialogues for u in d.utterances if d.texts is not None}
    assert {d.utterances[0].id: d.texts for d in reduced.dialogues} == {id_: (text,) for id_, text in texts.items()}
    assert reduced.order == DATA.order
    found = answers(SOURCE.model, SOURCE.tokenizer, reduced, gumbel_noise(7))
    each = [
        answers(SOURCE.model, SOURCE.tokenizer, DataSet("", (dialogue,), (dialogue.utterances[0].id,)), gumbel_noise(7))
        for dialogue in reduced.dialogues[:3]
    ]
    places = [DATA.order.index(dialogue.utterances[0].id) for dialogue in reduced.dialogues[:3]]
    np.testing.assert_allclose(found[places], np.concatenate(each), rtol=0, atol=1e-5)


def tokenised(dataset: DataSet) -> DataSet:
    """As a `.dt` holds it."""
    dialogues = []
    for dialogue in dataset.dialogues:
        assert dialogue.texts is not None
        dialogues.append(replace(dialogue, texts=None, tokens=tokenizer().encode(dialogue.texts)))
    return replace(dataset, dialogues=tuple(dialogues))


@pytest.mark.parametrize("source", SOURCES)
def test_tokens_are_reduced_as_texts_are(source: SourceName) -> None:
    reduced = without(source, tokenised(DATA), None)
    assert all(isinstance(dialogue.tokens, TokenizedDialogue) for dialogue in reduced.dialogues)
    expected = answers(SOURCE.model, SOURCE.tokenizer, without(source, DATA, tokenizer()))
    found = answers(SOURCE.model, SOURCE.tokenizer, reduced)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_scores_are_scikit_learns() -> None:
    found = ablate(SOURCE.model, SOURCE.tokenizer, DATA, "gumbel", 7)
    labels = {u.id: u.label for d in DATA.dialogues for u in d.utterances}
    truth = [labels[utterance] for utterance in DATA.order]
    assert found.full_f1 == pytest.approx(f1_score(truth, computed({}).argmax(axis=1), average="weighted"))
    silent = found.left[0]
    assert (silent.without, silent.utterances, silent.nothing_left) == ("text", len(truth), 0)
    expected = f1_score(truth, computed(zeros("text_length")).argmax(axis=1), average="weighted")
    assert silent.f1 == pytest.approx(expected)
    assert silent.difference == pytest.approx(expected - found.full_f1)
    assert silent.interval is not None
    assert silent.interval.low <= silent.difference <= silent.interval.high
    assert [each.without for each in found.left] == list(SOURCES)
    assert found.to_json()["dialogues"] == 2
    rows = found.table()
    assert rows[0] == ("everything", f"{100 * found.full_f1:.2f}", "", "", len(truth))
    assert rows[1][:3] == ("without text", f"{100 * silent.f1:.2f}", f"{100 * silent.difference:+.2f}")


def with_an_utterance_of(words: bool, audio: bool, vision: bool) -> tuple[DataSet, str]:
    """The data set, in which one utterance has less."""
    first = DATA.dialogues[0]
    utterance = first.utterances[0]
    assert first.texts is not None
    assert utterance.audio is not None
    assert utterance.vision is not None
    if not audio:
        utterance = replace(utterance, audio=np.zeros_like(utterance.audio), audio_length=0)
    if not vision:
        utterance = replace(utterance, vision=np.zeros_like(utterance.vision), vision_length=0, faces=())
    texts = first.texts if words else ("", *first.texts[1:])
    changed = replace(first, texts=texts, utterances=(utterance, *first.utterances[1:]))
    return replace(DATA, dialogues=(changed, *DATA.dialogues[1:])), utterance.id


@pytest.mark.parametrize("source", SOURCES)
def test_an_utterance_with_nothing_left_is_left_out(source: SourceName) -> None:
    dataset, name = with_an_utterance_of(source in ("text", "other turns"), source == "audio", source == "vision")
    reduced = without(source, dataset, tokenizer())
    left_out = set() if source == "other turns" else {name}
    assert set(dataset.order) - set(reduced.order) == left_out
    assert {u.id for d in reduced.dialogues for u in d.utterances} == set(reduced.order)


def test_both_sides_of_a_comparison_are_of_the_same_utterances() -> None:
    dataset, name = with_an_utterance_of(words=True, audio=False, vision=False)
    silent = ablate(SOURCE.model, SOURCE.tokenizer, dataset).left[0]
    assert (silent.utterances, silent.nothing_left) == (len(DATA.order) - 1, 1)
    labels = {u.id: u.label for d in dataset.dialogues for u in d.utterances}
    full = dict(zip(dataset.order, answers(SOURCE.model, SOURCE.tokenizer, dataset).argmax(axis=1), strict=True))
    truth, decided = ([column[u] for u in dataset.order if u != name] for column in (labels, full))
    assert silent.full_f1 == pytest.approx(f1_score(truth, decided, average="weighted"))


def test_nothing_may_be_left_at_all() -> None:
    dataset, name = with_an_utterance_of(words=True, audio=False, vision=False)
    first = dataset.dialogues[0]
    alone = DataSet("one", (replace(first, utterances=first.utterances[:1]),), (name,))
    found = ablate(SOURCE.model, SOURCE.tokenizer, alone)
    silent = found.left[0]
    assert (silent.utterances, silent.nothing_left, silent.f1, silent.interval) == (0, 1, 0.0, None)
    assert found.table()[1] == ("without text", "0.00", "+0.00", "", 0)


def test_what_cant_be_ablated() -> None:
    unimodal = tiny_source("unimodal")
    with pytest.raises(UsageError, match="one source"):
        ablate(unimodal.model, None, DATA)
    with pytest.raises(DataError, match="one label for each utterance"):
        ablate(SOURCE.model, SOURCE.tokenizer, DataSet("none", (), ()))
