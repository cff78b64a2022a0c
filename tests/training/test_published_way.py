"""Training computes the published function, and a batch of ours gives what the published way gives one by one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.engines.torch.load import reference_from_bundle
from fmmt_deploy.pipeline.noise import recorded_noise
from fmmt_deploy.training.batches import TargetBatch
from fmmt_deploy.training.loading import TargetData
from fmmt_deploy.training.objective import Trainee
from fmmt_deploy.training.published_way import published_passes
from fmmt_deploy.training.settings import RunSettings, Settings, TargetSettings
from fmmt_deploy.types import DataSet
from tests.golden import GOLDEN
from tests.models import TINY, Golden, tiny_source


def settings(noise: str, **target: object) -> Settings:
    return Settings(
        target=TargetSettings(jitter=0, noise=noise, accumulate=1, order="dialogues", **target),  # type: ignore[arg-type]
        run=RunSettings(precision="fp32", workers=0, face_cache_gib=0),
    )


def first_dialogues(dataset: DataSet, count: int) -> DataSet:
    dialogues = dataset.dialogues[:count]
    names = {u.id for dialogue in dialogues for u in dialogue.utterances}
    return replace(dataset, dialogues=dialogues, order=tuple(u for u in dataset.order if u in names))


def cross_entropies(logits: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """By NumPy, in float64."""
    exact = logits.astype(np.float64)
    return np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(labels)), labels]


def test_training_computes_what_the_published_code_computes(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the mode it is trained in, but for dropout: against the published code's own logits, with and without noise.

    The Swin is the published size, so a few faces must do, and they are seen once.
    """
    bundle = Bundle.open(golden.bundle)
    model, whole = reference_from_bundle(bundle), golden.dataset
    some = first_dialogues(whole, 1)
    data = TargetData(some, model.architecture, bundle.tokenizer_json(), settings("none", batch_size=1000))
    ((batch,),) = data.batches(epoch=1)
    rows = [whole.order.index(name) for name in batch.names]
    assert len(rows) > 2
    assert len(batch.faces) > 5
    length = model.architecture.vision_length
    noise = recorded_noise(golden.data / "expected.npz", whole, length)
    used = batch.inputs["vision_mask"].sum(1).int().tolist()
    draws = np.stack([noise(name, count, length) for name, count in zip(batch.names, used, strict=True)])
    noisy = replace(batch, inputs={**batch.inputs, "noise": torch.tensor(draws)})
    trainee = Trainee(model)
    trainee.enter("target")
    seen = trainee._seen(batch.faces)
    monkeypatch.setattr(trainee, "_seen", lambda _: seen)
    labels = golden.expected["labels"][rows]
    with torch.no_grad():
        for given, name in ((batch, "logits"), (noisy, "gumbel_logits")):
            expected = golden.expected[name][rows]
            np.testing.assert_allclose(trainee._target_logits(given).numpy(), expected, rtol=0, atol=1e-5)
            for weights in (batch.weights, *torch.eye(len(rows))):  # their mean, and each of them
                by_hand = (cross_entropies(expected, labels) * weights.double().numpy()).sum()
                assert trainee(replace(given, weights=weights)).item() == pytest.approx(by_hand, abs=1e-5)


@cache
def one_step(moves_faces: bool, order: str = "ours") -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a step over three dialogues, as ours or as published."""
    source = tiny_source("roberta")
    dataset = first_dialogues(read_data(GOLDEN / "roberta", "test", TINY["roberta"]), 3)
    data = TargetData(dataset, TINY["roberta"], source.tokenizer, settings("gumbel", batch_size=1000))
    ((batch,),) = data.batches(epoch=1)
    assert len({int(row) for row in batch.inputs["text_row"]}) == 3
    passes: Sequence[TargetBatch] = (batch,) if order == "ours" else published_passes(batch, 512)
    trainee = Trainee(source.model, moves_faces=moves_faces)
    trainee.enter("target")
    losses = [trainee(each) for each in passes]
    for loss in losses:
        loss.backward()
    gradients = {n: p.grad.clone() for n, p in source.model.named_parameters() if p.grad is not None}
    return sum(loss.item() for loss in losses), gradients


@pytest.mark.parametrize("moves_faces", [False, True])
def test_a_batch_gives_the_loss_and_the_gradients_of_the_published_way(moves_faces: bool) -> None:
    loss, gradients = one_step(moves_faces)
    expected_loss, expected = one_step(moves_faces, "published")
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert gradients.keys() == expected.keys()
    assert any(name.startswith("swin.") for name in expected) is moves_faces
    largest = max(tensor.norm().item() for tensor in expected.values())
    for name, tensor in expected.items():
        # of some, as of a key's bias, the true gradient is 0: what is computed of those is all rounding
        allowed = 1e-4 * tensor.norm().item() + 1e-6 * largest
        assert (gradients[name] - tensor).norm().item() <= allowed, name


def test_a_dialogue_is_encoded_once_by_us_and_once_an_utterance_as_published() -> None:
    source = tiny_source("roberta")
    dataset = first_dialogues(read_data(GOLDEN / "roberta", "test", TINY["roberta"]), 2)
    data = TargetData(dataset, TINY["roberta"], source.tokenizer, settings("none", batch_size=1000))
    ((batch,),) = data.batches(epoch=1)
    assert len(batch.inputs["input_ids"]) == 2
    assert batch.inputs["input_ids"].shape[1] < 512
    passes = published_passes(batch, 512)
    assert [tuple(each.inputs["input_ids"].shape) for each in passes] == [(1, 512)] * len(batch.labels)
    assert sum(float(each.weights.sum()) for each in passes) == pytest.approx(1)
    assert torch.equal(torch.cat([each.faces for each in passes]), batch.faces)
    assert [each.names[0] for each in passes] == list(batch.names)
