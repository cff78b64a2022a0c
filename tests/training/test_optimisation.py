"""Rates by hand, and AdamW against its formula in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fmmt_deploy.training.optimisation import Optimiser, optimisers_of, rate_factor
from tests.training.sources import VISION, small_model, small_settings


def test_rates_rise_and_fall_in_lines() -> None:
    assert [rate_factor(step, 10, 0.2) for step in range(1, 11)] == pytest.approx(
        [1 / 2, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]
    )


@pytest.mark.parametrize("warm_up", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_every_step_has_a_rate(steps: int, warm_up: float) -> None:
    factors = [rate_factor(step, steps, warm_up) for step in range(1, steps + 1)]
    assert max(factors) == 1
    assert min(factors) > 0
    top = factors.index(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_weights_move_as_adamw_says() -> None:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2."""
    draws = np.random.default_rng(0)
    weights = draws.standard_normal(20)
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
    optimiser = Optimiser({"part": ({"weight": parameter}, 0.1)}, weight_decay=0.3, warm_up=0.5, clip=1.0, steps=4)
    m = v = np.zeros(20)
    for step in range(1, 5):
        gradient = draws.standard_normal(20)
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        rate = optimiser.set_rates(step)
        optimiser.adam.step()
        assert rate == pytest.approx(0.1 * [1 / 2, 1, 2 / 3, 1 / 3][step - 1])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        change = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        weights = weights - rate * 0.3 * weights - rate * change
    np.testing.assert_allclose(parameter.detach().numpy(), weights, atol=1e-5)


def test_parts_have_their_own_rates() -> None:
    settings = small_settings(plm_learning_rate=1e-4, moves_faces=True, faces_learning_rate=1e-5)
    made = optimisers_of(small_model(), settings, {"faces": 10, "target": 10})
    assert [group["lr"] for group in made["target"].adam.param_groups] == [1e-3, 1e-4, 1e-5]
    made["target"].set_rates(10)
    assert [g["lr"] * 10 for g in made["target"].adam.param_groups] == pytest.approx([1e-3, 1e-4, 1e-5], rel=0.2)
    assert {name.partition(".")[0] for name in made["target"].names} == {"fusion", "plm", "swin"}
    assert {name.partition(".")[0] for name in made["faces"].names} == {"swin"}
    assert len(made["target"].names) == len(made["target"].parameters)


def test_the_published_target_task_has_no_face_in_it() -> None:
    made = optimisers_of(small_model(), small_settings(), {"target": 10})
    assert list(made) == ["target"]
    assert {name.partition(".")[0] for name in made["target"].names} == {"fusion", "plm"}
    assert [group["lr"] for group in made["target"].adam.param_groups] == [1e-3, 1e-3]


def test_all_of_a_vision_only_model_moves() -> None:
    model = small_model(VISION)
    made = optimisers_of(model, replace(small_settings()), {"target": 10})
    assert set(made["target"].names) == {name for name, _ in model.named_parameters()}
