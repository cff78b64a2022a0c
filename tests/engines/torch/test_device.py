"""The reference on a device; the CPU stands in for the GPU, and runs the same code but for streams and pinned memory.

Expected values are the recorded answers of the PyTorch model from before the export, and PyTorch's own BF16.
"""

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from fmmt_deploy.bundle.manifest import Precision
from fmmt_deploy.bundle.precisions import Precisions, float32
from fmmt_deploy.bundle.selftest import Stage, read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind, Engines
from fmmt_deploy.engines.torch.device import DeviceTensor
from fmmt_deploy.engines.torch.load import check_cuda, engines_from_bundle
from fmmt_deploy.errors import EnvironmentProblem, FmmtError, UsageError
from fmmt_deploy.parity.run import cases_from_self_test, parity
from fmmt_deploy.types import GraphName
from tests.cli.running import exit_code

Bundles = Callable[[str], Bundle]

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")


def precisions(bundle: Bundle, precision: Precision) -> Precisions:
    return dict.fromkeys(bundle.manifest.graphs, precision)


def on_cpu(bundle: Bundle, kind: EngineKind = "torch-cuda", precision: Precision = "fp32") -> Engines:
    return engines_from_bundle(bundle, kind, precisions(bundle, precision), 1, device="cpu", backend="eager")


def self_test(bundle: Bundle) -> dict[GraphName, Stage]:
    return read_self_test(bundle.path / "self_test.npz")


@pytest.fixture
def no_global_change() -> Iterator[None]:
    def state() -> tuple[object, ...]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.is_inference_mode_enabled()

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("kind", ["torch-cuda", "torch-compiled"])
@pytest.mark.parametrize("model", ["roberta", "unimodal"])
@pytest.mark.usefixtures("no_global_change")
def test_float32_is_the_reference(tiny_bundle: Bundles, model: str, kind: EngineKind) -> None:
    bundle = tiny_bundle(model)
    with on_cpu(bundle, kind) as engines:
        assert engines.kind == kind
        for graph, stage in self_test(bundle).items():
            found = engines[graph].run(stage.inputs)
            for name, expected in stage.outputs.items():
                assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
                np.testing.assert_allclose(found[name].astype(float), expected.astype(float), rtol=0, atol=1e-6)


def test_layers_that_are_alike_are_compiled_once(tiny_bundle: Bundles) -> None:
    """PyTorch counts the graphs: two sizes and two layers make one, and a batch of one makes one more."""
    from torch._dynamo.utils import counters

    bundle = tiny_bundle("roberta")
    inputs = self_test(bundle)["plm"].inputs
    torch.compiler.reset()
    counters.clear()
    with on_cpu(bundle, "torch-compiled") as engines:
        for rows, tokens, graphs in ((2, 96, 1), (2, 50, 1), (1, 50, 2), (1, 70, 2), (2, 96, 2)):
            engines["plm"].run({name: array[:rows, :tokens] for name, array in inputs.items()})
            assert counters["stats"]["unique_graphs"] == graphs


def test_outputs_pass_from_graph_to_graph_without_copies(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    stages = self_test(bundle)
    with on_cpu(bundle) as engines:
        states = engines["plm"].start(stages["plm"].inputs)["token_states"]
        logits = engines["swin"].start(stages["swin"].inputs, rows=2)["face_logits"]
        assert isinstance(states, DeviceTensor)
        assert (states.shape, states.dtype) == (stages["plm"].outputs["token_states"].shape, np.float32)
        np.testing.assert_allclose(logits.numpy(), stages["swin"].outputs["face_logits"], rtol=0, atol=1e-6)
        inputs = {**stages["fusion"].inputs, "token_states": states, "face_logits": logits}
        answers = engines["fusion"].start(inputs)
        np.testing.assert_array_equal(answers["kept"].numpy(), stages["fusion"].outputs["kept"])
        np.testing.assert_allclose(answers["logits"].numpy(), stages["fusion"].outputs["logits"], rtol=0, atol=2e-6)


def test_inputs_may_change_as_soon_as_start_returns(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("unimodal")
    stage = self_test(bundle)["unimodal"]
    inputs = {name: array.copy() for name, array in stage.inputs.items()}
    with on_cpu(bundle) as engines:
        started = engines["unimodal"].start(inputs)
        for array in inputs.values():
            array[...] = 0
        np.testing.assert_allclose(started["logits"].numpy(), stage.outputs["logits"], rtol=0, atol=1e-6)


def test_bf16_is_autocast_and_within_its_tolerances(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    stages = self_test(bundle)
    with on_cpu(bundle, precision="bf16") as engines, on_cpu(bundle) as reference:
        found = engines["plm"].run(stages["plm"].inputs)["token_states"]
        assert found.dtype == np.float32
        rounded = torch.from_numpy(found).bfloat16().float().numpy()
        np.testing.assert_array_equal(found, rounded)  # the last product was BF16
        assert np.abs(found - stages["plm"].outputs["token_states"]).max() > 1e-3  # and the others too
        report = parity(bundle.manifest.architecture, reference, engines, cases_from_self_test(stages))
    report.raise_unless_passed()
    assert "torch-cuda bf16" in str(report.table())


def test_each_graph_has_its_own_precision(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    stages = self_test(bundle)
    mixed: Precisions = {"swin": "bf16", "plm": "fp32", "fusion": "fp32"}
    with engines_from_bundle(bundle, "torch-cuda", mixed, 1, device="cpu") as engines:
        assert engines.precisions == mixed
        exact = np.abs(engines["plm"].run(stages["plm"].inputs)["token_states"] - stages["plm"].outputs["token_states"])
        coarse = np.abs(
            engines["swin"].run(stages["swin"].inputs)["face_logits"] - stages["swin"].outputs["face_logits"]
        )
    assert exact.max() < 1e-6
    assert coarse.max() > 1e-5


def test_torch_s_own_errors_are_ours(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle("unimodal")
    stage = self_test(bundle)["unimodal"]
    with on_cpu(bundle) as engines:
        wrong = {**stage.inputs, "vision": stage.inputs["vision"][..., :-1]}
        with pytest.raises(FmmtError, match="unimodal failed in PyTorch on cpu: RuntimeError") as caught:
            engines["unimodal"].run(wrong)
        assert caught.value.__cause__ is not None

        def full(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

        monkeypatch.setattr("fmmt_deploy.reference.model.ReferenceModel.run", full)
        with pytest.raises(EnvironmentProblem, match="too small") as out:
            engines["unimodal"].run(stage.inputs)
        assert out.value.why == "CUDA out of memory. Tried to allocate 2 GiB."
    with pytest.raises(RuntimeError, match="closed"):
        engines["unimodal"].run(stage.inputs)


@pytest.mark.parametrize("precision", sorted(set(get_args(Precision)) - {"fp32", "fp16", "bf16"}))
def test_precisions_that_torch_does_not_have(tiny_bundle: Bundles, precision: Precision) -> None:
    bundle = tiny_bundle("unimodal")
    with pytest.raises(UsageError, match=f"computes in fp32, fp16 and bf16, not {precision}"):
        on_cpu(bundle, precision=precision)


@needs_no_gpu
@pytest.mark.parametrize("kind", ["torch-cuda", "torch-compiled"])
def test_without_a_gpu(tiny_bundle: Bundles, kind: EngineKind, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle("unimodal")
    with pytest.raises(EnvironmentProblem, match=f"{kind} needs an NVIDIA GPU, and PyTorch"):
        open_engines(bundle, kind)
    assert exit_code("parity", "-b", str(bundle.path), "--engine", kind) == 3
    assert f"error: {kind} needs an NVIDIA GPU" in capsys.readouterr().err
    assert exit_code("parity", "-b", str(bundle.path), "--engine", "ort", "--reference", "torch-cuda") == 3


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    def unavailable() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EnvironmentProblem) as caught:
        check_cuda("torch-cuda")
    assert "too old (found version 11040)" in caught.value.why


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_on_a_gpu(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    stages = self_test(bundle)
    with open_engines(bundle, "torch-cuda") as engines, on_cpu(bundle) as reference:
        parity(bundle.manifest.architecture, reference, engines, cases_from_self_test(stages)).raise_unless_passed()
    with open_engines(bundle, "torch-cuda", float32(bundle.manifest.graphs)) as engines:
        states = engines["plm"].start(stages["plm"].inputs)["token_states"]
        assert isinstance(states, DeviceTensor)
        assert states.tensor.is_cuda
