"""The losses of both phases, and the model in the mode each needs.

In the target phase the Swin is in eval mode: BatchNorm with its running statistics, no stochastic depth. So an
utterance's loss never depends on what else is in its batch.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.swin import normalised_pixels
from fmmt_deploy.training.batches import FaceBatch, TargetBatch
from fmmt_deploy.training.watching import Phase
from fmmt_deploy.types import EMOTIONS, FACE_PIXELS

__all__ = ["SharedBatchNorm", "Trainee"]

FACES_AT_ONCE, FACES_AT_ONCE_ON_CPU = 128, 16
"""Enough to fill a GPU, and no more memory however long the utterances are. A CPU is a third faster with few, whose
tokens stay in its caches; only without gradients, as with them parts cost a computation more."""

_NORM = 3
"""Where the published head has its BatchNorm."""


class Trainee(nn.Module):
    """A model with its losses, so that what shares gradients between processes wraps all of it once.

    Args:
        model: It is trained in place; its BatchNorm is replaced by a `SharedBatchNorm` of the same parameters.
        processes: That train together.
        moves_faces: Whether the target loss reaches the Swin.
    """

    def __init__(self, model: ReferenceModel, processes: int = 1, moves_faces: bool = False) -> None:
        super().__init__()
        self.model, self._processes, self._moves_faces = model, processes, moves_faces
        if model.architecture.swin is not None:
            head = model.swin.output_layer
            head[_NORM] = SharedBatchNorm(cast(nn.BatchNorm1d, head[_NORM]), processes)

    def enter(self, phase: Phase) -> None:
        """Sets the modes of a phase; see the module."""
        self.model.train(phase == "target")
        if self.model.architecture.swin is not None:
            self.model.swin.train(phase == "faces")

    def forward(self, batch: FaceBatch | TargetBatch) -> Tensor:
        """This process's part of the step's mean loss, times the number of processes.

        The parts of all passes and processes have the step's loss as their sum; that of their gradients is what is
        wanted, but what shares them between processes takes their mean, hence the factor.

        Returns:
            A float32 scalar.
        """
        if isinstance(batch, FaceBatch):
            losses = F.cross_entropy(self._face_logits(batch.pixels).float(), batch.labels, reduction="sum")
            return losses * (batch.share * self._processes / max(len(batch.labels), 1))
        losses = F.cross_entropy(self._target_logits(batch).float(), batch.labels, reduction="none")
        return (losses * batch.weights).sum() * self._processes

    def _face_logits(self, pixels: Tensor) -> Tensor:
        swin = self.model.swin
        if len(pixels):
            return swin.head(swin.tokens(pixels))
        # Without faces of its own a process still has to take part in BatchNorm and in sharing gradients.
        return swin.head(swin.tokens(pixels.new_zeros(1, 3, FACE_PIXELS, FACE_PIXELS))[:0])

    def _target_logits(self, batch: TargetBatch) -> Tensor:
        inputs, model = batch.inputs, self.model
        if model.architecture.modality == "V":
            return model.compute("unimodal", inputs)["logits"]
        states = model.compute("plm", inputs)["token_states"]
        faces = self._seen(batch.faces)
        return model.compute("fusion", {**inputs, "token_states": states, "face_logits": faces})["logits"]

    def _seen(self, faces: Tensor) -> Tensor:
        swin = self.model.swin
        if not len(faces):
            return torch.zeros(1, len(EMOTIONS), device=faces.device)  # no row refers to it
        if self._moves_faces:
            return self._seen_with_gradient(faces)
        with torch.no_grad():
            count = FACES_AT_ONCE_ON_CPU if faces.device.type == "cpu" else FACES_AT_ONCE
            return torch.cat([swin.head(swin.tokens(normalised_pixels(part))) for part in torch.split(faces, count)])

    def _seen_with_gradient(self, faces: Tensor) -> Tensor:
        """Of more faces than one part has, each part is computed again on the way back: they would fill any memory."""
        swin, parts = self.model.swin, torch.split(faces, FACES_AT_ONCE)
        if len(parts) == 1:
            logits: Tensor = swin(faces)
            return logits
        return torch.cat(
            [cast(Tensor, checkpoint(swin, part, use_reentrant=False, preserve_rng_state=False)) for part in parts]
        )


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm with the statistics of all processes' rows; PyTorch's own `SyncBatchNorm` needs a GPU.

    One row, which PyTorch refuses, gives what the published code gets by doubling it: the bias.

    Args:
        norm: Whose parameters and statistics it shares.
        processes: That train together.
    """

    def __init__(self, norm: nn.BatchNorm1d, processes: int = 1) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias, self._processes = norm.weight, norm.bias, processes
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, rows: Tensor) -> Tensor:
        """Maps `rows` (N, features), which may be none where another process has some, to the same shape."""
        if not self.training or (self._processes == 1 and len(rows) > 1):
            return super().forward(rows)
        rows = rows.float()
        count = self._summed(torch.tensor(float(len(rows)), device=rows.device)).item()
        mean = self._summed(rows.sum(0)) / count
        variance = self._summed((rows - mean).square().sum(0)) / count
        self._remember(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        return (rows - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def _summed(self, values: Tensor) -> Tensor:
        if self._processes == 1:
            return values
        total: Tensor = _Summed.apply(values)
        return total

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        for kept, new in ((self.running_mean, mean), (self.running_var, variance)):
            if kept is not None and self.momentum is not None:
                kept.lerp_(new, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Summed(torch.autograd.Function):
    """The sum over all processes; each one's part of the result has the sum of all gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:  # noqa: ARG004 - PyTorch's signature
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total
