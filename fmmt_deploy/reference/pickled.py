"""Pickled checkpoints, whole modules or state dicts, as inert trees: their tensors, and what their attributes tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmmt_deploy.data.pickles import Node
from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.reference.plm_settings import PlmSettings, plm_settings_from_config
from fmmt_deploy.reference.sizes import Facts
from fmmt_deploy.reference.weights import Tensors

__all__ = ["facts_of", "tensors_of"]

WRAPPERS = ("_original_module", "_forward_module", "module")
"""Where Lightning's and DataParallel's wrappers keep the module."""

STATE_DICTS = ("state_dict", "model", "model_state_dict")
"""Under which keys a training saves its weights beside other things."""

MAX_NESTING = 50
MAX_MODULES = 20_000
"""A hostile tree can share its branches, and so be short to write and endless to walk."""


def tensors_of(tree: object, path: Path) -> Tensors:
    """All parameters and buffers of what a checkpoint holds: a whole module, a state dict, or a dict around one.

    Args:
        tree: As read by `fmmt_deploy.data.pickles.read_pickle`.
        path: For messages.

    Raises:
        CheckpointError: There are no tensors in it, or its modules have no end.
    """
    tensors = _module_tensors(tree, path) if isinstance(tree, Node) else _state_dict(tree)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors.",
            fix="Give a checkpoint: a published .pt, a state dict, .safetensors, or a run folder.",
            path=path,
        )
    return tensors


def facts_of(tree: object, path: Path) -> Facts:
    """What a pickled module's own attributes tell; what they don't is as published.

    Raises:
        CheckpointError: Its language model is configured in a way that we do not compute.
    """
    if not isinstance(tree, Node):
        return Facts()
    module = _unwrapped(tree)
    text_length = _state(module).get("get_text_utt_max_lens")
    told = {"text_length": text_length} if type(text_length) is int else {}
    # The fusion model's encoders, not just any attention below: the language model has a head count of its own.
    for name in ("audio_utt_transformer", "utt_transformer"):
        encoder = _children(module, "_modules").get(name)
        if isinstance(encoder, Node) and (heads := _heads(encoder, path)) is not None:
            told["heads"] = heads
    return Facts(**told, plm=_plm_settings(module, path))


def _module_tensors(tree: Node, path: Path) -> Tensors:
    return {
        f"{prefix}{name}": tensor
        for prefix, module in _modules(_unwrapped(tree), path)
        for kind in ("_parameters", "_buffers")
        for name, tensor in _children(module, kind).items()
        if isinstance(tensor, np.ndarray)
    }


def _state_dict(tree: object) -> dict[str, NDArray[Any]]:
    for _ in range(MAX_NESTING):
        if not isinstance(tree, dict):
            return {}
        inner = next((tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict)), None)
        if inner is None:
            return {n: t for n, t in tree.items() if isinstance(n, str) and isinstance(t, np.ndarray)}
        tree = inner
    return {}


def _heads(encoder: Node, path: Path) -> int | None:
    counts = (_state(module).get("num_attention_heads") for _, module in _modules(encoder, path))
    return next((count for count in counts if type(count) is int), None)


def _plm_settings(module: Node, path: Path) -> PlmSettings | None:
    for name in ("roberta", "bert"):
        plm = _children(module, "_modules").get(name)
        if isinstance(plm, Node) and isinstance(config := _state(plm).get("config"), Node):
            return plm_settings_from_config(_state(config), path)
    return None


def _unwrapped(node: Node) -> Node:
    for _ in range(MAX_NESTING):
        inner = next((child for name in WRAPPERS if isinstance(child := _child(node, name), Node)), None)
        if inner is None:
            break
        node = inner
    return node


def _modules(root: Node, path: Path) -> Iterator[tuple[str, Node]]:
    """The module and all below it, each with the prefix of its weights' names."""
    waiting, count = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        count += 1
        if count > MAX_MODULES or prefix.count(".") > MAX_NESTING:
            raise CheckpointError(
                f"{path} holds modules without end.", fix="It is damaged or hostile; don't use it.", path=path
            )
        yield prefix, module
        children = _children(module, "_modules").items()
        waiting += [(f"{prefix}{name}.", child) for name, child in children if isinstance(child, Node)]


def _child(node: Node, name: str) -> object:
    return _children(node, "_modules").get(name)


def _state(node: Node) -> dict[Any, Any]:
    return node.state if isinstance(node.state, dict) else {}


def _children(node: Node, kind: str) -> dict[Any, Any]:
    children = _state(node).get(kind)
    return children if isinstance(children, dict) else {}
