"""From named tensors to the PyTorch reference model, strictly; and from that model to files of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fmmt_deploy.architecture import Architecture
from fmmt_deploy.bundle.atomic import replaced_file
from fmmt_deploy.errors import CheckpointError, EnvironmentProblem
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.run_folder import CONFIG, SCHEMA, TOKENIZER, WEIGHTS, RunConfig
from fmmt_deploy.reference.weights import Checkpoint, Tensors
from fmmt_deploy.types import GRAPHS, GraphName

__all__ = [
    "load_strictly",
    "model_from_checkpoint",
    "model_from_weight_files",
    "parts_of_model",
    "save_checkpoint",
    "save_weights",
]


def model_from_checkpoint(checkpoint: Checkpoint, tau: float, threshold: float) -> ReferenceModel:
    """Builds the model and loads every part strictly: each tensor used, none missing, each of the right shape.

    Raises:
        CheckpointError: A tensor is missing, unknown, or of another shape.
    """
    model = _empty_model(checkpoint.architecture, tau, threshold)
    for name, part in parts_of_model(model).items():
        load_strictly(part, name, checkpoint.parts[name])
    return _complete(model)


def load_strictly(part: nn.Module, name: GraphName, tensors: Tensors) -> None:
    """Puts tensors in the place of a module's own: each is used, none is missing, each has the right shape.

    Args:
        part: The module.
        name: The part of the model it is or belongs to, for messages.
        tensors: By its names; copied.

    Raises:
        CheckpointError: A tensor is missing, unknown, or of another shape.
    """
    _check(part, name, {key: array.shape for key, array in tensors.items()})
    _load(part, {key: torch.tensor(array) for key, array in tensors.items()})


def model_from_weight_files(
    architecture: Architecture, files: Mapping[GraphName, Path], tau: float, threshold: float
) -> ReferenceModel:
    """Builds the model from the safetensors files of its graphs, as `save_weights` wrote them; they stay mapped.

    Raises:
        CheckpointError: A file does not fit the architecture.
    """
    model = _empty_model(architecture, tau, threshold)
    for name, part in parts_of_model(model).items():
        try:
            tensors = load_file(files[name])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{files[name]} can't be read: {error}.", path=files[name]) from error
        _check(part, name, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
        _load(part, tensors)
    return _complete(model)


def parts_of_model(model: ReferenceModel) -> dict[GraphName, nn.Module]:
    """The model's modules by graph."""
    return {name: getattr(model, name) for name in GRAPHS if hasattr(model, name)}


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes a module's float tensors as safetensors, with our names.

    Raises:
        EnvironmentProblem: It can't be written; a full disk, for one.
    """
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file({name: tensor.contiguous() for name, tensor in _weights(module).items()}, path)
        path.chmod(mode)  # safetensors' are for their owner only; a bundle is to be passed on
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(
            f"{path} can't be written.", why=str(error), fix="Free some space, or write elsewhere.", path=path
        ) from error


def save_checkpoint(model: ReferenceModel, folder: Path, tokenizer: str | None = None) -> None:
    """Writes a run folder of ours (see `run_folder`); each file is replaced in one step, the configuration last.

    Args:
        model: It.
        folder: Where to; made if need be.
        tokenizer: Content of its `tokenizer.json`, without which a model that reads text can't be exported from the
            folder alone. Without it, one that is there stays.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        with replaced_file(folder / TOKENIZER) as path:
            path.write_text(tokenizer, encoding="utf-8")
    with replaced_file(folder / WEIGHTS) as path:
        save_weights(model, path)
    config = RunConfig(SCHEMA, model.architecture, model.tau, model.threshold)
    with replaced_file(folder / CONFIG) as path:
        path.write_text(json.dumps(asdict(config), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that a checkpoint must have: all floats (a batch counter is none)."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def _check(part: nn.Module, name: GraphName, shapes: Mapping[str, tuple[int, ...]]) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in _weights(part).items()}
    missing, unknown = sorted(wanted.keys() - shapes.keys()), sorted(shapes.keys() - wanted.keys())
    for problem, names in (("lacks the", missing), ("has the unknown", unknown)):
        if names:
            raise CheckpointError(
                f"The checkpoint {problem} tensor {names[0]} of {name}"
                + (f" (and {len(names) - 1} more)." if len(names) > 1 else "."),
                fix="It is incomplete, or of another version of the model.",
                tensor=names[0],
            )
    for key, shape in wanted.items():
        if shapes[key] != shape:
            raise CheckpointError(
                f"{name}: {key} has shape {shapes[key]}, expected {shape} by the other tensors.",
                fix="The checkpoint is damaged, or put together from different models.",
                tensor=key,
            )


def _load(part: nn.Module, tensors: dict[str, Tensor]) -> None:
    # Not torch's own strictness: it wants the batch counter too, which no answer depends on.
    part.load_state_dict(tensors, strict=False, assign=True)


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
