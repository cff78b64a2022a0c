"""Engines on a simulated GPU answer as ONNX Runtime does, whatever the GPU's timing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.engines.tensorrt import buffers
from fmmt_deploy.engines.tensorrt.device import DeviceError
from fmmt_deploy.engines.tensorrt.engine import TensorRTEngine
from fmmt_deploy.engines.tensorrt.layout import layout_of
from fmmt_deploy.engines.tensorrt.load import RunOptions
from fmmt_deploy.engines.tensorrt.profiles import Profile, Profiles, Range
from fmmt_deploy.engines.tensorrt.session import Session
from fmmt_deploy.engines.tensorrt.tensor import DeviceTensor
from fmmt_deploy.errors import EnvironmentProblem, FmmtError, UsageError
from fmmt_deploy.pipeline.noise import gumbel_noise
from fmmt_deploy.pipeline.run import Pipeline, Prediction
from fmmt_deploy.types import Dialogue, GraphName
from tests.engines.tensorrt.simulated import SimulatedTensorRT, simulated_engines
from tests.engines.tensorrt.simulated_device import SimulatedDevice
from tests.models import TINY
from tests.pipeline.conversations import conversations, dataset, only

Bundles = Callable[[str], Bundle]

WIDE = Profiles(
    "wide",
    {
        "swin": ({"faces": Range(1, 8, 64)},),
        "plm": ({"dialogues": Range(1, 1, 32), "tokens": Range(2, 128, 512)},),
        "fusion": (
            {
                "utterances": Range(1, 8, 64),
                "dialogues": Range(1, 1, 32),
                "tokens": Range(2, 128, 512),
                "faces": Range(1, 64, 384),
            },
        ),
        "unimodal": ({"utterances": Range(1, 8, 16)},),
    },
)


@dataclass(frozen=True)
class Setting:
    """A bundle, conversations, and what ONNX Runtime answers to them."""

    bundle: Bundle
    dialogues: tuple[Dialogue, ...]
    expected: Mapping[str, Prediction]

    def check(self, engines: Engines, **options: Any) -> None:
        pipeline = Pipeline(self.bundle, engines, **options)
        for answer in pipeline.in_order(dataset(self.dialogues), gumbel_noise(3)):
            expected = self.expected[answer.utterance]
            assert answer.kept_faces == expected.kept_faces
            np.testing.assert_allclose(answer.logits, expected.logits, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def settings(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Setting]]:
    made: dict[str, Setting] = {}
    everything = conversations(tmp_path_factory.mktemp("faces"))

    def setting(model: str) -> Setting:
        if model not in made:
            dialogues = everything
            if model == "unimodal":
                seen = [[u.position for u in d.utterances if u.vision_length] for d in everything]
                dialogues = tuple(only(d, positions) for d, positions in zip(everything, seen, strict=True))
            bundle = tiny_bundle(model)
            with open_engines(bundle, "ort", threads=1) as engines:
                answers = Pipeline(bundle, engines).run(dataset(dialogues), gumbel_noise(3))
                made[model] = Setting(bundle, dialogues, {answer.utterance: answer for answer in answers})
        return made[model]

    return setting


@pytest.fixture(scope="module")
def roberta(settings: Callable[[str], Setting]) -> Setting:
    return settings("roberta")


WAYS = {
    "late": (None, RunOptions(), {}),
    "late, one by one": (None, RunOptions(), {"batch_size": 1, "face_batch": 1}),
    "random": (1, RunOptions(poison=True), {"batch_size": 3, "face_batch": 4}),
    "random, no graphs": (2, RunOptions(graphs=0, poison=True), {"batch_size": 5, "face_batch": 3}),
    "random, graphs evicted": (3, RunOptions(graphs=1), {"batch_size": 2, "face_batch": 5}),
    "all at once": (4, RunOptions(), {"batch_size": 64}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", TINY)
def test_answers_are_those_of_onnx_runtime(settings: Callable[[str], Setting], model: str, way: str) -> None:
    seed, options, arguments = WAYS[way]
    device = SimulatedDevice(seed)
    setting = settings(model)
    with simulated_engines(setting.bundle, profiles=WIDE, device=device, options=options) as engines:
        for _ in range(3):  # the third time, every shape is a graph
            setting.check(engines, **arguments)
        if "fusion" in engines and options.graphs:
            swin = engines["swin"]
            assert isinstance(swin, TensorRTEngine)
            assert swin.uses_graphs
            assert 0 < swin.graph_launches < swin.runs
    assert device.leaks() == []
    assert device.is_closed


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("graph_count", [0, 8])
def test_many_batches_on_their_way(roberta: Setting, seed: int | None, graph_count: int) -> None:
    """Answers are read only when all are on their way; arrays are overwritten and tensors dropped at once."""
    stage = read_self_test(roberta.bundle.path / "self_test.npz")["swin"]
    faces = np.resize(stage.inputs["faces"], (5, 224, 224, 3))
    rng = np.random.default_rng(0)
    device = SimulatedDevice(seed)
    with (
        open_engines(roberta.bundle, "ort", threads=1) as ort,
        simulated_engines(roberta.bundle, device=device, options=RunOptions(graphs=graph_count)) as engines,
    ):
        pending = []
        for number in range(8):
            own = faces[rng.permutation(5)]
            expected = ort["swin"].run({"faces": own})["face_logits"]
            pending.append((expected, engines["swin"].start({"faces": own}, rows=(None, 2)[number % 2])["face_logits"]))
            own[:] = 0
            engines["swin"].start({"faces": own})  # nobody reads this
        for expected, tensor in reversed(pending):
            assert (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-5)
    assert device.leaks() == []


def on_device(session: Session, array: np.ndarray) -> DeviceTensor:
    """An array as if an engine had computed it."""
    (place,) = layout_of([("made", array.shape, array.dtype)]).places
    block, pinned = session.blocks.take(place.size_bytes), session.device.pin(place.size_bytes)
    pinned.array[:] = np.frombuffer(array.tobytes(), np.uint8)
    session.device.upload(block.address, pinned.address, place.size_bytes, session.compute)
    session.device.record(block.event, session.compute)
    session.synchronize()
    session.device.unpin(pinned)
    return DeviceTensor(session, block, place)


@pytest.mark.parametrize("rows", [None, 1, 3, 4])
def test_inputs_that_are_on_the_device(tiny_bundle: Bundles, rows: int | None) -> None:
    """Whole and in parts that are not aligned; again, and as a graph."""
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    with simulated_engines(bundle, profiles=WIDE) as engines:
        unimodal = engines["unimodal"]
        assert isinstance(unimodal, TensorRTEngine)
        inputs = {name: on_device(unimodal._session, array) for name, array in stage.inputs.items()}
        for _ in range(4):
            found = unimodal.start(inputs, rows)["logits"].numpy()
            np.testing.assert_allclose(found, stage.outputs["logits"], rtol=0, atol=1e-5)
        mixed = {**inputs, "vision_mask": stage.inputs["vision_mask"]}
        found = unimodal.start(mixed, rows)["logits"].numpy()
        np.testing.assert_allclose(found, stage.outputs["logits"], rtol=0, atol=1e-5)
        assert unimodal.graph_launches


def test_answers_of_another_device_are_fetched_from_there(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    with simulated_engines(bundle) as one, simulated_engines(bundle) as other:
        first, second = one["unimodal"], other["unimodal"]
        assert isinstance(first, TensorRTEngine)
        inputs = {name: on_device(first._session, array) for name, array in stage.inputs.items()}
        np.testing.assert_allclose(second.run(inputs)["logits"], stage.outputs["logits"], rtol=0, atol=1e-5)


def test_arrays_that_are_not_contiguous(roberta: Setting) -> None:
    stage = read_self_test(roberta.bundle.path / "self_test.npz")["swin"]
    with simulated_engines(roberta.bundle) as engines:
        backwards = engines["swin"].run({"faces": stage.inputs["faces"][::-1]})["face_logits"]
        np.testing.assert_allclose(backwards[::-1], stage.outputs["face_logits"], rtol=0, atol=1e-5)


def static(*sizes: int) -> tuple[Profile, ...]:
    return tuple({"faces": Range(size, size, size)} for size in sizes)


def test_batches_are_cut_to_what_profiles_take(roberta: Setting) -> None:
    stage = read_self_test(roberta.bundle.path / "self_test.npz")["swin"]
    faces = np.resize(stage.inputs["faces"], (14, 224, 224, 3))
    trt = SimulatedTensorRT(SimulatedDevice())
    profiles = Profiles("static", {**WIDE.graphs, "swin": static(1, 4)})
    with (
        open_engines(roberta.bundle, "ort", threads=1) as ort,
        simulated_engines(roberta.bundle, profiles=profiles, trt=trt) as engines,
    ):
        expected = ort["swin"].run({"faces": faces})["face_logits"]
        np.testing.assert_allclose(engines["swin"].run({"faces": faces})["face_logits"], expected, rtol=0, atol=1e-5)
        assert trt.executed == 3 + 2
        np.testing.assert_allclose(
            engines["swin"].start({"faces": faces}, 3)["face_logits"].numpy(), expected, rtol=0, atol=1e-5
        )
        assert trt.executed == 5 + 14  # no profile takes 2 or 3


def test_what_no_profile_takes(roberta: Setting) -> None:
    stages = read_self_test(roberta.bundle.path / "self_test.npz")
    narrow: dict[GraphName, tuple[Profile, ...]] = {**WIDE.graphs, "swin": static(4), "plm": ()}
    narrow["plm"] = (
        {"dialogues": Range(1, 1, 1), "tokens": Range(2, 96, 512)},
        {"dialogues": Range(1, 2, 9), "tokens": Range(2, 8, 16)},
    )
    narrow["fusion"] = ({**WIDE.graphs["fusion"][0], "utterances": Range(1, 2, 2)},)
    with simulated_engines(roberta.bundle, profiles=Profiles("narrow", narrow)) as engines:
        with pytest.raises(UsageError, match="engine of swin does not take 1 faces") as caught:
            engines["swin"].run({"faces": stages["swin"].inputs["faces"][:1]})
        assert caught.value.why == "It was built for 4 faces."
        with pytest.raises(UsageError, match="engine of fusion does not take 5 utterances") as caught:
            engines["fusion"].run(stages["fusion"].inputs)
        assert "built for 1–32 dialogues, 2–512 tokens, 1–2 utterances, 1–384 faces" in caught.value.why
        assert caught.value.fix == "Use another --batch-size, or build it for more: fmmt build --profile."
        long = np.ones((2, 600), np.int64)
        with pytest.raises(UsageError, match="engine of plm does not take 600 tokens") as caught:
            engines["plm"].run({"input_ids": long, "attention_mask": long})
        assert caught.value.fix == "Build it for more: fmmt build --profile."
        few = engines["plm"].run({"input_ids": long[:, :100], "attention_mask": long[:, :100]})
        assert few["token_states"].shape[:2] == (2, 100)  # one by one


def test_inputs_that_disagree(roberta: Setting) -> None:
    inputs: dict[str, Any] = dict(read_self_test(roberta.bundle.path / "self_test.npz")["fusion"].inputs)
    with simulated_engines(roberta.bundle) as engines:
        with pytest.raises(UsageError, match="disagree: text_length has 2 utterances, others 5"):
            engines["fusion"].run({**inputs, "text_length": inputs["text_length"][:2]})
        with pytest.raises(UsageError, match=r"takes audio with axes \('utterances', 14, 24\), found \(5, 13, 24\)"):
            engines["fusion"].run({**inputs, "audio": inputs["audio"][:, 1:]})
        with pytest.raises(UsageError, match="plm should be equally long"):
            engines["plm"].run({"input_ids": np.ones((2, 5), np.int64), "attention_mask": np.ones((1, 5), np.int64)})
        with pytest.raises(UsageError, match="missing"):
            engines["plm"].run({})


def test_after_closing(roberta: Setting) -> None:
    stage = read_self_test(roberta.bundle.path / "self_test.npz")["swin"]
    with simulated_engines(roberta.bundle) as engines:
        tensor = engines["swin"].start(stage.inputs)["face_logits"]
    with pytest.raises(FmmtError, match="were closed"):
        tensor.numpy()
    with pytest.raises(FmmtError, match="swin was closed"):
        engines["swin"].run(stage.inputs)
    engines["swin"].close()


def test_a_gpu_that_fails(tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is what is said, though nothing can be freed after it."""
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]

    def failing(*_: object) -> None:
        raise DeviceError("CUDA failed in cudaStreamSynchronize.", why="cudaErrorIllegalAddress")

    def closed_after_failure() -> DeviceTensor:
        with simulated_engines(bundle) as engines:
            tensor = engines["unimodal"].start(stage.inputs)["logits"]
            assert isinstance(tensor, DeviceTensor)
            monkeypatch.setattr(SimulatedDevice, "synchronize_stream", failing)
            with pytest.raises(DeviceError, match="failed in cudaStreamSynchronize"):
                tensor.numpy()
        return tensor

    with pytest.raises(FmmtError, match="were closed"):
        closed_after_failure().numpy()


CALLS = {
    "set_input_shape": "did not take",
    "set_tensor_address": "did not take an address",
    "set_optimization_profile_async": "did not take profile 0",
    "execute_async_v3": "could not start a run",
    "create_execution_context": "can't make a context",
}


@pytest.mark.parametrize("call", CALLS)
def test_what_tensorrt_refuses(tiny_bundle: Bundles, call: str) -> None:
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    trt = SimulatedTensorRT(SimulatedDevice())
    with simulated_engines(bundle, trt=trt) as engines:
        trt.refuses.add(call)
        with pytest.raises(FmmtError, match=CALLS[call]) as caught:
            engines["unimodal"].run(stage.inputs)
        assert f"API Usage Error ({call})" in caught.value.why
        trt.refuses.clear()
        np.testing.assert_allclose(
            engines["unimodal"].run(stage.inputs)["logits"], stage.outputs["logits"], rtol=0, atol=1e-5
        )
    assert trt.device.leaks() == []


def test_no_memory_left(tiny_bundle: Bundles) -> None:
    """What is unused is given back first; what is too much even then is the machine's problem, and says so."""
    bundle = tiny_bundle("unimodal")
    vision, mask = np.ones((16, 6, 16), np.float32), np.ones((16, 6), np.float32)
    device = SimulatedDevice(memory_bytes=48_000)
    with simulated_engines(bundle, profiles=WIDE, device=device, options=RunOptions(graphs=0)) as engines:
        inputs = {"vision": vision, "vision_mask": mask}
        for size in (1, 5, 9, 16):  # outputs of other sizes: kept, until there is no room
            engines["unimodal"].run({name: array[:size] for name, array in inputs.items()})
        held: list[Any] = []
        with pytest.raises(EnvironmentProblem, match="no memory left"):
            held.extend(engines["unimodal"].start(inputs) for _ in range(200))
        held.clear()
        assert engines["unimodal"].run(inputs)["logits"].shape == (16, 7)
    assert device.leaks() == []


def overlapping_uploads(bundle: Bundle, slots: int) -> int:
    """How many batches get to the device before the first is computed."""
    device = SimulatedDevice()
    with simulated_engines(bundle, device=device, options=RunOptions(graphs=0)) as engines:
        swin = engines["swin"]
        assert isinstance(swin, TensorRTEngine)
        session = swin._session
        swin._staging.close()
        swin._staging = buffers.Staging(device, session.upload, session.compute, slots)
        before = device.streams[session.compute].done
        for _ in range(2):
            swin.start({"faces": np.zeros((2, 224, 224, 3), np.uint8)})
        assert device.streams[session.compute].done == before
        while device.streams[session.upload].queue and device._step(session.upload) is None:
            pass
        return sum(1 for work in device.log if work == "upload")


def test_uploads_overlap_with_computing(roberta: Setting) -> None:
    assert overlapping_uploads(roberta.bundle, 2) == 2
    assert overlapping_uploads(roberta.bundle, 1) == 1  # so the ring is what does it


@pytest.mark.parametrize("graph_count", [0, 8])
def test_outputs_that_are_not_written_are_nan(tiny_bundle: Bundles, graph_count: int) -> None:
    bundle = tiny_bundle("unimodal")
    stage = read_self_test(bundle.path / "self_test.npz")["unimodal"]
    trt = SimulatedTensorRT(SimulatedDevice())
    with simulated_engines(bundle, trt=trt, options=RunOptions(poison=True, graphs=graph_count)) as engines:
        for _ in range(3):
            assert np.isfinite(engines["unimodal"].run(stage.inputs)["logits"]).all()
        trt.writes = False
        assert np.isnan(engines["unimodal"].run(stage.inputs)["logits"]).all()
