"""Where training drops numbers at random, how many, and that nothing is dropped otherwise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from fmmt_deploy.architecture import Architecture, PlmKind
from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.reference.fusion import gate_faces
from fmmt_deploy.reference.layers import CrossModalEncoder, UtteranceEncoder
from fmmt_deploy.reference.model import DropRates, ReferenceModel
from fmmt_deploy.reference.presets import PRESETS
from fmmt_deploy.types import GraphName
from tests.reference.samples import V_ONLY

UTTERANCES, ROWS, SIZE, HEADS, LAYERS = 3, 5, 12, 3, 2
RATES = DropRates(plm=0.1, encoders=0.2, path=0.3)


def drawn(compute: Callable[[], Tensor]) -> Tensor:
    """The same draws for both sides of a comparison."""
    torch.manual_seed(7)
    return compute()


def bert_layer(ours: nn.Module, rate: float) -> BertLayer:
    """Transformers' layer with the weights of one of ours."""
    config = BertConfig(
        hidden_size=SIZE,
        num_attention_heads=HEADS,
        intermediate_size=4 * SIZE,
        hidden_dropout_prob=rate,
        attention_probs_dropout_prob=rate,
        attn_implementation="eager",
    )
    names = {
        "transformer_self_attention.selfatt.": "attention.self.",
        "transformer_self_attention.dense_norm.": "attention.output.",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    layer = BertLayer(config)
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_drops_as_berts_layers_do(training: bool) -> None:
    """Its sum with positions first, as BERT's embeddings; then attention and both branches of each layer."""
    torch.manual_seed(0)
    ours = UtteranceEncoder(ROWS, SIZE, HEADS, LAYERS, dropout=0.4).train(training)
    layers = [bert_layer(layer, 0.4).train(training) for layer in ours.layer]
    rows, mask = torch.randn(UTTERANCES, ROWS, SIZE), torch.ones(UTTERANCES, ROWS)
    mask[0, 3:] = 0

    def theirs() -> Tensor:
        x = F.dropout(rows + ours.position_embeddings.weight, 0.4, training)
        for layer in layers:
            answer = layer(x, attention_mask=(1 - mask)[:, None, None, :] * -10000.0)
            x = answer[0] if isinstance(answer, tuple) else answer
        return x

    torch.testing.assert_close(drawn(lambda: ours(rows, mask)), drawn(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_crossmodal_encoder_drops_as_pytorchs_attention_does(training: bool) -> None:
    torch.manual_seed(0)
    ours = CrossModalEncoder(SIZE, HEADS, LAYERS, dropout=0.4).train(training)
    rows, others = torch.randn(UTTERANCES, ROWS, SIZE), torch.randn(UTTERANCES, ROWS + 2, SIZE)
    attentions = []
    for layer in ours.layers:
        attentions.append(nn.MultiheadAttention(SIZE, HEADS, dropout=0.4, batch_first=True).train(training))
        attentions[-1].load_state_dict(layer.self_attn.state_dict())

    def theirs() -> Tensor:
        x = rows
        for layer, attention in zip(ours.layers, attentions, strict=True):
            first, second = layer.layer_norms
            mixed = attention(first(x), first(others), first(others))[0].contiguous()  # draws follow memory
            x = x + F.dropout(mixed, 0.4, training)
            x = x + F.dropout(layer.fc2(F.gelu(layer.fc1(second(x)))), 0.4, training)
        return F.layer_norm(x, (SIZE,))

    torch.testing.assert_close(drawn(lambda: ours(rows, others)), drawn(theirs), atol=1e-5, rtol=0)


def rates_of(part: nn.Module) -> set[float]:
    """Of every dropout in it, also of those that are no modules of their own."""
    modules = [module.p for module in part.modules() if isinstance(module, nn.Dropout)]
    return {*modules, *(m.dropout for m in part.modules() if isinstance(getattr(m, "dropout", None), float))}


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_each_part_has_its_own_rate(kind: PlmKind) -> None:
    tiny = PRESETS["tiny"]
    assert tiny.plm is not None
    assert tiny.swin is not None
    model = ReferenceModel(replace(tiny, plm=replace(tiny.plm, kind=kind)), drop=RATES)
    assert rates_of(model.plm) == {0.1}
    assert rates_of(model.fusion) == {0.2}
    paths = [m.drop_prob for m in model.swin.modules() if isinstance(m, DropPath)]
    blocks = sum(tiny.swin.depths)
    expected = np.linspace(0, 0.3, blocks)[1:].repeat(2)  # both branches of a block; the first has none
    np.testing.assert_allclose(paths, expected, atol=1e-7)
    assert rates_of(ReferenceModel(V_ONLY, drop=RATES).unimodal) == {0.2}


@pytest.mark.parametrize("architecture", [PRESETS["tiny"], V_ONLY], ids=["T+A+V", "V"])
def test_a_model_answers_without_dropout(architecture: Architecture) -> None:
    """It is made in evaluation mode; its rates are no weights."""
    plain = ReferenceModel(architecture)
    model = ReferenceModel(architecture, drop=DropRates(0.9, 0.9, 0.9))
    assert not any(module.training for module in model.modules())
    assert model.load_state_dict(plain.state_dict()) == ([], [])
    graphs = {graph: inputs_of(graph, architecture) for graph in graphs_of(architecture)}
    for graph, inputs in graphs.items():
        found, expected = model.run(graph, inputs), plain.run(graph, inputs)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def inputs_of(graph: GraphName, architecture: Architecture) -> dict[str, Tensor]:
    torch.manual_seed(1)
    if graph == "swin":
        return {"faces": torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)}
    if graph == "plm":
        return {"input_ids": torch.randint(2, 50, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    if graph == "unimodal":
        sizes = architecture.unimodal
        assert sizes is not None
        return {
            "vision": torch.randn(2, sizes.vision_length, sizes.vision_size),
            "vision_mask": torch.ones(2, sizes.vision_length),
        }
    fusion = architecture.fusion
    assert fusion is not None
    return {
        "token_states": torch.randn(1, 9, fusion.hidden_size),
        "text_row": torch.zeros(2, dtype=torch.long),
        "text_start": torch.tensor([1, 4]),
        "text_length": torch.tensor([3, 4]),
        "audio": torch.randn(2, fusion.audio_length, fusion.audio_size),
        "audio_length": torch.tensor([4, 5]),
        "vision": torch.randn(2, fusion.vision_length, fusion.vision_size),
        "vision_mask": torch.ones(2, fusion.vision_length),
        "face_logits": torch.randn(3, 7),
        "face_index": torch.randint(0, 3, (2, fusion.vision_length)),
        "noise": torch.zeros(2, fusion.vision_length, 7),
    }


def test_the_gates_gradient_is_its_softmaxes() -> None:
    """By hand: a kept face's logits move its probabilities, those of others nothing. With noise, and τ = 0.7."""
    generator = np.random.default_rng(0)
    logits, noise = generator.normal(0, 3, (5, 7)), generator.gumbel(size=(2, 3, 7))
    index, mask = np.array([[4, 0, 2], [1, 3, 0]]), np.array([[1, 1, 0], [1, 1, 1]])
    weights = generator.normal(size=7)
    shifted = (logits[index] + noise) / 0.7
    p = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    kept = (mask > 0) & ((p**2).sum(-1) > 0.5)
    assert 0 < kept.sum() < mask.sum()
    assert kept.any(1).all()
    expected = np.zeros((5, 7))
    np.add.at(expected, index, p * (weights - (p * weights).sum(-1, keepdims=True)) / 0.7 * kept[..., None])
    given = torch.tensor(logits, requires_grad=True)
    rows, _, used = gate_faces(
        torch.zeros(2, 3, 4), torch.tensor(mask), given, torch.tensor(index), torch.tensor(noise), 0.7, 0.5
    )
    (rows[..., 4:] @ torch.tensor(weights)).sum().backward()
    np.testing.assert_array_equal(used, kept)
    np.testing.assert_allclose(given.grad, expected, atol=1e-12)
