"""One step of an optimiser: its passes, the gradient's norm, and what stops a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fmmt_deploy.errors import EnvironmentProblem, UnstableError
from fmmt_deploy.training.batches import FaceBatch, TargetBatch
from fmmt_deploy.training.devices import Devices
from fmmt_deploy.training.draws import seed_of
from fmmt_deploy.training.objective import Trainee
from fmmt_deploy.training.optimisation import Optimiser
from fmmt_deploy.training.watching import Phase

__all__ = ["Place", "StepResult", "Stepper"]

Batch = FaceBatch | TargetBatch

SHOWN = 5
SMALLEST_SCALE = 2.0**-24
"""Where FP16's smallest number stands for 1: a gradient that still overflows is no matter of scale."""
NO_MEMORY = "can't allocate memory"
"""PyTorch's message on a CPU, where it has no kind of error for it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which step: of a phase, in an epoch from 1, from 1 in the phase of that epoch, and from 1 in all of them."""

    phase: Phase
    epoch: int
    step: int
    total: int

    def __str__(self) -> str:
        return f"step {self.step} of the {self.phase} phase in epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step was like; see `StepRecord`. `interrupted` says that some process is to be interrupted."""

    loss: float
    learning_rate: float
    gradient_norm: float
    cases: int
    interrupted: bool = False


class Stepper:
    """Makes steps, together with the other processes' steppers.

    The same step from the same weights gives the same bits on a CPU with the same number of threads, and after a
    restart too. On a GPU some sums (embeddings' gradients) are made in an order that changes from run to run:
    there a resumed run starts from the very weights that were saved, but what follows is the same within rounding only.

    Args:
        trainee: The model with its losses.
        optimisers: By phase.
        devices: This process's.
        seed: Of the training.
    """

    def __init__(self, trainee: Trainee, optimisers: Mapping[Phase, Optimiser], devices: Devices, seed: int) -> None:
        self._trainee, self._module, self._devices = trainee, devices.prepared(trainee), devices
        self._optimisers, self._seed = optimisers, seed

    def enter(self, phase: Phase) -> None:
        """To be called before a phase's steps, and again after anything else used the model."""
        self._trainee.enter(phase)

    def step(self, place: Place, passes: Sequence[Batch], interrupted: bool = False) -> StepResult:
        """Makes one step.

        Args:
            place: Which.
            passes: This process's; each process has as many.
            interrupted: Whether this process is to be interrupted, for all to know.

        Raises:
            UnstableError: The loss or the gradient is not finite; the weights are those before the step.
            EnvironmentProblem: The device's memory is full.
        """
        optimiser, devices = self._optimisers[place.phase], self._devices
        torch.manual_seed(seed_of(self._seed, place.phase, place.epoch, place.step, devices.rank))
        rate = optimiser.set_rates(place.total)
        optimiser.adam.zero_grad(set_to_none=True)
        try:
            losses = torch.stack([self._passed(batch, n == len(passes)) for n, batch in enumerate(passes, 1)])
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or NO_MEMORY in str(error):
                raise _out_of_memory(place, passes, error) from error
            raise
        counts = losses.new_tensor([sum(_cases(batch) for batch in passes), interrupted])
        loss, cases, stop = devices.summed(torch.cat([losses.sum()[None] / devices.processes, counts])).tolist()
        if not math.isfinite(loss):
            raise self._unstable(place, "loss", passes, losses.tolist())
        norm = self._moved(optimiser)
        if not math.isfinite(norm) and (devices.scaler is None or devices.scaler.get_scale() < SMALLEST_SCALE):
            raise self._unstable(place, "gradient", passes, [math.nan] * len(passes))
        return StepResult(loss, rate, norm, int(cases), stop > 0)

    def _passed(self, batch: Batch, last: bool) -> Tensor:
        """Adds the gradient of one pass, and gives its loss."""
        with self._devices.unshared(self._module, last):
            loss: Tensor = self._module(batch.to(self._devices.device))
            scaler = self._devices.scaler
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _moved(self, optimiser: Optimiser) -> float:
        """Clips the gradient and moves the weights, and gives the norm; where that is not finite, they stay.

        A scaler tries too large scales now and then on purpose: such a step is left out, and the next scale is smaller.
        """
        scaler = self._devices.scaler
        if scaler is not None:
            scaler.unscale_(optimiser.adam)
        norm = float(nn.utils.clip_grad_norm_(optimiser.parameters, optimiser.clip))
        if scaler is not None:
            scaler.step(optimiser.adam)
            scaler.update()
        elif math.isfinite(norm):
            optimiser.adam.step()
        return norm

    def _unstable(self, place: Place, what: str, passes: Sequence[Batch], losses: Sequence[float]) -> UnstableError:
        """Names the batches of all processes in which it happened; each of them comes here."""
        pairs = zip(passes, losses, strict=True)
        own = [name for batch, loss in pairs if not math.isfinite(loss) for name in batch.names]
        names = [name for names in self._devices.gathered(own) for name in names]
        return UnstableError(
            f"The {what} is not finite in {place}.",
            why=f"Its batch: {_some(names)}.",
            fix="Lower the learning rate, or use --set run.precision=fp32. In a first step, look at these features.",
        )


def _cases(batch: Batch) -> int:
    """How many count: those of no weight only make all processes do as many passes."""
    return len(batch.labels) if isinstance(batch, FaceBatch) else int(batch.weights.count_nonzero())


def _out_of_memory(place: Place, passes: Sequence[Batch], error: Exception) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"The device's memory is too small for {place}.",
        why=f"{str(error).splitlines()[0]} Its batch: {_some([name for batch in passes for name in batch.names])}.",
        fix="Make batch_size smaller, and accumulate (of the target) as much larger; the results stay the same.",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
