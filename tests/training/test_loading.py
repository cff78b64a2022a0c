"""What a trainer is fed with, held against the pipeline's answers and the files themselves."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.faces import read_face
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.torch.load import engines_from_model
from fmmt_deploy.errors import DataError
from fmmt_deploy.pipeline.noise import gumbel_noise, no_noise
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.training import workers
from fmmt_deploy.training.batches import TargetBatch
from fmmt_deploy.training.draws import seed_of
from fmmt_deploy.training.loading import TargetData
from fmmt_deploy.training.settings import RunSettings, Settings, StepOrder, TargetSettings
from fmmt_deploy.types import DataSet, Utterance
from tests.data.published import write_jsonl
from tests.golden import GOLDEN
from tests.models import TINY, tiny_source

PAST = replace(TINY["roberta"], context="past")
IN_PROCESS = RunSettings(workers=0, face_cache_gib=0.1)


def settings(batch_size: int = 4, accumulate: int = 2, order: StepOrder = "utterances", **target: Any) -> Settings:
    made = TargetSettings(batch_size=batch_size, accumulate=accumulate, order=order, **target)
    return Settings(target=made, run=IN_PROCESS)


def data_of(name: str, architecture: Architecture | None = None) -> tuple[DataSet, Architecture, str | None]:
    architecture = architecture or TINY[name]
    folder = GOLDEN / ("roberta" if name == "unimodal" else name)
    return read_data(folder, "test", architecture), architecture, tiny_source(name).tokenizer


def target_of(name: str, made: Settings, architecture: Architecture | None = None) -> TargetData:
    return TargetData(*data_of(name, architecture), made)


def all_passes(data: TargetData, epoch: int = 1, **rank: int) -> list[TargetBatch]:
    return [batch for step in data.batches(epoch, **rank) for batch in step]


def by_utterance(passes: list[TargetBatch]) -> dict[str, dict[str, Any]]:
    """What each utterance was given, whatever it was given it with."""
    found = {}
    for batch in passes:
        first = 0
        for row, name in enumerate(batch.names):
            own = {key: tensor[row] for key, tensor in batch.inputs.items() if len(tensor) == len(batch.names)}
            count = 0
            if "face_index" in batch.inputs:
                count = int(batch.inputs["vision_mask"][row].sum())
                assert batch.inputs["face_index"][row, :count].tolist() == list(range(first, first + count))
                start, length = int(own["text_start"]), int(own["text_length"])
                own["words"] = batch.inputs["input_ids"][int(own["text_row"])][start : start + length]
                kept = ("words", "audio", "audio_length", "vision", "vision_mask", "noise")
                own = {key: own[key] for key in kept}
            found[name] = {**own, "label": batch.labels[row], "faces": batch.faces[first : first + count]}
            first += count
        assert first == len(batch.faces)
    return found


def assert_same(found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> None:
    assert found.keys() == expected.keys()
    for name, parts in expected.items():
        for key, tensor in parts.items():
            assert torch.equal(found[name][key], tensor), f"{key} of {name}"


class Asked:
    """A model for the pipeline."""

    def __init__(self, architecture: Architecture, tokenizer: str | None) -> None:
        self.architecture, self._tokenizer = architecture, tokenizer

    def tokenizer_json(self) -> str | None:
        return self._tokenizer


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("roberta", None), ("bert", None), ("unimodal", None), ("roberta", PAST)],
    ids=["roberta", "bert", "unimodal", "past"],
)
@pytest.mark.parametrize(("order", "noise"), [("utterances", "gumbel"), ("dialogues", "none")])
def test_a_model_fed_with_it_answers_as_the_pipeline(
    name: str, architecture: Architecture | None, order: StepOrder, noise: Any
) -> None:
    dataset, architecture, tokenizer = data_of(name, architecture)
    model = tiny_source(name).model
    data = TargetData(dataset, architecture, tokenizer, settings(7, 2, order, jitter=0.0, noise=noise))
    pipeline = Pipeline(Asked(architecture, tokenizer), Engines("torch", engines_from_model(model, 2)))
    draws = gumbel_noise(seed_of(1111, "noise", 1)) if noise == "gumbel" else no_noise
    expected = {answer.utterance: answer.logits for answer in pipeline.run(dataset, draws)}
    for batch in all_passes(data):
        inputs = dict(batch.inputs)
        if name == "unimodal":
            logits = model.run("unimodal", inputs)["logits"]
        else:
            texts = {key: inputs.pop(key) for key in ("input_ids", "attention_mask")}
            faces = model.run("swin", {"faces": batch.faces})["face_logits"]
            logits = model.run("fusion", inputs | model.run("plm", texts) | {"face_logits": faces})["logits"]
        for utterance, row in zip(batch.names, logits.numpy(), strict=True):
            np.testing.assert_allclose(row, expected.pop(utterance), atol=2e-5)
    assert not expected


@pytest.fixture(scope="module")
def one_by_one() -> dict[str, dict[str, Tensor]]:
    """What each utterance is given in a pass of its own."""
    return by_utterance(all_passes(target_of("roberta", settings(1, 1))))


@pytest.mark.parametrize("order", ["utterances", "dialogues"])
@pytest.mark.parametrize(("processes", "count"), [(1, 0), (1, 2), (3, 0)])
def test_an_utterance_is_given_the_same_in_any_batch_worker_and_process(
    one_by_one: dict[str, dict[str, Tensor]], order: StepOrder, processes: int, count: int
) -> None:
    made = settings(5, 3, order)
    data = target_of("roberta", replace(made, run=replace(made.run, workers=count)))
    passes = [b for rank in range(processes) for b in all_passes(data, rank=rank, processes=processes)]
    assert_same(by_utterance(passes), one_by_one)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [0, 1])
def test_batches_of_workers_come_through_shared_memory(count: int) -> None:
    made = settings(8, 1)
    (batch, *_) = all_passes(target_of("roberta", replace(made, run=replace(made.run, workers=count))))
    tensors = (*batch.inputs.values(), batch.faces, batch.labels, batch.weights)
    assert {tensor.is_shared() for tensor in tensors} == {bool(count)}


def test_another_epoch_has_other_noise_and_colours(one_by_one: dict[str, dict[str, Tensor]]) -> None:
    data = target_of("roberta", settings(5, 3))
    second = by_utterance(all_passes(data, epoch=2))
    assert_same(by_utterance(all_passes(data, epoch=1)), one_by_one)
    for name, parts in one_by_one.items():
        assert torch.equal(parts["words"], second[name]["words"])
        assert torch.equal(parts["vision"], second[name]["vision"])
        if len(parts["faces"]):
            assert not torch.equal(parts["faces"], second[name]["faces"])
            assert not torch.equal(parts["noise"], second[name]["noise"])


def test_faces_without_jitter_are_the_files() -> None:
    dataset, *others = data_of("roberta")
    utterances = {u.id: u for dialogue in dataset.dialogues for u in dialogue.utterances}
    data = TargetData(dataset, *others, settings(jitter=0.0))
    for epoch in (1, 2):  # the second time from the cache
        for name, parts in by_utterance(all_passes(data, epoch)).items():
            expected = [read_face(path) for path in utterances[name].faces]
            assert len(expected) == len(parts["faces"])
            for face, pixels in zip(parts["faces"], expected, strict=True):
                np.testing.assert_array_equal(face.numpy(), pixels)


@pytest.mark.parametrize("order", ["utterances", "dialogues"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("processes", [1, 4])
def test_weights_make_the_mean_of_a_step(order: StepOrder, weights: Any, processes: int) -> None:
    data = target_of("roberta", settings(6, 2, order, class_weights=weights))
    ranks = [list(data.batches(1, rank=rank, processes=processes)) for rank in range(processes)]
    assert {len(steps) for steps in ranks} == {data.steps(1)}
    counts = data.labels_count
    for step in zip(*ranks, strict=True):
        assert len({len(passes) for passes in step}) == 1, "all processes must make as many passes"
        labels = torch.cat([batch.labels for passes in step for batch in passes]).numpy()
        found = torch.cat([batch.weights for passes in step for batch in passes]).numpy()
        own = np.ones(7) if weights == "none" else counts.sum() / (7 * counts)
        real = found > 0
        np.testing.assert_allclose(found[real], own[labels[real]] / real.sum(), rtol=1e-5)


def test_a_dialogue_is_encoded_once_in_a_pass() -> None:
    for batch in all_passes(target_of("roberta", settings(8, 1, "dialogues"))):
        dialogues = {name.partition("_")[0] for name in batch.names}
        assert len(batch.inputs["input_ids"]) == len(dialogues)


def test_a_process_with_nothing_to_do_takes_an_utterance_that_counts_for_nothing() -> None:
    data = target_of("roberta", settings(1, 2))
    for step in data.batches(1, rank=1, processes=2):
        assert [(len(batch.names), batch.weights.tolist()) for batch in step] == [(1, [0.0])] * len(step)


def test_an_epoch_can_begin_in_its_middle() -> None:
    data = target_of("roberta", settings(3, 2))
    names = [[batch.names for batch in step] for step in data.batches(1)]
    assert len(names) == data.steps(1) == 6
    assert [[batch.names for batch in step] for step in data.batches(1, first=4)] == names[4:]
    assert list(data.batches(1, first=6)) == []


def test_a_training_that_stops_leaves_no_worker() -> None:
    made = settings(1, 1)
    steps = target_of("roberta", replace(made, run=replace(made.run, workers=2))).batches(1)
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_damaged_face_is_named(tmp_path: Path, count: int) -> None:
    dataset, *others = data_of("roberta")
    damaged = tmp_path / "dia9_utt9_0.jpg"
    damaged.write_bytes(b"no image")
    dialogue = next(d for d in dataset.dialogues if d.utterances[0].faces)
    utterance = replace(dialogue.utterances[0], faces=(damaged, *dialogue.utterances[0].faces[1:]))
    broken = replace(dataset, dialogues=(replace(dialogue, utterances=(utterance,)),))
    made = settings()
    data = TargetData(broken, *others, replace(made, run=replace(made.run, workers=count)))
    with pytest.raises(DataError, match=r"dia9_utt9_0\.jpg is not an image"):
        all_passes(data)


def labelled(utterances: Iterator[Utterance], label: Callable[[Utterance], int | None]) -> tuple[Utterance, ...]:
    return tuple(replace(utterance, label=label(utterance)) for utterance in utterances)


def relabelled(dataset: DataSet, label: Callable[[Utterance], int | None]) -> DataSet:
    dialogues = tuple(replace(d, utterances=labelled(iter(d.utterances), label)) for d in dataset.dialogues)
    return replace(dataset, dialogues=dialogues)


def test_utterances_without_labels_are_refused() -> None:
    dataset, *others = data_of("roberta")
    missing = dataset.dialogues[1].utterances[0].id
    with pytest.raises(DataError, match=f"1 of 31 utterances have no label, the first is {missing}"):
        TargetData(relabelled(dataset, lambda u: None if u.id == missing else u.label), *others, settings())


def test_a_split_without_utterances_is_refused() -> None:
    dataset, *others = data_of("roberta")
    with pytest.raises(DataError, match="has no utterances to learn from"):
        TargetData(replace(dataset, dialogues=(), order=()), *others, settings())


def test_an_utterance_of_words_that_are_none_is_refused_before_the_training() -> None:
    """A text of characters that the tokenizer leaves out: the reader can't know, and the model has nothing."""
    dataset, *others = data_of("bert")
    dialogue = dataset.dialogues[0]
    silent = replace(dialogue.utterances[0], audio_length=0, vision_length=0, faces=())
    texts = list(dialogue.texts or ())
    texts[silent.position] = "\u200b\u0001"
    broken = replace(dialogue, texts=tuple(texts), utterances=(silent, *dialogue.utterances[1:]))
    with pytest.raises(DataError, match=f"{silent.id} has nothing the model could read"):
        TargetData(replace(dataset, dialogues=(broken,)), *others, settings())


def test_what_is_odd_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_context(dialogues: list[Any]) -> None:
        dialogues[0]["utterances"][1]["label"] = "anger"
        dialogues.append({"id": "d3", "utterances": [{"id": "e", "text": "So.", "target": False}]})

    _, architecture, tokenizer = data_of("roberta")
    dataset = read_data(write_jsonl(tmp_path, only_context), "test", architecture)
    data = TargetData(dataset, architecture, tokenizer, settings(1, 1))
    source = tmp_path / "test.jsonl"
    assert data.notes == (
        f"{source}: 1 dialogues have no utterance to classify and are left out.",
        f"{source}: no utterance is labelled neutral, surprise, sadness, disgust; that can't be learnt.",
        f"{source}: 1 of 3 utterances have no face.",
    )
    assert data.labels_count.tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert sorted(by_utterance(all_passes(data))) == ["a", "b", "d"]
    assert [len(parts["faces"]) for _, parts in sorted(by_utterance(all_passes(data)).items())] == [1, 2, 0]
    monkeypatch.setattr("fmmt_deploy.training.loading.can_fork", lambda: False)
    assert TargetData(dataset, architecture, tokenizer, Settings()).notes[-1] == workers.NO_WORKERS


def test_a_fingerprint_tells_data_apart(tmp_path: Path) -> None:
    dataset, *others = data_of("roberta")
    moved = tmp_path / "moved"
    shutil.copytree(GOLDEN / "roberta", moved, ignore=shutil.ignore_patterns("pretrained_model"))
    again = read_data(moved, "test", TINY["roberta"])
    first = dataset.dialogues[0]
    spoken = replace(first, texts=("Other words.", *(first.texts or ())[1:]))
    kinds = {
        "same": again,
        "labels": relabelled(dataset, lambda _: 0),
        "words": replace(dataset, dialogues=(spoken, *dataset.dialogues[1:])),
        "fewer": replace(dataset, dialogues=dataset.dialogues[1:]),
    }
    prints = {name: TargetData(data, *others, settings()).fingerprint for name, data in kinds.items()}
    assert TargetData(dataset, *others, settings(jitter=0.0)).fingerprint == prints.pop("same")
    assert len({*prints.values(), TargetData(dataset, *others, settings()).fingerprint}) == 4
