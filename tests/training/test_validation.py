"""A live model is scored as its exported bundle is, and is left as it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.engines.torch.device import DeviceEngine
from fmmt_deploy.errors import DataError
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.training.settings import Settings, TargetSettings
from fmmt_deploy.training.validation import answers, evaluate_model, noise_of, validator
from fmmt_deploy.types import DataSet, GraphName
from tests.cli.running import exit_code
from tests.golden import GOLDEN
from tests.models import TINY, tiny_source

KINDS = ("roberta", "unimodal")


def data_of(name: str) -> DataSet:
    return read_data(GOLDEN / "roberta", "test", TINY[name])


@pytest.mark.parametrize("noise", ["none", "gumbel"])
@pytest.mark.parametrize("name", KINDS)
def test_it_is_what_fmmt_says_of_the_exported_model(
    tiny_bundle: Callable[[str], Bundle], name: str, noise: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle's answers are ONNX Runtime's, from the graphs: another implementation of the arithmetic."""
    source, dataset = tiny_source(name), data_of(name)
    asked = ("-b", str(tiny_bundle(name).path), "--data", str(GOLDEN / "roberta"), "--noise", noise, "--seed", "5")
    assert exit_code("eval", *asked, "--json") == 0
    said = json.loads(capsys.readouterr().out)["modes"][0]["evaluation"]
    assert exit_code("run", *asked, "-o", str(tmp_path / "answers.jsonl")) == 0
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    live = answers(source.model, source.tokenizer, dataset, noise_of(noise, 5))
    assert [row["utterance"] for row in rows] == list(dataset.order)
    np.testing.assert_allclose(live, [row["logits"] for row in rows], rtol=0, atol=1e-5)
    assert evaluate_model(source.model, source.tokenizer, dataset, noise, 5, "cpu").to_json() == said


def test_a_gpu_is_asked_through_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the CPU stands in for it."""
    source, dataset = tiny_source("roberta"), data_of("roberta")
    asked = []

    def stand_in(graph: GraphName, model: ReferenceModel, device: str) -> DeviceEngine:
        asked.append((graph, device))
        return DeviceEngine(graph, model, "cpu")

    on_host = answers(source.model, source.tokenizer, dataset, noise_of("gumbel", 1))
    monkeypatch.setattr("fmmt_deploy.engines.torch.device.DeviceEngine", stand_in)
    elsewhere = answers(source.model, source.tokenizer, dataset, noise_of("gumbel", 1), "cuda:1")
    assert asked == [("swin", "cuda:1"), ("plm", "cuda:1"), ("fusion", "cuda:1")]
    np.testing.assert_allclose(elsewhere, on_host, rtol=0, atol=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    """Dropout is off while it is asked; each part has its own mode again, and can be trained on."""
    source = tiny_source("roberta")
    model = source.model.train()
    model.swin.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads, before = torch.get_num_threads(), [module.training for module in model.modules()]
    first, again = (answers(model, source.tokenizer, data_of("roberta")) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert [module.training for module in model.modules()] == before
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model.plm(torch.tensor([[0, 5, 2]]), torch.ones(1, 3, dtype=torch.long)).sum().backward()
    assert model.plm.text_linear.weight.grad is not None


def test_the_mode_comes_back_when_asking_fails() -> None:
    source, dataset = tiny_source("roberta"), data_of("roberta")
    lost = tuple(
        replace(d, utterances=tuple(replace(u, faces=(Path("gone.jpg"),) * len(u.faces)) for u in d.utterances))
        for d in dataset.dialogues
    )
    with pytest.raises(DataError, match=r"gone\.jpg"):
        answers(source.model.train(), source.tokenizer, replace(dataset, dialogues=lost))
    assert all(module.training for module in source.model.modules())


def test_every_epoch_has_the_same_noise() -> None:
    source, dataset = tiny_source("roberta"), data_of("roberta")
    noisy = validator(dataset, source.tokenizer, Settings(target=TargetSettings(validation_noise="gumbel")), "cpu")
    quiet = validator(dataset, source.tokenizer, Settings(target=TargetSettings(validation_noise="none")), "cpu")
    assert noisy(source.model) == noisy(source.model)
    assert noisy(source.model) == evaluate_model(source.model, source.tokenizer, dataset, "gumbel", 1111, "cpu")
    assert quiet(source.model) == evaluate_model(source.model, source.tokenizer, dataset, "none", 0, "cpu")


def test_no_utterance_is_an_error() -> None:
    source = tiny_source("unimodal")
    with pytest.raises(DataError, match="one label for each utterance, found 0"):
        evaluate_model(source.model, None, DataSet("nowhere", (), ()), "none", 0, "cpu")
