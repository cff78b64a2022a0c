"""What a training begins with. Expected values are the tensors that transformers, or PyTorch, saved."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, RobertaConfig, RobertaForMaskedLM, RobertaModel

from fmmt_deploy.architecture import PlmKind, SwinSizes
from fmmt_deploy.data.features import Sizes
from fmmt_deploy.errors import CheckpointError, DataError, EnvironmentProblem, FmmtError, UsageError
from fmmt_deploy.reference.loading import save_checkpoint
from fmmt_deploy.reference.swin import FaceModel
from fmmt_deploy.training.settings import ModelSettings, RunSettings, Settings
from fmmt_deploy.training.starting import Start, starting_model
from tests.golden import GOLDEN

SWIN = SwinSizes(embed_dim=16, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), feature_size=32, linear_size=16)
KINDS: tuple[PlmKind, ...] = ("roberta", "bert")


@dataclass(frozen=True)
class FewFeatures:
    audio: Sizes | None = field(default_factory=lambda: Sizes(14, 24))
    vision: Sizes = field(default_factory=lambda: Sizes(6, 16))


def settings(kind: PlmKind = "roberta", **changes: Any) -> Settings:
    model = ModelSettings(plm=kind, hidden_size=48, audio_layers=1, vision_layers=1, crossmodal_layers=1, swin=SWIN)
    return Settings(model=replace(model, **changes))


def start(
    plm_dir: Path | None = None,
    swin: Path | None = None,
    from_scratch: bool = False,
    chosen: Settings | None = None,
    features: FewFeatures | None = None,
) -> Start:
    return starting_model(chosen or settings(), features or FewFeatures(), plm_dir, swin, from_scratch)


def tokenizer_files(kind: PlmKind, folder: Path) -> int:
    """Puts golden tokenizer files there; returns how many tokens there are."""
    source = GOLDEN / kind / "pretrained_model" / f"{kind}-large"
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name != "config.json" and path.suffix in (".json", ".txt"):
            (folder / path.name).write_bytes(path.read_bytes())
    return int(json.loads((source / "config.json").read_text())["vocab_size"])


def language_model(kind: PlmKind, tokens: int, head: bool = False) -> Any:
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "roberta":
        config = RobertaConfig(vocab_size=tokens, max_position_embeddings=130, type_vocab_size=1, **sizes)
        config.layer_norm_eps = 1e-5
        return RobertaForMaskedLM(config) if head else RobertaModel(config)
    bert = BertConfig(vocab_size=tokens, max_position_embeddings=128, **sizes)
    return BertForMaskedLM(bert) if head else BertModel(bert)


FORMS = ("bare", "head", "sharded", "bin", "old", "wrapped")


def saved(kind: PlmKind, form: str, folder: Path) -> Any:
    """A folder as transformers writes it, or older versions did."""
    model = language_model(kind, tokenizer_files(kind, folder), head=form != "bare")
    model.save_pretrained(folder, max_shard_size="40KB" if form == "sharded" else "5GB")
    whole = folder / "model.safetensors"
    if form in ("bin", "old", "wrapped"):
        tensors = load_file(whole)
        whole.unlink()
        if form == "old":
            new = {".weight": ".gamma", ".bias": ".beta"}
            names = {n: n.replace("." + n.rsplit(".", 1)[1], new["." + n.rsplit(".", 1)[1]]) for n in tensors}
            tensors = {names[n] if "LayerNorm" in n else n: t for n, t in tensors.items()}
            tensors[f"{kind}.embeddings.position_ids"] = torch.arange(128)[None]
        if form == "wrapped":
            tensors = {f"module.{n}": t for n, t in tensors.items()}
        torch.save(tensors, folder / "pytorch_model.bin")
    assert (form == "sharded") == (folder / "model.safetensors.index.json").is_file()
    return getattr(model, kind) if form != "bare" else model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_language_model_is_taken_as_transformers_saved_it(kind: PlmKind, form: str, tmp_path: Path) -> None:
    folder = tmp_path / "plm"
    model = saved(kind, form, folder)
    with pytest.raises(UsageError, match=r"Swin begins with.*\n.*MS-Celeb-1M.*\n.*--swin-weights"):
        start(folder, chosen=settings(kind))
    begun = start(folder, from_scratch=True, chosen=settings(kind))
    ours = begun.model.plm.plm.state_dict()
    theirs = {n: t for n, t in model.state_dict().items() if not n.startswith("pooler.")}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sizes = begun.model.architecture.plm
    assert sizes is not None
    assert (sizes.kind, sizes.layers, sizes.heads, sizes.max_tokens) == (kind, 2, 4, 128)
    assert "the Swin begins with random weights" in begun.notes
    assert not [note for note in begun.notes if "language model begins" in note]
    head = "lm_head." if kind == "roberta" else "cls."
    (note,) = [note for note in begun.notes if "heads are not used" in note]
    assert ("pooler." if form == "bare" else head) in note
    assert f"{folder.name}/config.json" in begun.sha256
    assert len(begun.sha256) >= 2
    assert begun.tokenizer_json is not None


def test_the_model_answers_as_transformers_does(tmp_path: Path) -> None:
    model = saved("roberta", "head", tmp_path / "plm").eval()
    begun = start(tmp_path / "plm", from_scratch=True)
    ids, mask = torch.tensor([[0, 11, 12, 2, 2, 13, 2]]), torch.ones(1, 7, dtype=torch.int64)
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = begun.model.plm.text_linear(states)
    found = begun.model.run("plm", {"input_ids": ids, "attention_mask": mask})["token_states"]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_without_weights_only_from_scratch(tmp_path: Path) -> None:
    folder = tmp_path / "plm"
    saved("bert", "bare", folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no weights.*\n.*bert-large.*\n.*--plm-dir DIR"):
        start(folder, chosen=settings("bert"))
    begun = start(folder, from_scratch=True, chosen=settings("bert"))
    assert "the language model begins with random weights" in begun.notes
    sizes = begun.model.architecture.plm
    assert sizes is not None
    assert (sizes.layers, sizes.hidden_size, sizes.max_tokens, sizes.type_vocab_size) == (2, 32, 128, 2)
    spread = begun.model.plm.plm.embeddings.word_embeddings.weight.std().item()
    assert spread == pytest.approx(0.02, rel=0.05)


def broken_folder(problem: str, folder: Path) -> None:
    saved("roberta", "bin" if problem == "hostile" else "bare", folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    values = json.loads(config.read_text())
    if problem == "kind":
        values["model_type"] = "bert"
    elif problem == "other kind":
        values["model_type"] = "xlnet"
    elif problem == "layers":
        values["num_hidden_layers"] = 5
    config.write_text(json.dumps(values))
    tensors = load_file(weights) if weights.is_file() else {}
    name = "encoder.layer.1.output.dense.weight"
    if problem == "missing":
        del tensors[name]
    elif problem == "shape":
        tensors[name] = tensors[name][:5].clone()
    elif problem == "nan":
        tensors[name][0, 0] = torch.nan
    elif problem == "unknown":
        tensors["encoder.layer.1.output.adapter.weight"] = torch.zeros(2)
    elif problem == "nothing":
        tensors = {"transformer.h.0.weight": torch.zeros(2)}
    elif problem == "vocabulary":
        tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][:50].clone()
        values["vocab_size"] = 50
        config.write_text(json.dumps(values))
    if tensors:
        save_file(tensors, weights)
    if problem == "config":
        config.unlink()
    elif problem == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif problem == "hostile":
        torch.save({"a": _Hostile(folder / "was-run")}, folder / "pytorch_model.bin")
    elif problem == "escape":
        weights.rename(folder.parent / "model.safetensors")
        index = {"weight_map": {"embeddings.word_embeddings.weight": "../model.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class _Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("missing", r"lacks the tensor encoder\.layer\.1\.output\.dense\.weight of plm"),
        ("shape", "output.dense.weight has shape"),
        ("nan", "NaN"),
        ("unknown", "unknown tensor encoder.layer.1.output.adapter.weight"),
        ("nothing", "holds no RoBERTa or BERT"),
        ("vocabulary", "tokenizer has token"),
        ("kind", "type 'bert', the settings ask for 'roberta'.*\n.*model.plm=bert"),
        ("other kind", "type 'xlnet'.*\n.*RoBERTa's or a BERT's"),
        ("layers", "num_hidden_layers 5"),
        ("config", r"config\.json does not exist"),
        ("truncated", "not a readable safetensors"),
        ("hostile", "Nothing in it was run"),
        ("escape", "no .safetensors file beside it"),
    ],
)
def test_broken_folders_are_refused(problem: str, message: str, tmp_path: Path) -> None:
    broken_folder(problem, tmp_path / "plm")
    with pytest.raises(CheckpointError, match=message):
        start(tmp_path / "plm", from_scratch=True)
    assert not (tmp_path / "plm" / "was-run").exists()


def pretrained_swin(path: Path, problem: str = "") -> FaceModel:
    """As `Swin_tiny_Ms-Celeb-1M.pt` is: names of the original Swin, patch merging at the end of its stage."""
    torch.manual_seed(5)
    sizes = replace(SWIN, embed_dim=32) if problem == "sizes" else SWIN
    model = FaceModel(sizes)
    torch.nn.init.normal_(model.output_layer[3].running_mean)
    names = {}
    for name in model.state_dict():
        parts = name.removeprefix("backbone.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        names["backbone." + ".".join(parts)] = name
    tensors = {new: model.state_dict()[old] for new, old in names.items()}
    tensors = {n: t for n, t in tensors.items() if not n.startswith(("backbone.linear", "backbone.classifier"))}
    tensors |= {
        "head.weight": torch.zeros(20, 32),
        "backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
    }
    if problem == "missing":
        del tensors["backbone.output_layer.2.weight"]
    if problem == "other":
        tensors = {"conv1.weight": torch.zeros(3)}
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3}, path)
    return model


@pytest.mark.parametrize("name", ["Swin_tiny_Ms-Celeb-1M.pt", "swin.safetensors"])
def test_swin_is_taken_as_published(name: str, tmp_path: Path) -> None:
    saved("roberta", "bare", tmp_path / "plm")
    model = pretrained_swin(tmp_path / name)
    begun = start(tmp_path / "plm", tmp_path / name)
    ours, theirs = begun.model.swin.state_dict(), model.state_dict()
    taken = [n for n in theirs if not n.startswith(("linear.", "classifier.")) and theirs[n].is_floating_point()]
    assert len(taken) > 30
    assert all(torch.equal(ours[n], theirs[n]) for n in taken)
    assert not torch.equal(ours["linear.weight"], theirs["linear.weight"])
    fresh = start(tmp_path / "plm", from_scratch=True).model.swin.state_dict()
    assert torch.equal(ours["linear.weight"], fresh["linear.weight"])
    assert any("head.weight" in note for note in begun.notes)
    assert not [note for note in begun.notes if "random" in note]
    assert name in begun.sha256


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("sizes", "embed_dim=32.*expected.*embed_dim=16"),
        ("missing", "output_layer.2.weight"),
        ("other", "no pre-trained Swin"),
        ("absent", "There is no file"),
    ],
)
def test_other_swins_are_refused(problem: str, message: str, tmp_path: Path) -> None:
    saved("roberta", "bare", tmp_path / "plm")
    if problem != "absent":
        pretrained_swin(tmp_path / "swin.pt", problem)
    with pytest.raises(CheckpointError, match=message):
        start(tmp_path / "plm", tmp_path / "swin.pt")


def test_fresh_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    saved("roberta", "bare", tmp_path / "plm")

    def fresh(seed: int, other: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(other)
        chosen = replace(settings(), run=RunSettings(seed=seed))
        return start(tmp_path / "plm", from_scratch=True, chosen=chosen).model.fusion.state_dict()

    first, again, another = fresh(1, 1), fresh(1, 2), fresh(2, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], another["classifier.weight"])
    positions = first["audio_utt_transformer.position_embeddings.weight"]
    assert positions.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("sizes", [{"hidden_size": 3_000_000}, {"swin": SwinSizes(embed_dim=96_000_000)}])
def test_a_model_too_large_for_the_memory_is_refused_at_once(sizes: dict[str, Any], tmp_path: Path) -> None:
    saved("roberta", "bare", tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"too large for this machine's memory.*\n.* GB"):
        start(tmp_path, from_scratch=True, chosen=settings(**sizes))


def test_everything_can_be_trained_and_saved(tmp_path: Path) -> None:
    saved("roberta", "head", tmp_path / "plm")
    pretrained_swin(tmp_path / "swin.pt")
    begun = start(tmp_path / "plm", tmp_path / "swin.pt")
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in begun.model.parameters())
    save_checkpoint(begun.model, tmp_path / "run", begun.tokenizer_json)


def test_vision_only_begins_with_nothing(tmp_path: Path) -> None:
    chosen = settings(modality="V")
    begun = start(chosen=chosen, features=FewFeatures(audio=None))
    sizes = begun.model.architecture.unimodal
    assert sizes is not None
    assert (sizes.vision_length, sizes.vision_size, sizes.hidden_size, begun.tokenizer_json) == (6, 16, 48, None)
    with pytest.raises(UsageError, match="--swin-weights"):
        start(swin=tmp_path / "swin.pt", chosen=chosen)
    with pytest.raises(UsageError, match="--plm-dir"):
        start(plm_dir=tmp_path, chosen=chosen)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder is not given.*\n.*roberta-large.*\n.*--plm-dir"):
        start(from_scratch=True)
    saved("roberta", "bare", tmp_path / "plm")
    with pytest.raises(DataError, match="no audio"):
        start(tmp_path / "plm", from_scratch=True, features=FewFeatures(audio=None))
    with pytest.raises(FmmtError, match=r"config\.json does not exist"):
        start(tmp_path, from_scratch=True)
