"""Saves modules the way the published code saved its own: whole, pickled, in Lightning's and DataParallel's wrappers.

The published classes are not here and not needed: stand-ins of their names exist while a file is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fmmt_deploy.reference.fusion import FusionModel, UnimodalModel
from fmmt_deploy.reference.plm import TextModel
from fmmt_deploy.reference.swin import FaceModel

__all__ = ["save_faces", "save_multimodal", "save_unimodal"]

PACKAGES = ("src", "modules", "lightning_lite")
"""Where the published classes live."""

SWIN = "modules.SwinTransformer.Swin_Transformer."

CLASSES = {
    "UtteranceEncoder": "modules.Transformer.MELDTransEncoder",
    "_PostNormLayer": "modules.Transformer.TransformerEnoderLayer",
    "_Attention": "modules.Transformer.MultiHeadSelfAttention",
    "_SelfAttention": "modules.Transformer.SelfAttention",
    "_DenseNorm": "modules.Transformer.Output_Residual_Norm",
    "_Intermediate": "modules.Transformer.TransformerIntermediate",
    "AdditiveAttention": "modules.Transformer.AdditiveAttention",
    "CrossModalEncoder": "modules.CrossmodalTransformer.CrossModalTransformerEncoder",
    "_PreNormLayer": "modules.CrossmodalTransformer.TransformerEncoderLayer",
    "_PackedAttention": "modules.multihead_attention.MultiheadAttention",
    "SwinTransformerBlock": SWIN + "SwinTransformerBlock",
    "WindowAttention": SWIN + "WindowAttention",
    "Mlp": SWIN + "Mlp",
    "PatchEmbed": SWIN + "PatchEmbed",
    "PatchMerging": SWIN + "PatchMerging",
}
"""Our class → the published one. Names of weights are the same, but for what the functions below rearrange."""


@contextmanager
def _published_modules() -> Iterator[None]:
    """Lets stand-in classes be pickled by name, and leaves no trace of them."""
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _stand_in(path: str, children: Mapping[str, nn.Module | None], **attributes: object) -> nn.Module:
    """An object of the class `path`, as pickle sees it."""
    module_name, name = path.rsplit(".", 1)
    parts = module_name.split(".")
    for end in range(1, len(parts) + 1):  # pickle imports a module by way of its packages
        parent = ".".join(parts[:end])
        sys.modules.setdefault(parent, ModuleType(parent))
    module = sys.modules[module_name]
    if not hasattr(module, name):
        setattr(module, name, type(name, (nn.Module,), {"__module__": module_name}))
    node: nn.Module = getattr(module, name)()
    for key, child in children.items():
        if child is not None:
            node.add_module(key, child)
    node.__dict__.update(attributes)
    return node


def _dressed(module: nn.Module) -> nn.Module:
    """The same weights under the published classes; PyTorch's own layers stay as they are."""
    path = CLASSES.get(type(module).__name__)
    if isinstance(module, nn.ModuleList):
        return nn.ModuleList(_dressed(child) for child in module)
    if path is None:
        return module
    node = _stand_in(path, {name: _dressed(child) for name, child in module.named_children() if child.state_dict()})
    for name, parameter in module.named_parameters(recurse=False):
        node.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        node.register_buffer(name, buffer)
    if hasattr(module, "heads"):
        node.__dict__.update(num_heads=module.heads, num_attention_heads=module.heads)
    return node


def _save(module: nn.Module, path: Path) -> None:
    """Wraps and writes; the wrappers keep the module twice, as published."""
    parallel = nn.DataParallel.__new__(nn.DataParallel)
    nn.Module.__init__(parallel)
    parallel.module, parallel.device_ids = module, [0]
    children = {"_forward_module": parallel, "_original_module": module}
    wrapped = _stand_in(
        "lightning_lite.wrappers._LiteModule", children, _dtype=torch.float32, _device=torch.device("cpu")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrapped, path)


def save_faces(model: FaceModel, path: Path) -> None:
    """Writes `best_swin_*.pt`; there, merging patches ends a stage, while in timm it begins the next one."""
    with _published_modules():
        stages: list[Any] = list(model.backbone.layers)
        merging = [stage.downsample for stage in stages[1:]] + [None]
        layers = [
            _stand_in(
                SWIN + "BasicLayer",
                {
                    "blocks": nn.ModuleList(_dressed(block) for block in stage.blocks),
                    "downsample": None if merge is None else _dressed(merge),
                },
                depth=len(stage.blocks),
            )
            for stage, merge in zip(stages, merging, strict=True)
        ]
        swin = _stand_in(
            SWIN + "SwinTransformer",
            {
                "patch_embed": _dressed(model.backbone.patch_embed),
                "layers": nn.ModuleList(layers),
                "output_layer": model.output_layer,
            },
            num_layers=len(layers),
        )
        heads = {"swin": swin, "linear": model.linear, "nonlinear": nn.ReLU(), "classifier": model.classifier}
        _save(_stand_in("src.models.SwinForAffwildClassification", heads, num_labels=7, tau=1.0), path)


def save_multimodal(text: TextModel, fusion: FusionModel, path: Path) -> None:
    """Writes `multimodal_T+A+V_*.pt`: the language model and the fusion model in one."""
    plm: Any = text.plm
    kind = plm.config.model_type
    with _published_modules():
        children = {kind: plm, "text_linear": text.text_linear}
        children |= {name: _dressed(child) for name, child in fusion.named_children()}
        root = _stand_in(
            "src.models.MultiModalTransformerForClassification",
            children,
            choice_modality="T+A+V",
            num_labels=7,
            get_text_utt_max_lens=fusion.text_length,
            text_pretrained_model=kind,
        )
        _save(root, path)


def save_unimodal(model: UnimodalModel, path: Path) -> None:
    """Writes `unimodal_model_V.pt`."""
    with _published_modules():
        children = {name: _dressed(child) for name, child in model.named_children()}
        _save(_stand_in("src.models.meld_utt_transformer", children), path)
