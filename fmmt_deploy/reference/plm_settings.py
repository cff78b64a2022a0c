"""What a language model's weights don't tell, from its configuration: `config.json`, or the one in a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmmt_deploy.errors import CheckpointError
from fmmt_deploy.json_values import JsonValueError, json_object_from_text

__all__ = ["CONFIG_NAME", "PlmSettings", "plm_settings_from_config", "plm_settings_from_folder"]

CONFIG_NAME = "config.json"

DEMANDED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
"""What we compute; a configuration that names something else is of another model. (`gelu` is the exact one, by erf.)"""

TOLD_BY_TENSORS = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
"""Sizes that the tensors tell too, and that must agree with them."""

_FIX = "Give the folder of the very model it was trained from: --plm-dir DIR."


@dataclass(frozen=True, slots=True)
class PlmSettings:
    """A language model's configuration, as far as we need it.

    Attributes:
        source: The file it stands in.
        heads: Attention heads.
        layer_norm_eps: Of every LayerNorm.
        sizes: Those of `TOLD_BY_TENSORS` that it names.
    """

    source: str
    heads: int
    layer_norm_eps: float
    sizes: Mapping[str, int]


def plm_settings_from_config(values: Mapping[str, object], source: Path) -> PlmSettings:
    """Reads a configuration with the names that transformers gives.

    Args:
        values: Its fields.
        source: For messages.

    Raises:
        CheckpointError: Fields are missing or of another type, or ask for what we do not compute.
    """
    heads, eps = values.get("num_attention_heads"), values.get("layer_norm_eps")
    if type(heads) is not int or type(eps) is not float:
        raise CheckpointError(
            f"{source} has no language model's configuration: "
            "expected num_attention_heads and layer_norm_eps, as numbers.",
            fix=_FIX,
            path=source,
        )
    for name, wanted in DEMANDED.items():
        if (found := values.get(name, wanted)) != wanted:
            raise CheckpointError(
                f"{source}: the language model has {name} {str(found)[:60]}, expected {wanted}.",
                why="It would be computed in another way than here.",
                fix="Use a RoBERTa or BERT with the published configuration.",
                path=source,
            )
    sizes = {name: size for name in TOLD_BY_TENSORS if type(size := values.get(name)) is int}
    return PlmSettings(str(source), heads, eps, sizes)


def plm_settings_from_folder(folder: Path | None, ckpt: Path) -> PlmSettings:
    """Reads `config.json` of a language model's folder.

    Args:
        folder: It, if one is known.
        ckpt: The checkpoint it is needed for, for messages.

    Raises:
        CheckpointError: It is missing, or is no configuration we can use.
    """
    if folder is None or not (config := folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"{ckpt} does not tell the language model's number of heads.",
            why="A plain state dict holds tensors only"
            + (f", and {folder} has no {CONFIG_NAME}." if folder else ", and no language model's folder is beside it."),
            fix=f"Give the language model's folder, with its {CONFIG_NAME}: --plm-dir DIR.",
            path=ckpt,
        )
    try:
        values = json_object_from_text(config.read_text(encoding="utf-8"))
    except (JsonValueError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{config} is not a language model's configuration: {error}.", fix=_FIX, path=config
        ) from error
    return plm_settings_from_config(values, config)
