"""What is not a whole, sound checkpoint of this model ends in one clear error."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fmmt_deploy.data.pickles import read_pickle
from fmmt_deploy.errors import CheckpointError, UsageError
from fmmt_deploy.reference.checkpoints import find_plm_dir, read_checkpoint, read_checkpoints
from fmmt_deploy.reference.loading import model_from_checkpoint
from fmmt_deploy.reference.pickled import _modules, facts_of
from tests.reference.samples import KINDS, faces, folder, multimodal, plm_dir, state_dict, vision_only

Weights = dict[str, torch.Tensor]


def load(path: Path) -> None:
    model_from_checkpoint(read_checkpoint(path, plm_dir("roberta")), tau=1.0, threshold=0.2)


def load_both(ckpt: Path, swin_ckpt: Path) -> None:
    whole = read_checkpoints(ckpt, swin_ckpt, plm_dir("roberta"))
    model_from_checkpoint(whole, tau=1.0, threshold=0.2)


def saved(weights: object, folder: Path) -> Path:
    torch.save(weights, folder / "x.pt")
    return folder / "x.pt"


@pytest.mark.parametrize("seed", range(12))
def test_one_tensor_too_few(tmp_path: Path, seed: int) -> None:
    weights = state_dict(vision_only("roberta"))
    name = sorted(weights)[seed * len(weights) // 12]
    del weights[name]
    with pytest.raises(CheckpointError) as caught:
        load(saved(weights, tmp_path))
    assert name in caught.value.what or "FacialMMT" in caught.value.what, "it is named, unless the kind hangs on it"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("change", ["longer", "transposed or flat"])
def test_one_tensor_of_another_shape(tmp_path: Path, seed: int, change: str) -> None:
    """Sizes are read off tensors, so another one may be named: the one that no longer fits the changed one."""
    weights = state_dict(vision_only("roberta"))
    name = sorted(weights)[seed * len(weights) // 12]
    tensor = weights[name]
    longer = torch.cat([tensor, tensor[:1]])
    weights[name] = longer if change == "longer" else tensor[None] if tensor.dim() == 1 else tensor.flatten()
    with pytest.raises(CheckpointError) as caught:
        load(saved(weights, tmp_path))
    assert caught.value.tensor is not None


def test_one_tensor_too_many(tmp_path: Path) -> None:
    weights = state_dict(vision_only("roberta"))
    with pytest.raises(CheckpointError, match=r"unknown tensor extra\.weight of unimodal") as caught:
        load(saved({**weights, "extra.weight": torch.ones(2)}, tmp_path))
    assert caught.value.tensor == "extra.weight"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin.norm.weight", "unknown tensor backbone.norm.weight of swin"),
        ("swin.layers.7.downsample.norm.weight", "layers.#. are missing"),
        ("swin.layers.9999999999999999999.blocks.0.norm1.weight", "unknown tensor"),
        ("backbone.patch_embed.proj.weight", "twice, under two names"),
    ],
)
def test_faces_with_a_tensor_too_many(tmp_path: Path, name: str, message: str) -> None:
    weights = {n: t[:1].expand(t.shape) if t.dim() else t for n, t in state_dict(faces("roberta")).items()}
    path = saved({**weights, name: torch.ones(2)}, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_both(multimodal("roberta"), path)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: change(weights[name])}


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def fill(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return fill


POSITIONS = "utt_transformer.position_embeddings.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("classifier.bias", filled(float("nan"))), "classifier.bias holds NaN or infinite"),
        (changed("P", lambda t: t), "attention.P.weight"),
        (changed("attention.P.weight", filled(float("-inf"))), "attention.P.weight holds NaN or infinite"),
        (changed("attention.P.weight", lambda t: filled(1e300)(t.double())), "NaN or infinite"),
        (changed("classifier.weight", lambda t: t.to(torch.int32)), "holds int32, expected floating"),
        (changed("classifier.weight", lambda t: t.to(torch.complex64)), "holds complex64, expected floating"),
        (changed(POSITIONS, lambda t: t[:0]), "unimodal.vision_length should be above 0"),
        (changed(POSITIONS, lambda t: t[:, :0]), "position_embeddings.weight has shape"),
        (changed("modality_linear.weight", lambda t: t[:, :0]), "unimodal.vision_size should be above 0"),
        (changed("modality_linear.weight", lambda t: t[0]), "modality_linear.weight tells the model's size"),
        (changed("modality_linear.weight", lambda t: t[:47]), "unimodal.heads should be a divisor of hidden_size 47"),
        (changed("modality_linear.weight", lambda t: t[:1, :1].expand(1 << 20, 1 << 8)), "heads should be a divisor"),
        (changed("modality_linear.weight", lambda t: t[:1, :1].expand(12 << 16, 16)), "has shape"),
        (lambda w: {n: t for n, t in w.items() if n != POSITIONS}, "position_embeddings.weight tells the model's size"),
        (lambda w: {n: t for n, t in w.items() if ".layer." not in n}, "vision_layers should be above 0"),
        (lambda w: {n: t for n, t in w.items() if ".layer.0." not in n}, "utt_transformer.layer.#. are missing"),
        (lambda _: {"weight": torch.ones(2, 2)}, "is no FacialMMT checkpoint"),
        (lambda _: {}, "holds no tensors"),
        (lambda w: list(w.values()), "holds no tensors"),
    ],
)
def test_damaged_weights(tmp_path: Path, change: Callable[[Weights], Weights], message: str) -> None:
    weights = state_dict(vision_only("roberta"))
    if message == "attention.P.weight":  # a tensor under another name
        weights["P"] = weights.pop("attention.P.weight")
    with pytest.raises(CheckpointError, match=message):
        load(saved(change(weights), tmp_path))


def test_absurdly_many_parameters(tmp_path: Path) -> None:
    """Each tensor stays below what the pickle reader allows one to repeat; together they are 5 × 10⁹ numbers."""
    weights = state_dict(vision_only("roberta"))
    weights |= {f"x{i}": torch.ones(1).expand(1 << 28) for i in range(20)}
    with pytest.raises(CheckpointError, match="parameters, no model of this kind does"):
        load(saved(weights, tmp_path))


def test_pretrained_backbone_is_told_apart(tmp_path: Path) -> None:
    weights = {name.removeprefix("swin."): t for name, t in state_dict(faces("bert")).items() if name[:5] == "swin."}
    weights = {f"backbone.{name}": tensor[:1].expand(tensor.shape) for name, tensor in weights.items() if tensor.dim()}
    with pytest.raises(CheckpointError, match="pre-trained face backbone, without the emotion head"):
        load(saved({"state_dict": weights}, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_kinds(kind: str) -> None:
    with pytest.raises(CheckpointError, match="has swin, but not plm, fusion") as caught:
        _ = read_checkpoints(faces(kind)).architecture
    assert "--ckpt" in caught.value.fix
    with pytest.raises(CheckpointError, match="has plm, fusion, but not swin") as caught:
        _ = read_checkpoints(multimodal(kind)).architecture
    assert "--swin-ckpt" in caught.value.fix
    with pytest.raises(UsageError, match="both hold fusion, plm"):
        read_checkpoints(multimodal(kind), multimodal(kind))
    with pytest.raises(UsageError, match="both hold swin"):
        read_checkpoints(folder(kind), faces(kind))
    with pytest.raises(UsageError, match="has no face model"):
        read_checkpoints(vision_only(kind), faces(kind))
    with pytest.raises(UsageError, match="There is no checkpoint"):
        read_checkpoints(multimodal(kind), Path("nothing.pt"))


def test_language_models_configuration(tmp_path: Path) -> None:
    path = saved(state_dict(multimodal("roberta")), tmp_path)
    with pytest.raises(CheckpointError, match="does not tell the language model's number of heads") as caught:
        read_checkpoint(path)
    assert "--plm-dir" in caught.value.fix
    with pytest.raises(CheckpointError, match="says vocab_size 293, but the language model's tensors have 420"):
        read_checkpoint(path, plm_dir("bert"))
    config, good = tmp_path / "config.json", (plm_dir("roberta") / "config.json").read_text()
    for old, new, message in (
        ('"gelu"', '"gelu_new"', "hidden_act gelu_new, expected gelu"),
        ('"num_attention_heads": 4', '"num_attention_heads": 7', "plm.heads should be a divisor of hidden_size 64"),
        ('"num_attention_heads": 4', '"num_attention_heads": 0', "plm.heads should be above 0"),
        ('"num_attention_heads": 4', '"num_attention_heads": "4"', "expected num_attention_heads"),
        ('"layer_norm_eps": 1e-05', '"layer_norm_eps": NaN', "is not a language model's configuration"),
        ('"layer_norm_eps": 1e-05', '"layer_norm_eps": -1.0', "layer_norm_eps should be above 0"),
        ("{", "[", "is not a language model's configuration"),
    ):
        assert old in good
        config.write_text(good.replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path, tmp_path)


def test_activation_in_a_pickled_configuration() -> None:
    tree: Any = read_pickle(multimodal("bert"))
    module = tree.state["_modules"]["_original_module"]
    config = module.state["_modules"]["bert"].state["config"].state
    assert config["hidden_act"] == "gelu"
    config["hidden_act"] = "relu"
    with pytest.raises(CheckpointError, match="hidden_act relu, expected gelu"):
        facts_of(tree, multimodal("bert"))


@pytest.mark.parametrize("odd", ["12", True, 12.0, np.ones(2)])
def test_head_counts_that_are_none(odd: object) -> None:
    tree: Any = read_pickle(vision_only("bert"))
    for module in _modules(tree, vision_only("bert")):
        module[1].state.pop("num_attention_heads", None)
    encoder = tree.state["_modules"]["_original_module"].state["_modules"]["utt_transformer"]
    encoder.state["num_attention_heads"] = odd
    assert facts_of(tree, vision_only("bert")).heads == 12, "as published"
    encoder.state["num_attention_heads"] = 6
    assert facts_of(tree, vision_only("bert")).heads == 6


@pytest.mark.parametrize("missing", ["roberta.", "text_linear."])
def test_without_its_text_model(tmp_path: Path, missing: str) -> None:
    weights = {n: t for n, t in state_dict(multimodal("roberta")).items() if not n.startswith(missing)}
    path = saved(weights, tmp_path)
    with pytest.raises(CheckpointError, match=r"no language model|lacks the tensor text_linear"):
        load_both(path, faces("roberta"))


def test_two_language_models(tmp_path: Path) -> None:
    weights = state_dict(multimodal("roberta")) | {"bert.x": torch.ones(2)}
    with pytest.raises(CheckpointError, match="two language models"):
        read_checkpoint(saved(weights, tmp_path), plm_dir("roberta"))


@pytest.mark.parametrize("cut", [0, 1, 3, 100, 5000, -1, -100])
def test_truncated(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(vision_only("roberta").read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="can't be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"# A README\n", b"\x89PNG\r\n", b"PK\x03\x04", b"{}", bytes(300), b"\xff" * 300])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".md"])
def test_not_a_checkpoint_at_all(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert len(f"{caught.value.what} {caught.value.why}") > len(str(path)) + 40, "a reason, not only a number"


def test_folders_that_leave_a_choice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        read_checkpoint(tmp_path)
    for source in (multimodal("roberta"), faces("roberta")):
        shutil.copy(source, tmp_path)
    assert read_checkpoint(tmp_path).parts.keys() == {"swin", "plm", "fusion"}
    for more in (vision_only("roberta"), multimodal("bert"), faces("bert")):
        shutil.copy(more, tmp_path)
        with pytest.raises(UsageError, match="holds several checkpoints"):
            read_checkpoint(tmp_path)
        (tmp_path / more.name).unlink()
    for kind in KINDS:
        shutil.copytree(plm_dir(kind), tmp_path / f"{kind}-large")
    with pytest.raises(UsageError, match="2 language models: bert-large, roberta-large"):
        find_plm_dir(tmp_path)


def test_safetensors_of_another_kind(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is no FacialMMT checkpoint"):
        read_checkpoint(tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match=r"not one that torch\.save wrote"):
        read_checkpoint(tmp_path / "x.npz")
