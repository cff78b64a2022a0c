"""The gates fire: faulty engines turn parity, acceptance, the pipeline and the commands' exit codes red."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.selftest import Stage, read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.cli import sessions
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind, Engines
from fmmt_deploy.errors import FmmtError, ParityError, UsageError
from fmmt_deploy.export import export as exporting
from fmmt_deploy.parity.run import (
    accept_graph,
    cases_from_dataset,
    cases_from_self_test,
    parity,
    recorded_engines,
)
from fmmt_deploy.pipeline.noise import gumbel_noise
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.reference.loading import save_checkpoint
from fmmt_deploy.types import GraphName
from tests.cli.running import exit_code
from tests.golden import GOLDEN
from tests.models import accept_on_ort, export_tiny, tiny_model, tiny_source
from tests.parity.faults import (
    Fault,
    FaultyEngine,
    all_nan,
    flipped_mask,
    half_precision,
    nothing,
    one_nan,
    spoilt,
    turned,
    wrong_second_row,
)
from tests.parity.labelled import COPIES, MARGIN, label_rightly
from tests.pipeline.conversations import conversations, dataset, only

FAULTS: list[tuple[GraphName, Fault, str]] = [
    *(
        (graph, fault, message)
        for graph in ("swin", "plm", "fusion", "unimodal")
        for fault, message in (
            (wrong_second_row, "would have passed"),
            (one_nan, "NaN"),
            (half_precision, "would have passed"),
            (nothing, "no output in common"),
        )
    ),
    ("fusion", flipped_mask, "kept"),
]
Bundles = Callable[[str], Bundle]


def model_of(graph: GraphName) -> str:
    return "unimodal" if graph == "unimodal" else "roberta"


def stages_of(bundle: Bundle) -> dict[GraphName, Stage]:
    return read_self_test(bundle.path / "self_test.npz")


@contextmanager
def opened(bundle: Bundle, faults: dict[GraphName, Fault]) -> Iterator[Engines]:
    with open_engines(bundle, "ort", threads=1) as engines:
        yield spoilt(engines, graphs_of(bundle.manifest.architecture), faults)


@pytest.mark.parametrize("model", ["roberta", "bert", "unimodal"])
def test_right_engines_pass(tiny_bundle: Bundles, model: str) -> None:
    bundle = tiny_bundle(model)
    stages, architecture = stages_of(bundle), bundle.manifest.architecture
    with opened(bundle, {}) as engines, open_engines(bundle, "torch", threads=1) as reference:
        for right in (reference, recorded_engines(stages)):
            report = parity(architecture, right, engines, cases_from_self_test(stages))
            assert report.passed
            assert [stage.name for stage in report.stages] == [*stages, "end to end"]
        for graph, stage in stages.items():
            accept_graph(graph, engines[graph], stage)


@pytest.mark.parametrize(("graph", "fault", "message"), FAULTS)
def test_a_faulty_graph_is_not_accepted(tiny_bundle: Bundles, graph: GraphName, fault: Fault, message: str) -> None:
    bundle = tiny_bundle(model_of(graph))
    with opened(bundle, {graph: fault}) as engines, pytest.raises(ParityError, match=message) as caught:
        accept_graph(graph, engines[graph], stages_of(bundle)[graph])
    assert caught.value.exit_code == 4
    assert caught.value.what.startswith(f"{graph} fp32 does not compute what torch fp32 computes: {graph}/")


@pytest.mark.parametrize(("graph", "fault"), [(graph, fault) for graph, fault, _ in FAULTS if fault is not nothing])
def test_a_faulty_engine_fails_parity(tiny_bundle: Bundles, graph: GraphName, fault: Fault) -> None:
    """In its own stage, not in the others' own, which get the reference's inputs."""
    bundle = tiny_bundle(model_of(graph))
    stages = stages_of(bundle)
    with opened(bundle, {graph: fault}) as engines:
        cases = cases_from_self_test(stages)
        report = parity(bundle.manifest.architecture, recorded_engines(stages), engines, cases)
    assert not report.passed
    passed = {stage.name: stage.passed for stage in report.stages}
    end_to_end = passed.pop("end to end")
    assert {name for name, good in passed.items() if not good} == {graph}
    if graph in ("fusion", "unimodal"):  # of the others' answers not all is used
        assert not end_to_end
    with pytest.raises(ParityError, match=rf"{graph}/"):
        report.raise_unless_passed()


def test_parity_without_cases_is_no_success(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    with opened(bundle, {}) as engines, pytest.raises((FmmtError, KeyError)):
        parity(bundle.manifest.architecture, engines, engines, ()).raise_unless_passed()


def test_the_record_answers_nothing_else(tiny_bundle: Bundles) -> None:
    stages = stages_of(tiny_bundle("roberta"))
    faces = stages["swin"].inputs["faces"].copy()
    faces[0, 0, 0, 0] ^= 1
    with pytest.raises(UsageError, match="no answer for these inputs"):
        recorded_engines(stages)["swin"].run({"faces": faces})


@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_parity_on_a_data_set(tiny_bundle: Bundles, tmp_path: Path, model: str) -> None:
    """With utterances that have no face, in groups that have none at all."""
    bundle = tiny_bundle(model)
    dialogues = conversations(tmp_path)
    if model == "unimodal":  # which reads nothing but vision
        dialogues = tuple(only(d, [u.position for u in d.utterances if u.vision_length]) for d in dialogues)
    noise = gumbel_noise(0)
    with opened(bundle, {}) as engines, open_engines(bundle, "torch", threads=1) as reference:
        for batch_size in (1, 8):
            cases = list(
                cases_from_dataset(Pipeline(bundle, engines, batch_size=batch_size), dataset(dialogues), noise)
            )
            assert sum(len(case.last["vision"]) for case in cases) == sum(len(d.utterances) for d in dialogues)
            assert parity(bundle.manifest.architecture, reference, engines, cases).passed
    last = graphs_of(bundle.manifest.architecture)[-1]
    with opened(bundle, {last: wrong_second_row}) as engines:
        pipeline = Pipeline(bundle, engines)
        with open_engines(bundle, "torch", threads=1) as reference:
            cases = list(cases_from_dataset(pipeline, dataset(dialogues), noise))
            report = parity(bundle.manifest.architecture, reference, engines, cases)
    assert [stage.name for stage in report.stages if not stage.passed] == [last, "end to end"]


@pytest.mark.parametrize("model", ["roberta", "unimodal"])
def test_first_cases_are_left_out(tiny_bundle: Bundles, tmp_path: Path, model: str) -> None:
    bundle = tiny_bundle(model)
    pipeline = Pipeline(bundle, Engines("emulated", {}), batch_size=4)
    data, noise = dataset(conversations(tmp_path)), gumbel_noise(0)
    cases = [case.by_graph() for case in cases_from_dataset(pipeline, data, noise)]
    assert len(cases) >= 4
    assert all(
        len(arrays["vision_mask"]) <= 4 for case in cases for g, arrays in case.items() if "vision_mask" in arrays
    )
    for first in (1, 3, len(cases)):
        rest = [case.by_graph() for case in cases_from_dataset(pipeline, data, noise, first)]
        np.testing.assert_equal(rest, cases[first:])


@pytest.mark.parametrize("graph", ["plm", "fusion"])
def test_the_pipeline_answers_no_nan(tiny_bundle: Bundles, tmp_path: Path, graph: GraphName) -> None:
    bundle = tiny_bundle("roberta")
    with opened(bundle, {graph: all_nan}) as engines, pytest.raises(FmmtError, match=r"(?s)answered .*nan"):
        Pipeline(bundle, engines).in_order(dataset(conversations(tmp_path)))


def test_the_gate_does_not_hide_a_face_that_is_nan(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """Beside a face that is kept, one that is NaN would be dropped without a word."""
    bundle = tiny_bundle("roberta")
    (alone,) = (dialogue for dialogue in conversations(tmp_path) if dialogue.id == "alone")
    with opened(bundle, {}) as engines:
        (answer,) = Pipeline(bundle, engines).run(dataset([alone]))
    assert 0 < len(answer.kept_faces) < 4
    with opened(bundle, {"swin": one_nan}) as engines, pytest.raises(FmmtError, match="The face model answered NaN"):
        Pipeline(bundle, engines).in_order(dataset([alone]))


@contextmanager
def faulty_command(monkeypatch: pytest.MonkeyPatch, faults: dict[GraphName, Fault]) -> Iterator[None]:
    """Makes `--engine ort` faulty, and `--engine torch` right."""

    def faulty(bundle: Bundle, kind: EngineKind, *args: object, **kwargs: object) -> Engines:
        engines = open_engines(bundle, kind, *args, **kwargs)
        return spoilt(engines, graphs_of(bundle.manifest.architecture), faults if kind == "ort" else {})

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "open_engines", faulty)
        yield


@pytest.mark.parametrize("reference", ["torch", "recorded"])
def test_exit_code_of_parity(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    arguments = ("parity", "-b", str(tiny_bundle("roberta").path), "--reference", reference, "--json")
    assert exit_code(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    for graph, fault, _ in FAULTS:
        if graph == "unimodal" or fault is nothing:
            continue
        with faulty_command(monkeypatch, {graph: fault}):
            assert exit_code(*arguments) == 4
        shown = capsys.readouterr()
        assert not json.loads(shown.out)["passed"]
        assert shown.err.startswith("error: ort fp32 does not compute what")


def test_exit_code_of_eval(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden data fit the tiny models; only their labels are not what these models would answer."""
    label_rightly(monkeypatch)
    data = ("--data", str(GOLDEN / "roberta"))
    arguments = ("eval", "-b", str(tiny_bundle("roberta").path), *data, "--reference", "torch", "--json")
    assert exit_code(*arguments, "--margin", MARGIN) == 0
    found = json.loads(capsys.readouterr().out)
    judged = found["modes"][0]["equivalence"]
    assert (found["verdict"], judged["changed"], judged["difference"]) == ("EQUIVALENT", 0, 0)
    assert exit_code(*arguments) == 5  # so few dialogues say nothing of half a point
    shown = capsys.readouterr()
    assert json.loads(shown.out)["verdict"] == "INCONCLUSIVE"
    assert "INCONCLUSIVE: this data set can't say" in shown.err
    with faulty_command(monkeypatch, {"fusion": turned}):
        assert exit_code(*arguments, "--margin", MARGIN) == 5
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["verdict"] == "DIFFERENT"
    assert found["modes"][0]["equivalence"]["changed"] == COPIES * 31
    assert "error: DIFFERENT" in shown.err
    with faulty_command(monkeypatch, {"fusion": one_nan}):
        assert exit_code(*arguments) == 1
    assert "The model answered" in capsys.readouterr().err


def test_run_leaves_no_answers_behind_a_nan(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    data = str(GOLDEN / "roberta")
    with faulty_command(monkeypatch, {"fusion": one_nan}):
        assert exit_code("run", "-b", str(tiny_bundle("roberta").path), "--data", data, "-o", str(out), "-q") == 1
    assert list(tmp_path.iterdir()) == []


def with_a_wrong_constant(graph: GraphName) -> Callable[..., onnx.ModelProto]:
    """Graphs as they should be, but for the last float constant of one of them."""
    right = exporting.graph_from_weights

    def wrong(*arguments: object) -> onnx.ModelProto:
        model = right(*arguments)
        if arguments[1] == graph:
            constants = [t for t in model.graph.initializer if not t.external_data and t.data_type == 1]
            values = np.frombuffer(constants[-1].raw_data, np.float32) + np.float32(0.5)
            constants[-1].raw_data = values.tobytes()
        return model

    return wrong


@pytest.mark.parametrize("graph", ["swin", "plm", "fusion"])
def test_export_refuses_a_wrong_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: GraphName) -> None:
    monkeypatch.setattr(exporting, "graph_from_weights", with_a_wrong_constant(graph))
    with pytest.raises(ParityError, match=rf"{graph}/"):
        exporting.export_bundle(tiny_source("roberta"), tmp_path / "bundle", accept=accept_on_ort)
    assert list(tmp_path.iterdir()) == []


def test_the_export_command_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_model("unimodal"), tmp_path / "run")
    bundle = tmp_path / "bundle"
    arguments = ("export", "--ckpt", str(tmp_path / "run"), "-o", str(bundle), "-q")
    export_tiny("unimodal", bundle)
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    monkeypatch.setattr(exporting, "graph_from_weights", with_a_wrong_constant("unimodal"))
    assert exit_code(*arguments) == 2
    assert exit_code(*arguments, "--force") == 4
    assert "unimodal fp32 does not compute what torch fp32 computes" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "run"]
    assert Bundle.open(bundle)
    monkeypatch.undo()
    assert exit_code(*arguments, "--force") == 0


def test_faults_spoil_nothing_else(tiny_bundle: Bundles) -> None:
    """A faulty engine at batch 1 is right: only the second row is wrong."""
    bundle = tiny_bundle("unimodal")
    inputs = {name: array[:1] for name, array in stages_of(bundle)["unimodal"].inputs.items()}
    with open_engines(bundle, "ort") as engines:
        faulty = FaultyEngine(engines["unimodal"], wrong_second_row)
        np.testing.assert_array_equal(faulty.run(inputs)["logits"], engines["unimodal"].run(inputs)["logits"])


def test_logits_of_other_faces_are_no_matter_of_a_tolerance(tiny_bundle: Bundles) -> None:
    """One face's answer is another, and some utterances are answered from other faces: these are told as such."""
    bundle = tiny_bundle("roberta")
    stages = stages_of(bundle)

    def unsure(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs["face_logits"][2] = 0
        return outputs

    graphs = graphs_of(bundle.manifest.architecture)
    with open_engines(bundle, "torch", threads=1) as reference:
        wrong = spoilt(reference, graphs, {"swin": unsure})
        cases = list(cases_from_self_test(stages))
        low = Engines("torch", {graph: wrong[graph] for graph in graphs}, dict.fromkeys(graphs, "fp16"))
        for engines, passed in ((low, True), (wrong, False)):  # in float32 nothing may be another
            whole = parity(bundle.manifest.architecture, reference, engines, cases).stages[-1]
            assert whole.tensors[0].passed == passed
            assert whole.decisions is not None
            assert whole.decisions.kept_changed
            assert any("kept faces" in failure for failure in whole.decisions.failures)
