"""What a step does with losses and gradients that are no numbers, and with FP16's scaler."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmmt_deploy.errors import EnvironmentProblem, UnstableError
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.checkpoints import Checkpoints
from fmmt_deploy.training.objective import Trainee
from fmmt_deploy.training.optimisation import optimisers_of
from fmmt_deploy.training.state import Identity, Progress, read_state
from fmmt_deploy.training.stepping import Place, Stepper
from fmmt_deploy.training.watching import Phase
from tests.training.sources import SMALL, VISION, Portraits, Utterances, small_model, small_settings, weights_hash

PLACE = Place("target", 2, 3, 9)


class Alone:
    """Devices of one process, with a scaler if asked for; PyTorch has one for CPUs too."""

    main, processes, rank, device = True, 1, 0, torch.device("cpu")

    def __init__(self, scale: float = 0.0) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None

    def prepared(self, module: Any) -> Any:
        return module

    def unshared(self, module: Any, last: bool) -> Any:  # noqa: ARG002 - a protocol's signature
        return nullcontext()

    def summed(self, values: Any) -> Any:
        return values

    def gathered(self, value: Any) -> Any:
        return [value]


def stepper(scale: float = 0.0, architecture: Any = VISION, drop: float = 0.0) -> tuple[Stepper, Any, Any]:
    model, devices = small_model(architecture, drop), Alone(scale)
    made, _ = stepper_of(model, devices)
    return made, model, devices


def stepper_of(model: ReferenceModel, devices: Alone) -> tuple[Stepper, Any]:
    steps: dict[Phase, int] = {"target": 100} if model.architecture is VISION else {"target": 100, "faces": 100}
    optimisers = optimisers_of(model, small_settings(), steps)
    made = Stepper(Trainee(model), optimisers, devices, 1)  # type: ignore[arg-type]
    made.enter("target")
    return made, optimisers


def passes(source: Utterances | None = None) -> Any:
    return next((source or Utterances(VISION, passes=3)).batches(1))


def test_a_loss_that_is_no_number_names_its_batch() -> None:
    made, model, _ = stepper()
    source = Utterances(VISION, passes=3, broken="dia5_utt0")
    steps = passes(source)
    (guilty,) = [batch for batch in steps if "dia5_utt0" in batch.names]
    before = weights_hash(model)
    with pytest.raises(UnstableError, match="The loss is not finite in step 3 of the target phase in epoch 2") as error:
        made.step(PLACE, steps)
    assert error.value.why == f"Its batch: {', '.join(guilty.names)}."
    assert weights_hash(model) == before


def test_a_gradient_that_is_no_number_names_all_of_the_step() -> None:
    made, model, _ = stepper()
    batch = Utterances(VISION).batch(np.arange(7), 7)
    model.unimodal.classifier.bias.register_hook(lambda gradient: gradient * torch.nan)
    before = weights_hash(model)
    with pytest.raises(UnstableError, match="gradient is not finite") as error:
        made.step(PLACE, (batch,))
    assert error.value.why == ("Its batch: dia0_utt0, dia1_utt0, dia2_utt0, dia3_utt0, dia4_utt0 and 2 more.")
    assert weights_hash(model) == before


def test_passes_add_up_to_one() -> None:
    """A step of three passes is one of a single pass with all of their utterances."""
    split = passes()
    rows = np.concatenate([[int(name[3:].split("_")[0]) for name in batch.names] for batch in split])
    made, model, _ = stepper()
    other, twin, _ = stepper()
    first = made.step(PLACE, split)
    second = other.step(PLACE, (Utterances(VISION).batch(rows, len(rows)),))
    assert first.loss == pytest.approx(second.loss, abs=1e-6)
    assert first.gradient_norm == pytest.approx(second.gradient_norm, rel=1e-4)
    assert first.cases == second.cases == 12
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-3)


def test_utterances_of_no_weight_are_no_cases() -> None:
    made, _, _ = stepper()
    batch = Utterances(VISION).batch(np.arange(4), 4)
    weights = torch.tensor([0.5, 0.0, 0.5, 0.0])
    assert made.step(PLACE, (replace(batch, weights=weights),)).cases == 2


def test_the_gradient_is_clipped() -> None:
    made, model, _ = stepper()
    result = made.step(PLACE, passes())
    norm = np.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None))
    assert result.gradient_norm > 0.8
    assert norm == pytest.approx(0.8, rel=1e-4)


def test_a_scale_that_is_a_power_of_two_changes_nothing() -> None:
    made, model, _ = stepper()
    scaled, twin, _ = stepper(scale=2.0**10)
    a, b = made.step(PLACE, passes()), scaled.step(PLACE, passes())
    assert (a.loss, a.gradient_norm) == pytest.approx((b.loss, b.gradient_norm), rel=1e-5)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=2e-6, rtol=1e-4)


def test_a_scale_that_is_too_large_is_no_error() -> None:
    made, model, devices = stepper(scale=2.0**127)
    model.unimodal.classifier.bias.register_hook(lambda gradient: gradient * 64)
    before = weights_hash(model)
    result = made.step(PLACE, passes())
    assert np.isfinite(result.loss)
    assert not np.isfinite(result.gradient_norm)
    assert weights_hash(model) == before
    assert devices.scaler.get_scale() == 2.0**126
    while weights_hash(model) == before:
        result = made.step(PLACE, passes())
    assert np.isfinite(result.gradient_norm)


def test_a_gradient_that_overflows_at_every_scale_is_one() -> None:
    made, model, devices = stepper(scale=2.0**-22)
    model.unimodal.classifier.bias.register_hook(lambda gradient: gradient * torch.inf)
    made.step(PLACE, passes())
    made.step(PLACE, passes())
    with pytest.raises(UnstableError, match="gradient is not finite"):
        made.step(PLACE, passes())
    assert devices.scaler.get_scale() == 2.0**-25


def test_dropout_depends_on_the_place_alone() -> None:
    """So nothing of a generator has to be saved."""
    losses = []
    for place in (PLACE, replace(PLACE, step=4), PLACE):
        made, _, _ = stepper(drop=0.5)
        torch.rand(3)
        losses.append(made.step(place, passes()).loss)
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2.00 GiB."),
    ],
)
def test_too_little_memory(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = stepper()

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(Trainee, "forward", full)
    with pytest.raises(EnvironmentProblem, match="memory is too small for step 3") as problem:
        made.step(PLACE, passes())
    assert "batch_size" in problem.value.fix
    assert "2.00 GiB. Its batch: dia" in problem.value.why


def test_a_face_that_is_no_number_is_named() -> None:
    made, _, _ = stepper(architecture=SMALL)
    made.enter("faces")
    batch = next(Portraits().batches(1))
    batch.pixels[1, 0, 0, 0] = torch.nan
    with pytest.raises(UnstableError, match="of the faces phase") as error:
        made.step(Place("faces", 1, 1, 1), (batch,))
    assert error.value.why == f"Its batch: {', '.join(batch.names)}."


def test_all_hear_of_an_interrupt() -> None:
    made, _, _ = stepper()
    assert not made.step(PLACE, passes()).interrupted
    assert made.step(PLACE, passes(), interrupted=True).interrupted


def test_a_scaler_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its scale grows after some steps, counted over the restart; here in the fourth."""
    results = []
    for restart in (False, True):
        model, devices = small_model(VISION), Alone(2.0**10)
        assert devices.scaler is not None
        devices.scaler.set_growth_interval(4)
        made, optimisers = stepper_of(model, devices)
        for _ in range(3):
            made.step(PLACE, passes())
        if restart:
            identity, progress = Identity(small_settings(), {}, 1, "2.9"), Progress(step=3)
            Checkpoints(tmp_path, model, None, optimisers, devices, identity).save(progress)  # type: ignore[arg-type]
            saved = read_state(tmp_path)
            assert saved is not None
            model, devices = small_model(VISION), Alone(1.0)
            made, optimisers = stepper_of(model, devices)
            Checkpoints(tmp_path, model, None, optimisers, devices, identity).restore(saved)  # type: ignore[arg-type]
        for _ in range(2):
            made.step(PLACE, passes())
        assert devices.scaler is not None
        assert devices.scaler.get_scale() == 2.0**11
        results.append((weights_hash(model), devices.scaler.state_dict()))
    assert results[0] == results[1]
