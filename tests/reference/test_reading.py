"""The golden pickles, and the same weights as state dicts: equal sizes, equal models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fmmt_deploy.reference.checkpoints import Checkpoint, find_plm_dir, read_checkpoint, read_checkpoints
from fmmt_deploy.reference.loading import model_from_checkpoint
from tests.reference.samples import (
    KINDS,
    expected,
    faces,
    folder,
    multimodal,
    plm_dir,
    settings,
    state_dict,
    vision_only,
)


def assert_same(found: Checkpoint, wanted: Checkpoint) -> None:
    assert found.sizes == wanted.sizes
    assert found.parts.keys() == wanted.parts.keys()
    for part, tensors in wanted.parts.items():
        assert found.parts[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found.parts[part][name].dtype == np.float32
            np.testing.assert_array_equal(found.parts[part][name], tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_golden_data(kind: str) -> None:
    """Independent sources: settings.json, the language model's config.json, and shapes of what the model computed."""
    config, golden, arrays = json.loads((plm_dir(kind) / "config.json").read_text()), settings(kind), expected(kind)
    sizes = read_checkpoint(multimodal(kind)).sizes
    plm, fusion = sizes["plm"], sizes["fusion"]
    assert plm.kind == golden["plm"]
    assert (plm.heads, plm.layers) == (config["num_attention_heads"], config["num_hidden_layers"])
    assert (plm.vocab_size, plm.hidden_size) == (config["vocab_size"], config["hidden_size"])
    assert (plm.intermediate_size, plm.type_vocab_size) == (config["intermediate_size"], config["type_vocab_size"])
    assert plm.layer_norm_eps == config["layer_norm_eps"]
    assert plm.max_tokens == arrays["input_ids"].shape[1]
    assert (fusion.hidden_size, fusion.heads) == (golden["hidden_size"], golden["num_attention_heads"])
    assert fusion.text_length == golden["text_max_utt_len"]
    assert fusion.audio_length == arrays["audio_out"].shape[1]
    assert (fusion.vision_length, fusion.vision_size + 7) == arrays["vision_in"].shape[1:]
    assert (fusion.audio_size, fusion.audio_layers, fusion.vision_layers, fusion.crossmodal_layers) == (24, 5, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_faces_and_vision_only(kind: str) -> None:
    """Swin-T as in reference.md: embed 96, depths 2-2-6-2, heads 3-6-12-24, 512 features, 64 before the classifier."""
    swin = read_checkpoint(faces(kind)).sizes["swin"]
    assert (swin.embed_dim, swin.depths, swin.heads) == (96, (2, 2, 6, 2), (3, 6, 12, 24))
    assert (swin.feature_size, swin.linear_size) == (512, 64)
    unimodal = read_checkpoint(vision_only(kind)).sizes["unimodal"]
    assert (unimodal.hidden_size, unimodal.heads, unimodal.vision_layers) == (48, 12, 2)
    assert (unimodal.vision_length, unimodal.vision_size) == (6, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_published_folder_is_both_files(kind: str) -> None:
    whole = read_checkpoint(folder(kind))
    assert_same(whole, read_checkpoints(multimodal(kind), faces(kind)))
    assert whole.sha256.keys() == {multimodal(kind).name, faces(kind).name}
    assert find_plm_dir(folder(kind)).resolve() == plm_dir(kind)
    model = model_from_checkpoint(whole, tau=1.0, threshold=0.2)
    assert not model.training
    for name, parameter in model.named_parameters():
        part, _, rest = name.partition(".")
        assert np.array_equal(parameter.detach().numpy(), whole.parts[part][rest]), name


@pytest.mark.parametrize("form", ["dict", "state_dict", "model_state_dict", "module", "compiled", "safetensors"])
@pytest.mark.parametrize("path", [multimodal("roberta"), multimodal("bert"), faces("bert"), vision_only("roberta")])
def test_state_dicts_give_the_same_model(tmp_path: Path, path: Path, form: str) -> None:
    weights = state_dict(path)
    prefix = {"module": "module.", "compiled": "_orig_mod.module."}.get(form, "")
    weights = {prefix + name: tensor for name, tensor in weights.items()}
    saved = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pt")
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, saved)
    else:
        torch.save({form: weights, "epoch": 3} if form.endswith("state_dict") else weights, saved)
    kind = "bert" if "BERT" in path.name and "RoBERTa" not in path.name else "roberta"
    assert_same(read_checkpoint(saved, plm_dir(kind)), read_checkpoint(path))


def test_older_torch_format(tmp_path: Path) -> None:
    weights = state_dict(vision_only("bert"))
    torch.save(weights, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(tmp_path / "x.pt"), read_checkpoint(vision_only("bert")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in state_dict(vision_only("roberta")).items()}
    path = tmp_path / f"x{suffix}"
    (torch.save if suffix == ".pt" else save_file)(weights, path)
    found = read_checkpoint(path).parts["unimodal"]
    for name, tensor in weights.items():  # torch's own widening is the independent source
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.float().numpy())


def test_tensors_in_any_memory_layout(tmp_path: Path) -> None:
    weights = state_dict(vision_only("roberta"))
    odd = {name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for name, tensor in weights.items()}
    assert not odd["classifier.weight"].is_contiguous()
    odd["attention.query_vector"] = torch.full((1,), 0.5).expand(48)
    torch.save(odd, tmp_path / "x.pt")
    model = model_from_checkpoint(read_checkpoint(tmp_path / "x.pt"), tau=1.0, threshold=0.2)
    for name, tensor in model.unimodal.state_dict().items():
        assert torch.equal(tensor, odd[name]), name


def test_a_repeated_half_precision_number_takes_no_memory(tmp_path: Path) -> None:
    torch.save({n: t.half()[:1].expand(t.shape) for n, t in state_dict(vision_only("bert")).items()}, tmp_path / "x.pt")
    table = read_checkpoint(tmp_path / "x.pt").parts["unimodal"]["modality_linear.weight"]
    assert table.dtype == np.float32
    assert table.strides[0] == 0


DERIVED = (
    "swin.layers.0.blocks.0.attn.relative_position_index", "swin.layers.0.blocks.1.attn_mask",
    "swin.output_layer.3.num_batches_tracked", "roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids",
    "roberta.pooler.dense.weight", "roberta.pooler.dense.bias", "bert.pooler.dense.bias", "CrossModalTrans_TA.version",
    "CrossModalTrans_TA.embed_positions._float_tensor",
)  # fmt: skip
"""What reference.md says to ignore, and the pooler."""


@pytest.mark.parametrize("name", DERIVED)
def test_derived_tensors_are_left_out(tmp_path: Path, name: str) -> None:
    weights = state_dict(vision_only("bert"))
    torch.save({**weights, name: torch.ones(2, dtype=torch.int64)}, tmp_path / "x.pt")
    assert_same(read_checkpoint(tmp_path / "x.pt"), read_checkpoint(vision_only("bert")))


def test_two_files_of_one_name_keep_both_hashes(tmp_path: Path) -> None:
    for name, source in (("a", multimodal("bert")), ("b", faces("bert"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").write_bytes(source.read_bytes())
    found = read_checkpoints(tmp_path / "a" / "model.pt", tmp_path / "b" / "model.pt").sha256
    wanted = (*read_checkpoint(multimodal("bert")).sha256.values(), *read_checkpoint(faces("bert")).sha256.values())
    assert tuple(found.values()) == wanted
