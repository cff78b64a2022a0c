"""From named tensors to the PyTorch reference model, strictly; and from that model to files of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.training.checkpoints import CONFIG, SCHEMA, WEIGHTS, Checkpoint
from fmmt_deploy.training.model import ReferenceModel
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = ["model_from_checkpoint", "model_from_weight_files", "parts_of_model", "save_checkpoint", "save_weights"]


def model_from_checkpoint(checkpoint: Checkpoint, tau: float, threshold: float) -> ReferenceModel:
    """Builds the model and loads every part strictly: each tensor used, none missing, each of the right shape.

    Raises:
        CheckpointError: A tensor is missing, unknown, or of another shape.
    """
    model = _empty_model(checkpoint.architecture, tau, threshold)
    for name, part in parts_of_model(model).items():
        _load(part, name, checkpoint.parts[name])
    return _complete(model)


def model_from_weight_files(
    architecture: Architecture, files: Mapping[GraphName, Path], tau: float, threshold: float
) -> ReferenceModel:
    """Builds the model from the safetensors files of its graphs, as `save_weights` wrote them.

    Raises:
        CheckpointError: A file does not fit the architecture.
    """
    model = _empty_model(architecture, tau, threshold)
    for name, part in parts_of_model(model).items():
        try:
            part.load_state_dict(load_file(files[name]), strict=False, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{files[name]} does not fit the architecture: {error}", path=files[name]) from error
    return _complete(model)


def parts_of_model(model: ReferenceModel) -> dict[GraphName, nn.Module]:
    """The model's modules by graph."""
    return {name: getattr(model, name) for name in GRAPHS if hasattr(model, name)}


def save_weights(part: nn.Module, path: Path) -> None:
    """Writes one part's float tensors as safetensors, with our names."""
    tensors = {n: t.contiguous() for n, t in part.state_dict().items() if t.is_floating_point()}
    save_file(tensors, path)


def save_checkpoint(model: ReferenceModel, folder: Path) -> None:
    """Writes a run folder of ours: safetensors and a JSON configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if t.is_floating_point()}
    save_file(tensors, folder / WEIGHTS)
    config = {
        "schema": SCHEMA,
        "architecture": asdict(model.architecture),
        "tau": model.tau,
        "threshold": model.threshold,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _load(part: nn.Module, name: GraphName, tensors: Mapping[str, NDArray[Any]]) -> None:
    wanted = {n: tuple(t.shape) for n, t in part.state_dict().items() if t.is_floating_point()}
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    for problem, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            raise CheckpointError(
                f"The checkpoint {problem} tensor {names[0]} of {name}"
                + (f" (and {len(names) - 1} more)." if len(names) > 1 else "."),
                fix="It is incomplete, or of another version of the model.",
                tensor=names[0],
            )
    for key, shape in wanted.items():
        if tensors[key].shape != shape:
            raise CheckpointError(
                f"{name}: {key} has shape {tensors[key].shape}, expected {shape} by the other tensors.",
                fix="The checkpoint is damaged, or put together from different models.",
                tensor=key,
            )
    part.load_state_dict({n: torch.tensor(tensors[n]) for n in wanted}, strict=False, assign=True)


class _WithoutMemory(TorchFunctionMode):
    """Makes parameters without memory or random numbers, since a checkpoint's tensors take their place."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("dtype") in (None, torch.float32):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _empty_model(architecture: Architecture, tau: float, threshold: float) -> ReferenceModel:
    with _WithoutMemory():
        return ReferenceModel(architecture, tau, threshold)


def _complete(model: ReferenceModel) -> ReferenceModel:
    if left := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise CheckpointError(f"The weights lack tensor {left[0]}.", tensor=left[0])
    for module in model.modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            # timm computes Swin's shift masks on the weights' device, and has this method for models made on `meta`.
            cast(Callable[[], None], module.init_non_persistent_buffers)()
    return model.eval()
