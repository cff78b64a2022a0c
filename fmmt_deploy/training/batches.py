"""What the model is given in training: one pass of one process, made by the data's workers; and who gives it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Batches", "FaceBatch", "Faces", "Target", "TargetBatch"]

S = TypeVar("S", covariant=True)


@dataclass(frozen=True, slots=True)
class FaceBatch:
    """Labelled faces.

    Attributes:
        pixels: Augmented and normalised, float32 (N, 3, 224, 224).
        labels: (N,), int64.
        share: Of this process in the step's mean loss: its faces by all processes'.
        names: Which faces they are, for messages.
    """

    pixels: Tensor
    labels: Tensor
    share: float
    names: tuple[str, ...]

    def to(self, device: torch.device) -> FaceBatch:
        """The same, on a device; pinned memory is copied while the host goes on."""
        return replace(self, pixels=_moved(self.pixels, device), labels=_moved(self.labels, device))

    def pin_memory(self) -> FaceBatch:
        """The same, where a GPU can fetch it from; PyTorch's data loader calls it by this name."""
        return replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory())

    def share_memory(self) -> None:
        """Moves it to where another process can have it."""
        _share(self.pixels, self.labels)


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Utterances with all that is read for them; each dialogue stands in it once.

    Attributes:
        inputs: What `plm` and `fusion` (or `unimodal`) take, by the graphs' names, but for what the graphs give each
            other; see `fmmt_deploy.pipeline.inputs`.
        faces: uint8 (N, 224, 224, 3), those that `face_index` counts; none in a vision-only model's.
        labels: (U,), int64.
        weights: (U,), of each in the step's loss: 1 by the utterances of all its passes and processes, times the weight
            of its emotion.
        names: The utterances' ids.
    """

    inputs: Mapping[str, Tensor]
    faces: Tensor
    labels: Tensor
    weights: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> TargetBatch:
        """The same, on a device; pinned memory is copied while the host goes on."""
        return replace(
            self,
            inputs={name: _moved(tensor, device) for name, tensor in self.inputs.items()},
            faces=_moved(self.faces, device),
            labels=_moved(self.labels, device),
            weights=_moved(self.weights, device),
        )

    def pin_memory(self) -> TargetBatch:
        """The same, where a GPU can fetch it from; PyTorch's data loader calls it by this name."""
        return replace(
            self,
            inputs={name: tensor.pin_memory() for name, tensor in self.inputs.items()},
            faces=self.faces.pin_memory(),
            labels=self.labels.pin_memory(),
            weights=self.weights.pin_memory(),
        )

    def share_memory(self) -> None:
        """Moves it to where another process can have it."""
        _share(*self.inputs.values(), self.faces, self.labels, self.weights)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def _share(*tensors: Tensor) -> None:
    for tensor in tensors:
        tensor.share_memory_()  # type: ignore[no-untyped-call]


class Batches(Protocol[S]):
    """What a phase is fed with, `TargetData` or `FaceData`: an epoch's steps, the same whenever they are asked for."""

    @property
    def fingerprint(self) -> str:
        """Differs where the data do."""
        ...

    def steps(self, epoch: int) -> int:
        """Steps of an epoch, from 1."""
        ...

    def batches(self, epoch: int, first: int = 0, rank: int = 0, processes: int = 1) -> Generator[S, None, None]:
        """Every step of an epoch from one on, as one of the processes has it."""
        ...


Target = Batches[tuple[TargetBatch, ...]]
"""Each step with its passes."""

Faces = Batches[FaceBatch]
"""Each step is one pass."""
