"""Losses against sums by hand and PyTorch's own layers; an utterance's never depends on its batch mates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.batches import FaceBatch
from fmmt_deploy.training.objective import SharedBatchNorm, Trainee
from tests.training.sources import SMALL, VISION, Portraits, Utterances, small_model


def trainee(phase: str = "target", moves_faces: bool = False) -> Trainee:
    made = Trainee(small_model(), moves_faces=moves_faces)
    made.enter(phase)  # type: ignore[arg-type]
    return made


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def test_the_target_loss_is_the_weighted_sum_of_what_the_reference_answers() -> None:
    (batch,) = next(Utterances().batches(1))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    model = small_model()
    states = model.run("plm", batch.inputs)["token_states"]
    faces = model.run("swin", {"faces": batch.faces})["face_logits"]
    logits = model.run("fusion", {**batch.inputs, "token_states": states, "face_logits": faces})["logits"]
    expected = (cross_entropy(logits.numpy(), batch.labels.numpy()) * weights.numpy()).sum()
    assert trainee()(replace(batch, weights=weights)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("architecture", [SMALL, VISION], ids=["T+A+V", "V"])
def test_the_loss_of_a_batch_is_that_of_its_utterances_alone(architecture: object) -> None:
    source = Utterances(architecture)  # type: ignore[arg-type]
    made = Trainee(small_model(source.architecture))
    made.enter("target")
    together = source.batch(np.arange(4), 4)
    alone = [source.batch(np.array([row]), 4) for row in range(4)]
    made(together).backward()
    gradients = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad(set_to_none=True)
    losses = [made(batch) for batch in alone]
    torch.stack(losses).sum().backward()
    assert sum(loss.item() for loss in losses) == pytest.approx(made(together).item(), abs=1e-6)
    assert gradients
    for name, parameter in made.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-6, rtol=1e-4)


def test_the_target_loss_moves_the_swin_only_where_asked() -> None:
    (batch,) = next(Utterances().batches(1))
    for moves in (False, True):
        made = trainee(moves_faces=moves)
        before = made.model.swin.output_layer[3].running_mean.clone()
        made(batch).backward()
        moved = [p.grad is not None and bool(p.grad.any()) for p in made.model.swin.parameters()]
        assert any(moved) == moves
        assert torch.equal(made.model.swin.output_layer[3].running_mean, before)
        assert made.model.plm.plm.embeddings.word_embeddings.weight.grad is not None


@pytest.mark.parametrize("faces_at_once", [3, 128])
def test_many_faces_move_the_swin_in_little_memory(faces_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept for the way back: of one part what it computed, of several only their pixels; the gradients are the same."""

    def kept_and_gradients() -> tuple[int, list[torch.Tensor]]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        made = trainee(moves_faces=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = made(batch)
        loss.backward()
        return sum(kept.values()), [p.grad for p in made.model.swin.parameters() if p.grad is not None]

    (batch,) = next(Utterances().batches(1))
    whole, expected = kept_and_gradients()
    monkeypatch.setattr("fmmt_deploy.training.objective.FACES_AT_ONCE", faces_at_once)
    kept, found = kept_and_gradients()
    assert kept < 0.5 * whole if faces_at_once < len(batch.faces) else kept == whole
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_utterances_without_faces() -> None:
    (batch,) = next(Utterances().batches(1))
    inputs = {**batch.inputs, "vision_mask": torch.zeros(4, 6), "face_index": torch.zeros(4, 6, dtype=torch.int64)}
    for moves in (False, True):
        loss = trainee(moves_faces=moves)(replace(batch, inputs=inputs, faces=batch.faces[:0]))
        loss.backward()
        assert torch.isfinite(loss)


def test_weights_of_nothing_give_no_gradient() -> None:
    (batch,) = next(Utterances().batches(1))
    made = trainee()
    loss = made(replace(batch, weights=torch.zeros(4)))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in made.parameters() if p.grad is not None)


def test_modes_of_the_phases() -> None:
    made = trainee("faces")
    assert (made.model.swin.training, made.model.plm.training, made.model.fusion.training) == (True, False, False)
    made.enter("target")
    assert (made.model.swin.training, made.model.plm.training, made.model.fusion.training) == (False, True, True)


def test_the_faces_loss_is_their_mean() -> None:
    batch = next(Portraits().batches(1))
    model = small_model()
    model.swin.train()
    logits = model.swin.head(model.swin.tokens(batch.pixels)).detach().numpy()
    made = trainee("faces")
    assert made(batch).item() == pytest.approx(cross_entropy(logits, batch.labels.numpy()).mean(), abs=1e-5)
    assert made(replace(batch, share=0.25)).item() == pytest.approx(made(batch).item() / 4, abs=1e-6)


def test_a_process_without_faces_takes_part() -> None:
    made = trainee("faces")
    nothing = FaceBatch(torch.zeros(0, 3, 224, 224), torch.zeros(0, dtype=torch.int64), 0.0, ())
    # With others its BatchNorm sums over all; alone there is no mean of nothing, so it gets one here.
    norm = made.model.swin.output_layer[3]
    norm._summed = lambda values: values + 1
    loss = made(nothing)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None for p in made.model.swin.parameters())


def norms(rows: int) -> tuple[SharedBatchNorm, nn.BatchNorm1d, torch.Tensor]:
    torch.manual_seed(rows)
    plain, twin = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    for norm in (plain, twin):
        nn.init.constant_(norm.weight, 1.7)
        nn.init.constant_(norm.bias, 0.3)
    return SharedBatchNorm(plain), twin, torch.randn(rows, 5) * 3 + 7


def test_shared_batch_norm_computes_what_pytorchs_does() -> None:
    shared, twin, rows = norms(6)
    shared._processes = 2  # its own arithmetic, with nobody to share with
    shared._summed = lambda values: values  # type: ignore[method-assign]
    a, b = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    wanted = torch.randn(6, 5)
    found, expected = shared(a), twin(b)
    (found * wanted).sum().backward()
    (expected * wanted).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shared.weight.grad, twin.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shared.running_mean, twin.running_mean)
    torch.testing.assert_close(shared.running_var, twin.running_var)
    assert shared.num_batches_tracked == twin.num_batches_tracked == 1
    torch.testing.assert_close(shared.eval()(rows), twin.eval()(rows), atol=1e-5, rtol=1e-5)


def test_one_row_is_as_if_it_were_there_twice() -> None:
    shared, twin, row = norms(1)
    torch.testing.assert_close(shared(row), twin(row.repeat(2, 1))[:1], atol=1e-3, rtol=0)
    torch.testing.assert_close(shared.running_mean, twin.running_mean)
    torch.testing.assert_close(shared.running_var, twin.running_var)


def test_the_models_own_numbers_are_trained() -> None:
    model: ReferenceModel = small_model()
    names, values = list(model.state_dict()), {id(p) for p in model.parameters()}
    Trainee(model)
    assert list(model.state_dict()) == names
    assert {id(p) for p in model.parameters()} == values
