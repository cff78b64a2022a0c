"""What moves the weights in each phase, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim import AdamW

from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.watching import Phase

__all__ = ["Optimiser", "optimisers_of", "rate_factor"]


def rate_factor(step: int, steps: int, warm_up: float) -> float:
    """What a step's rate is of the highest: it rises in a line, and then falls in one, to reach 0 after the last step.

    No step is made at 0, as the first one is where steps are counted from 0.

    Args:
        step: From 1.
        steps: All there are.
        warm_up: Share of them in which it rises.
    """
    rising = max(1, round(warm_up * steps))
    if step <= rising:
        return step / rising
    return (steps + 1 - step) / (steps + 1 - rising)


class Optimiser:
    """AdamW over one phase's parameters.

    Biases and LayerNorm's weights decay like all others: nothing is said of the published run but its decay.

    Args:
        parameters: By part of the model: what it moves, and the highest rate.
        weight_decay: Of all.
        warm_up: See `rate_factor`.
        clip: Largest norm of the gradient.
        steps: How many it will make.

    Attributes:
        adam: PyTorch's.
        clip: As given.
        names: Of its parameters, in PyTorch's order.
    """

    def __init__(
        self,
        parameters: Mapping[str, tuple[Mapping[str, nn.Parameter], float]],
        weight_decay: float,
        warm_up: float,
        clip: float,
        steps: int,
    ) -> None:
        self.clip, self._warm_up, self._steps = clip, warm_up, steps
        self.names = tuple(name for named, _ in parameters.values() for name in named)
        self._peaks = [rate for _, rate in parameters.values()]
        groups = [{"params": list(named.values()), "lr": rate} for named, rate in parameters.values()]
        # Fused: one pass over the weights, and no temporaries; several times faster than PyTorch's default on a CPU.
        self.adam = AdamW(groups, weight_decay=weight_decay, fused=True)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that it moves."""
        return [parameter for group in self.adam.param_groups for parameter in group["params"]]

    def set_rates(self, step: int) -> float:
        """Sets the rates of a step, counted from 1 over the whole training, and gives the first group's."""
        factor = rate_factor(step, self._steps, self._warm_up)
        for group, peak in zip(self.adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        return self._peaks[0] * factor


def optimisers_of(model: ReferenceModel, settings: Settings, steps: Mapping[Phase, int]) -> dict[Phase, Optimiser]:
    """The optimisers of the phases that have steps.

    The Swin has two where `target.moves_faces`: their gradients are of different losses, and so are their moments.

    Args:
        model: On the device where it is trained.
        settings: Of the training.
        steps: Of the whole training, by phase.
    """
    faces, target = settings.faces, settings.target
    made: dict[Phase, Optimiser] = {}
    if steps.get("faces"):
        named = {"swin": (_named(model, "swin"), faces.learning_rate)}
        made["faces"] = Optimiser(named, faces.weight_decay, faces.warm_up, faces.clip, steps["faces"])
    if steps.get("target"):
        named = {part: (_named(model, part), rate) for part, rate in _target_rates(model, settings)}
        made["target"] = Optimiser(named, target.weight_decay, target.warm_up, target.clip, steps["target"])
    return made


def _target_rates(model: ReferenceModel, settings: Settings) -> Iterator[tuple[str, float]]:
    target = settings.target
    if model.architecture.modality == "V":
        yield "unimodal", target.learning_rate
        return
    yield "fusion", target.learning_rate
    yield "plm", target.plm_learning_rate or target.learning_rate
    if target.moves_faces:
        yield "swin", target.faces_learning_rate


def _named(model: ReferenceModel, part: str) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": parameter for name, parameter in getattr(model, part).named_parameters()}
