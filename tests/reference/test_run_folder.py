"""Our own checkpoints: bit for bit there and back, exported from the folder alone, and never half written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fmmt_deploy.data.tokenizer_files import tokenizer_json
from fmmt_deploy.errors import CheckpointError, EnvironmentProblem
from fmmt_deploy.reference.checkpoints import find_plm_dir, read_checkpoint
from fmmt_deploy.reference.loading import model_from_checkpoint, model_from_weight_files, save_checkpoint, save_weights
from fmmt_deploy.reference.model import ReferenceModel
from fmmt_deploy.reference.presets import PRESETS, random_model
from tests.cli.running import exit_code
from tests.reference.samples import V_ONLY, plm_dir

FILES = ("config.json", "model.safetensors")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_checkpoint(random_model(V_ONLY), tmp_path)
    return tmp_path


def assert_equal(one: ReferenceModel, other: ReferenceModel) -> None:
    assert one.architecture == other.architecture
    assert (one.tau, one.threshold) == (other.tau, other.threshold)
    for name, tensor in one.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("architecture", [PRESETS["tiny"], V_ONLY], ids=["T+A+V", "V"])
def test_there_and_back(tmp_path: Path, architecture: Any) -> None:
    model = random_model(architecture, seed=3)
    model.tau, model.threshold = 0.7, 0.31
    tokenizer = None if architecture is V_ONLY else tokenizer_json(plm_dir("roberta"), "roberta")
    save_checkpoint(model, tmp_path / "run", tokenizer)
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.architecture == architecture
    assert checkpoint.settings == {"tau": 0.7, "threshold": 0.31}
    assert checkpoint.sha256.keys() == set(FILES)
    assert_equal(model, model_from_checkpoint(checkpoint, **checkpoint.settings))
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {*FILES, *(["tokenizer.json"] if tokenizer else [])}
    assert find_plm_dir(tmp_path / "run") == (tmp_path / "run" if tokenizer else None)


def test_a_run_folder_is_all_that_export_needs(tmp_path: Path) -> None:
    save_checkpoint(random_model(PRESETS["tiny"]), tmp_path / "run", tokenizer_json(plm_dir("roberta"), "roberta"))
    arguments = ("export", "--ckpt", str(tmp_path / "run"), "-o", str(tmp_path / "bundle"), "-q")
    assert exit_code(*arguments) == 0
    (tmp_path / "run" / "tokenizer.json").unlink()
    assert exit_code(*arguments, "--force") == 2, "a model that reads text needs its tokenizer"


def test_same_seed_same_model_and_the_callers_draws_are_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert_equal(random_model(V_ONLY, 5), random_model(V_ONLY, 5))
    assert torch.equal(torch.get_rng_state(), before)
    other = random_model(V_ONLY, 6).unimodal.classifier.weight
    assert not torch.equal(random_model(V_ONLY, 5).unimodal.classifier.weight, other)


def edit(config: Path, where: str, value: object) -> None:
    values = json.loads(config.read_text())
    *parents, last = where.split("/")
    inner = values
    for name in parents:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    config.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("schema", "fmmt.checkpoint/2", "expected the schema fmmt.checkpoint/1, found 'fmmt.checkpoint/2'"),
        ("schema", ..., "expected the schema fmmt.checkpoint/1, found None"),
        ("tau", 0, "tau should be above 0"),
        ("tau", ..., "tau should be present"),
        ("threshold", 1.5, "threshold should be between 0 and 1"),
        ("threshold", True, "threshold should be a number"),
        ("note", "x", "note should be absent"),
        ("architecture/modality", "T+A+V", "architecture should be of swin, plm, fusion, found unimodal"),
        ("architecture/unimodal", None, "architecture should be of unimodal, found nothing"),
        ("architecture/unimodal/heads", 7, "unimodal.heads should be a divisor of hidden_size 48, found 7"),
        ("architecture/unimodal/heads", 0, "unimodal.heads should be above 0"),
        ("architecture/unimodal/hidden_size", 96, "hidden_size=96, .*but the tensors have .*hidden_size=48"),
        ("architecture/unimodal/vision_layers", 10**12, "but the tensors have"),
    ],
)
def test_configuration_is_strict(run: Path, where: str, value: object, message: str) -> None:
    edit(run / "config.json", where, value)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(run)


@pytest.mark.parametrize("name", ["swin.classifier.weight", "stray", "unimodal.extra"])
def test_unknown_tensors(run: Path, name: str) -> None:
    save_file({**load_file(run / "model.safetensors"), name: np.ones(2, np.float32)}, run / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"unknown tensor {name.removeprefix('unimodal.')}"):
        model_from_checkpoint(read_checkpoint(run), tau=1.0, threshold=0.2)


@pytest.mark.parametrize("file", FILES)
def test_a_file_missing(run: Path, file: str) -> None:
    (run / file).unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        read_checkpoint(run)


def test_a_failed_write_leaves_the_old_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (run / name).read_bytes() for name in FILES}
    monkeypatch.setattr("fmmt_deploy.reference.loading.save_file", _half_written)
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        save_checkpoint(random_model(V_ONLY, seed=9), run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def _half_written(_tensors: object, path: Path) -> None:
    from safetensors import SafetensorError

    path.write_bytes(b"half")
    raise SafetensorError("No space left on device")


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        save_weights(random_model(V_ONLY), tmp_path / "missing" / "x.safetensors")


@pytest.mark.parametrize("change", ["drop", "add", "reshape", "buffer"])
def test_weight_files_of_a_bundle_are_read_strictly(tmp_path: Path, change: str) -> None:
    model = random_model(PRESETS["tiny"])
    parts = {"swin": model.swin, "plm": model.plm, "fusion": model.fusion}
    files = {name: tmp_path / f"{name}.safetensors" for name in parts}
    for name, part in parts.items():
        save_weights(part, files[name])
    assert_equal(model, model_from_weight_files(model.architecture, files, 1.0, 0.2))
    tensors = load_file(files["swin"])
    name = "output_layer.3.running_var" if change == "buffer" else "classifier.weight"
    tensor = tensors.pop(name)
    if change == "add":
        tensors |= {name: tensor, "more": np.ones(1, np.float32)}
    if change == "reshape":
        tensors[name] = tensor.T.copy()
    save_file(tensors, files["swin"])
    with pytest.raises(CheckpointError, match="more" if change == "add" else name):
        model_from_weight_files(model.architecture, files, 1.0, 0.2)
