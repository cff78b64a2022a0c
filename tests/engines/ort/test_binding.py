"""Tensors that stay where they are computed; on the CPU's memory, with the code that serves a GPU's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.selftest import Stage, read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.ort.binding import BoundOrtEngine, OrtTensor
from fmmt_deploy.engines.protocol import Engines, Value
from fmmt_deploy.errors import FmmtError, UsageError
from fmmt_deploy.parity.consistency import self_consistency
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.types import GraphName
from tests.pipeline.conversations import conversations, dataset

Bundles = Callable[[str], Bundle]
MODELS = ["roberta", "bert", "unimodal"]


def stages_of(bundle: Bundle) -> dict[GraphName, Stage]:
    return read_self_test(bundle.path / "self_test.npz")


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def bound(bundle: Bundle) -> Iterator[Engines]:
    """A bundle's graphs with IO binding."""
    engines = {
        graph: BoundOrtEngine(graph, session(bundle.graph(graph)), onnxruntime.OrtValue, "cpu")
        for graph in graphs_of(bundle.manifest.architecture)
    }
    with Engines("ort", engines, face_batch=4) as opened:
        yield opened


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_a_plain_session(tiny_bundle: Bundles, model: str) -> None:
    bundle = tiny_bundle(model)
    with bound(bundle) as engines, open_engines(bundle, "ort", threads=1) as plain:
        for graph, stage in stages_of(bundle).items():
            assert dict(engines[graph].inputs) == dict(plain[graph].inputs)
            right, started = plain[graph].run(stage.inputs), engines[graph].start(stage.inputs)
            assert list(started) == list(right)
            for name, tensor in started.items():
                assert (tensor.shape, tensor.dtype) == (right[name].shape, right[name].dtype)
                np.testing.assert_array_equal(tensor.numpy(), right[name])
            for name, array in engines[graph].run(stage.inputs).items():
                np.testing.assert_array_equal(array, right[name])


def test_outputs_go_to_the_next_graph_as_they_are(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle("roberta")
    stages = stages_of(bundle)
    with bound(bundle) as engines:
        states = engines["plm"].start(stages["plm"].inputs)["token_states"]
        faces = engines["swin"].start(stages["swin"].inputs, 2)["face_logits"]
        assert isinstance(states, OrtTensor)
        fused: dict[str, Value] = {**stages["fusion"].inputs, "token_states": states, "face_logits": faces}
        with monkeypatch.context() as patch:
            patch.setattr(OrtTensor, "numpy", lambda _: pytest.fail("it was copied to the host"))
            outputs = engines["fusion"].start(fused)
        arrays = {name: value.numpy() if isinstance(value, OrtTensor) else value for name, value in fused.items()}
        np.testing.assert_array_equal(outputs["logits"].numpy(), engines["fusion"].run(arrays)["logits"])


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("model", "graph"), [("roberta", "swin"), ("unimodal", "unimodal")])
def test_parts_make_the_whole(tiny_bundle: Bundles, model: str, graph: GraphName, rows: int) -> None:
    bundle = tiny_bundle(model)
    inputs = {name: np.concatenate([a, a[::-1]])[:7] for name, a in stages_of(bundle)[graph].inputs.items()}
    with bound(bundle) as engines:
        (name,) = whole = engines[graph].run(inputs)
        part = engines[graph].start(inputs, rows)[name]
        assert part.shape == whole[name].shape
        np.testing.assert_allclose(part.numpy(), whole[name], atol=1e-5, rtol=0)
        assert len(np.unique(part.numpy().round(4), axis=0)) > 1
        device = engines[graph].start(inputs)[name]
        assert isinstance(device, OrtTensor)


def test_parts_of_what_has_no_fixed_shape_are_refused(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    with bound(bundle) as engines, pytest.raises(UsageError, match="token_states has the shape"):
        engines["plm"].start(stages_of(bundle)["plm"].inputs, 1)


@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_the_gate_passes(tiny_bundle: Bundles, model: str) -> None:
    """With inputs that are overwritten, outputs that are kept, and parts."""
    bundle = tiny_bundle(model)
    with bound(bundle) as engines:
        report = self_consistency(bundle.manifest.architecture, engines, stages_of(bundle))
    report.raise_unless_passed()
    assert all(report.deterministic.values())


def test_through_the_pipeline(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("roberta")
    data = dataset(conversations(tmp_path))
    with bound(bundle) as engines, open_engines(bundle, "ort", threads=1) as plain:
        right, found = (Pipeline(bundle, e, batch_size=3).in_order(data) for e in (plain, engines))
    for one, other in zip(right, found, strict=True):
        np.testing.assert_allclose(other.logits, one.logits, atol=2e-5, rtol=0)
        assert other.kept_faces == one.kept_faces


def test_failures_are_ours(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    inputs = dict(stages_of(bundle)["fusion"].inputs)
    with bound(bundle) as engines:
        with pytest.raises(UsageError, match="missing"):
            engines["fusion"].start({})
        inputs["noise"] = inputs["noise"][:, :1]
        with pytest.raises(FmmtError, match="ONNX Runtime failed in fusion on"):
            engines["fusion"].start(inputs)
