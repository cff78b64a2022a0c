"""Inputs that lie where an engine computes: the same answers, and nothing goes there any more.

Expected values are the bundle's recorded answers, which the PyTorch model gave before the export.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnxruntime
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.ort.binding import BoundOrtEngine
from fmmt_deploy.engines.placing import placed
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.engines.torch.load import engines_from_bundle
from tests.engines.tensorrt.simulated import simulated_engines

Bundles = Callable[[str], Bundle]


def bound_session(bundle: Bundle, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(bundle.graph(graph)), providers=["CPUExecutionProvider"])  # type: ignore[arg-type]  # one of graphs_of


@contextmanager
def opened(bundle: Bundle, kind: str) -> Iterator[Engines]:
    graphs = graphs_of(bundle.manifest.architecture)
    if kind == "trt-rtx":
        with simulated_engines(bundle) as engines:
            yield engines
    elif kind == "torch-cuda":
        with engines_from_bundle(bundle, "torch-cuda", dict.fromkeys(graphs, "fp32"), 1, device="cpu") as engines:
            yield engines
    elif kind == "ort-cuda":
        bound = {g: BoundOrtEngine(g, bound_session(bundle, g), onnxruntime.OrtValue, "cpu") for g in graphs}
        with Engines(kind, bound) as engines:
            yield engines
    else:
        with open_engines(bundle, "ort", threads=1) as engines:
            yield engines


@pytest.mark.parametrize("kind", ["ort", "ort-cuda", "torch-cuda", "trt-rtx"])
@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_answers_stay_the_same(tiny_bundle: Bundles, model: str, kind: str) -> None:
    bundle = tiny_bundle(model)
    with opened(bundle, kind) as engines:
        for graph, stage in read_self_test(bundle.path / "self_test.npz").items():
            there = placed(engines[graph], stage.inputs)
            assert there.keys() == stage.inputs.keys()
            for _ in range(2):  # what was placed may be read again
                for name, array in engines[graph].run(there).items():
                    np.testing.assert_allclose(array, stage.outputs[name], rtol=0, atol=2e-5)


def test_nothing_is_copied_there_any_more(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle("roberta")
    with simulated_engines(bundle) as engines:
        stage = read_self_test(bundle.path / "self_test.npz")["plm"]
        plm = engines["plm"]
        assert isinstance(plm, TensorRTEngine)
        there = placed(plm, stage.inputs)
        monkeypatch.setattr(plm._session.device, "upload", lambda *_: pytest.fail("copied to the device"))
        found = plm.start(there)["token_states"].numpy()
        np.testing.assert_allclose(found, stage.outputs["token_states"], rtol=0, atol=2e-5)


def test_what_the_reference_reads_on_the_host_stays_there(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    with opened(bundle, "torch-cuda") as engines:
        stage = read_self_test(bundle.path / "self_test.npz")["fusion"]
        there = placed(engines["fusion"], stage.inputs)
        assert {name for name, value in there.items() if not isinstance(value, np.ndarray)} == {
            "audio",
            "audio_length",
            "token_states",
        }
