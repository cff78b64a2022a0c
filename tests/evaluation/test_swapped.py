"""Mixtures of two bundles of engines, each against a run of engines put together by hand."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pytest

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt.profiles import Profiles, Range, default_profiles
from fmmt_deploy.errors import FmmtError
from fmmt_deploy.evaluation.swapped import SwappedRuns, swapped_runs
from fmmt_deploy.pipeline.noise import gumbel_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import DataSet, GraphName
from tests.engines.tensorrt.simulated import simulated_engines
from tests.engines.tensorrt.simulated_device import SimulatedDevice
from tests.parity.faults import Fault, Outputs, all_nan, half_precision, spoilt
from tests.pipeline.conversations import conversations, dataset, only

Bundles = Callable[[str], Bundle]
GRAPHS: tuple[GraphName, ...] = ("swin", "plm", "fusion")
NOISE = gumbel_noise(3)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Without the dialogue that is read in windows, which takes longest."""
    return dataset(conversations(tmp_path_factory.mktemp("faces"))[:4])


def same(found: tuple[Prediction, ...], expected: list[Prediction]) -> None:
    """Bit for bit."""
    for a, b in zip(found, expected, strict=True):
        assert (a.utterance, a.kept_faces) == (b.utterance, b.kept_faces)
        np.testing.assert_array_equal(a.logits, b.logits)
        np.testing.assert_array_equal(a.face_logits, b.face_logits)


def off(engines: Engines) -> Engines:
    """What all three answer is too small."""

    def shrunk(outputs: Outputs) -> Outputs:
        return {name: array * np.float32(0.9) if array.dtype.kind == "f" else array for name, array in outputs.items()}

    return spoilt(engines, GRAPHS, dict.fromkeys(GRAPHS, shrunk))


def test_every_mixture_is_the_run_of_its_engines(tiny_bundle: Bundles, talks: DataSet) -> None:
    bundle, some = tiny_bundle("roberta"), dataset(talks.dialogues[:2])
    with open_engines(bundle, "torch", threads=1) as reference, open_engines(bundle, "ort", threads=1) as other:
        sides: Mapping[str, Engines] = {"reference": reference, "engine": off(other)}
        done: list[int] = []
        runs = swapped_runs(
            bundle, sides["reference"], sides["engine"], some, noise=NOISE, batch_size=3, advance=done.append
        )
        assert runs.rows == tuple(product(("reference", "engine"), repeat=3))
        assert (runs.graphs, runs.utterances, sum(done)) == (GRAPHS, some.order, len(some.order))
        assert runs.logits.shape == (8, len(some.order), 7)
        for row, answers in zip(runs.rows, runs.answers, strict=True):
            mixed = Engines("mixed", {g: sides[side][g] for g, side in zip(GRAPHS, row, strict=True)})
            same(answers, Pipeline(bundle, mixed, batch_size=3).in_order(some, NOISE))
    assert len({row.tobytes() for row in runs.logits}) == 8


def test_swin_and_plm_run_once_a_side(tiny_bundle: Bundles, talks: DataSet) -> None:
    bundle = tiny_bundle("roberta")

    def counted(engines: Engines) -> tuple[Engines, Counter[GraphName]]:
        runs: Counter[GraphName] = Counter()

        def counting(graph: GraphName) -> Fault:
            return lambda outputs: runs.update([graph]) or outputs

        return spoilt(engines, GRAPHS, {graph: counting(graph) for graph in GRAPHS}), runs

    with open_engines(bundle, "ort", threads=1) as engines:
        (alone, by_itself), (one, of_one), (two, of_two) = (counted(engines) for _ in range(3))
        Pipeline(bundle, alone).in_order(talks)
        swapped_runs(bundle, one, two, talks)
    assert min(by_itself[graph] for graph in GRAPHS) > 0
    for counts in (of_one, of_two):
        assert counts == {g: by_itself[g] * (4 if g == "fusion" else 1) for g in GRAPHS}


def test_what_is_on_a_device_is_handed_over(tiny_bundle: Bundles, talks: DataSet) -> None:
    """The engine keeps its outputs, and takes texts padded to 32 tokens only; all mixtures answer alike."""
    bundle = tiny_bundle("roberta")
    device, tokens = SimulatedDevice(1), {"tokens": Range(32, 128, 512)}
    default = default_profiles(bundle.manifest.architecture)
    padded = {g: tuple({**p, **(tokens if "tokens" in p else {})} for p in default.of(g)) for g in GRAPHS}
    profiles = Profiles("texts of 32 tokens and more", padded)
    with (
        open_engines(bundle, "ort", threads=1) as reference,
        simulated_engines(bundle, device=device, profiles=profiles) as engines,
    ):
        assert engines.token_multiple == 32
        runs = swapped_runs(bundle, reference, engines, talks, noise=NOISE, batch_size=1)
        pipelines = [Pipeline(bundle, side, batch_size=1) for side in (reference, engines)]
        assert min(len(group.windows[0]) for group in pipelines[0].plan(talks)) < 32
        same(runs.answers[0], pipelines[0].in_order(talks, NOISE))
        same(runs.answers[-1], pipelines[1].in_order(talks, NOISE))
        for answers in runs.answers:
            for found, expected in zip(answers, runs.answers[0], strict=True):
                assert found.kept_faces == expected.kept_faces
                np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)
    assert device.leaks() == []


def test_a_model_of_one_graph_has_two_rows(tiny_bundle: Bundles, talks: DataSet) -> None:
    bundle = tiny_bundle("unimodal")
    seen = dataset([only(d, [u.position for u in d.utterances if u.vision_length]) for d in talks.dialogues])
    with open_engines(bundle, "ort", threads=1) as reference, open_engines(bundle, "torch", threads=1) as other:
        engines = spoilt(other, ("unimodal",), {"unimodal": half_precision})
        runs: SwappedRuns = swapped_runs(bundle, reference, engines, seen)
        assert (runs.graphs, runs.rows) == (("unimodal",), (("reference",), ("engine",)))
        same(runs.answers[0], Pipeline(bundle, reference).in_order(seen))
        same(runs.answers[1], Pipeline(bundle, engines).in_order(seen))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_mixture_without_an_answer_is_an_error(tiny_bundle: Bundles, talks: DataSet, graph: GraphName) -> None:
    bundle = tiny_bundle("roberta")
    with open_engines(bundle, "ort", threads=1) as engines:
        broken = spoilt(engines, GRAPHS, {graph: all_nan})
        with pytest.raises(FmmtError, match=r"NaN|nan"):
            swapped_runs(bundle, engines, broken, talks)
