"""Every gate of the toolkit fires: faults against gates, with the exit code that each command ends with.

A zero in a row says what a gate can't see: who agrees with itself may still be wrong, and who is right at one size may
be wrong at another. The gate on speed has a file of its own, `test_speed_gate`.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fmmt_deploy.bundle.extend import extend_bundle
from fmmt_deploy.bundle.manifest import Precision, graphs_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.requirements import check_requirement, requirement_from_option
from fmmt_deploy.cli import sessions
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import EngineKind, Engines
from fmmt_deploy.engines.tensorrt.trust import verdict_path
from fmmt_deploy.errors import PrecisionError
from fmmt_deploy.parity import trial
from fmmt_deploy.types import GraphName
from tests.cli.running import exit_code
from tests.engines.tensorrt.simulated import use_simulated, write_simulated_engines
from tests.golden import GOLDEN
from tests.parity.faults import flipped_mask, half_precision, one_nan, turned, wrong_second_row
from tests.parity.labelled import MARGIN, label_rightly
from tests.parity.misconduct import (
    Conduct,
    behaving,
    larger_batches_are_wrong,
    nan_at,
    padding_leaks,
    places_differ,
    rows_leak,
    spoils,
    stale_after_another_shape,
)
from tests.selection.lowered import lowered_bundle

Bundles = Callable[[str], Bundle]
Arguments = Callable[[Bundle, Path], tuple[str, ...]]

GATES: Mapping[str, Arguments] = {
    "self": lambda b, _: ("parity", "--self", "-b", str(b.path)),
    "parity": lambda b, _: ("parity", "--reference", "recorded", "-b", str(b.path)),
    "eval": lambda b, _: (
        *("eval", "-b", str(b.path), "--data", str(GOLDEN / "roberta")),
        *("--reference", "torch", "--margin", MARGIN),
    ),
    "run": lambda b, folder: ("run", "-b", str(b.path), "--data", str(GOLDEN / "roberta"), "-o", str(folder / "out")),
}
"""The commands that run an engine, and look at what it answers."""

RIGHT: Conduct = spoils(lambda outputs: outputs)

FAULTS: list[tuple[str, Conduct, GraphName, dict[str, int]]] = [
    ("none", RIGHT, "fusion", {"self": 0, "parity": 0, "eval": 0, "run": 0}),
    ("a wrong row at batch 2", spoils(wrong_second_row), "fusion", {"self": 4, "parity": 4, "eval": 5, "run": 0}),
    ("a wrong row at batch 2", spoils(wrong_second_row), "swin", {"self": 4, "parity": 4}),
    ("a wrong row at batch 2", spoils(wrong_second_row), "plm", {"self": 4, "parity": 4}),
    ("wrong from batch 2 on", larger_batches_are_wrong, "plm", {"self": 4, "parity": 4}),
    ("NaN", spoils(one_nan), "swin", {"self": 4, "parity": 4, "eval": 1, "run": 1}),
    ("NaN", spoils(one_nan), "fusion", {"self": 4, "parity": 4, "eval": 1, "run": 1}),
    ("NaN in batches of 6", nan_at(6), "plm", {"self": 4, "parity": 0}),
    ("stale after another shape", stale_after_another_shape, "plm", {"self": 4, "parity": 0}),
    ("stale after another shape", stale_after_another_shape, "fusion", {"self": 4, "parity": 0}),
    ("padding leaks into real tokens", padding_leaks, "plm", {"self": 4, "parity": 4}),
    ("answers depend on the place", places_differ, "swin", {"self": 4, "parity": 4}),
    ("answers depend on the company", rows_leak, "plm", {"self": 4, "parity": 4}),
    ("one precision too low", spoils(half_precision), "swin", {"self": 0, "parity": 4}),
    ("one precision too low", spoils(half_precision), "plm", {"self": 0, "parity": 4}),
    ("one precision too low", spoils(half_precision), "fusion", {"self": 0, "parity": 4}),
    ("another face is kept", spoils(flipped_mask), "fusion", {"self": 4, "parity": 4}),
    ("every answer another", spoils(turned), "fusion", {"self": 0, "parity": 4, "eval": 5, "run": 0}),
]
"""A fault, what it does, where, and for gates the exit code."""


@contextmanager
def misbehaving(monkeypatch: pytest.MonkeyPatch, graph: GraphName, conduct: Conduct) -> Iterator[None]:
    """Makes one graph of `--engine ort` wrong, and leaves all others right."""

    def opened(bundle: Bundle, kind: EngineKind, *args: object, **kwargs: object) -> Engines:
        engines = open_engines(bundle, kind, *args, **kwargs)  # type: ignore[arg-type]  # as they came
        graphs = graphs_of(bundle.manifest.architecture)
        return behaving(engines, graphs, graph, conduct) if kind == "ort" else engines

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "open_engines", opened)
        yield


@pytest.mark.parametrize(
    ("conduct", "graph", "gate", "code"),
    [
        pytest.param(conduct, graph, gate, code, id=f"{name}-{graph}-{gate}".replace(" ", "_"))
        for name, conduct, graph, codes in FAULTS
        for gate, code in codes.items()
    ],
)
def test_faults_against_gates(
    tiny_bundle: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    conduct: Conduct,
    graph: GraphName,
    gate: str,
    code: int,
) -> None:
    label_rightly(monkeypatch)
    with misbehaving(monkeypatch, graph, conduct):
        assert exit_code(*GATES[gate](tiny_bundle("roberta"), tmp_path), "-q") == code
    if gate == "run":
        assert (tmp_path / "out").exists() == (code == 0)


def test_every_gate_fires_and_lets_right_engines_pass() -> None:
    right = [codes for _, conduct, _, codes in FAULTS if conduct is RIGHT]
    assert right == [dict.fromkeys(GATES, 0)]
    for gate in GATES:
        assert any(codes.get(gate) for *_, codes in FAULTS)


Scales = Callable[[onnx.GraphProto], list[str]]
"""Gives names of constants of a graph."""


def all_inputs(graph: onnx.GraphProto) -> list[str]:
    return [node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"]


def all_weights(graph: onnx.GraphProto) -> list[str]:
    dequantised = (node for node in graph.node if node.op_type == "DequantizeLinear")
    return [node.input[1] for node in dequantised if node.name.endswith("/weight")]


def one_product_s(graph: onnx.GraphProto) -> list[str]:
    """The first encoder layer's last product."""
    return all_weights(graph)[5:6]


ALTERED: list[tuple[str, GraphName, Scales, float, dict[str, int]]] = [
    ("nothing", "swin", all_weights, 1.0, {"parity": 0, "eval": 0}),
    ("all weights", "swin", all_weights, 4.0, {"self": 0, "parity": 4, "eval": 5}),
    ("all weights", "plm", all_weights, 4.0, {"parity": 4}),
    ("all weights", "fusion", all_weights, 4.0, {"parity": 4, "eval": 5}),
    ("a product's weights", "plm", one_product_s, 4.0, {"parity": 4}),
    ("a product's weights", "fusion", one_product_s, 4.0, {"parity": 4}),
    ("all inputs saturate", "swin", all_inputs, 0.25, {"parity": 4}),
    ("all inputs saturate", "fusion", all_inputs, 0.25, {"parity": 4}),
    ("all inputs are too wide", "fusion", all_inputs, 4.0, {"parity": 0}),
]
"""A scale of an 8-bit graph that is off by 4, and for gates the exit code. Two bits less of the eight are noise like
that of eight bits; only the audit of the calibration sees it (`tests.cli.test_calibrate_faults`)."""


@pytest.fixture(scope="module")
def eight_bits(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = tiny_bundle("roberta")
    graphs = graphs_of(bundle.manifest.architecture)
    wanted: dict[GraphName, list[Precision]] = {graph: ["int8-fp32"] for graph in graphs}
    return lowered_bundle(bundle, tmp_path_factory.mktemp("lowered") / "bundle", wanted)


@pytest.mark.parametrize(
    ("graph", "scales", "factor", "gate", "code"),
    [
        pytest.param(graph, scales, factor, gate, code, id=f"{name}-{graph}-{gate}".replace(" ", "_"))
        for name, graph, scales, factor, codes in ALTERED
        for gate, code in codes.items()
    ],
)
def test_scales_that_are_off_by_4(
    eight_bits: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    graph: GraphName,
    scales: Scales,
    factor: float,
    gate: str,
    code: int,
) -> None:
    """In graphs that were altered after they were made, by somebody who put the hashes right."""
    label_rightly(monkeypatch)
    path = eight_bits.graph(graph, "int8-fp32")
    model = onnx.load(path, load_external_data=False)
    wrong = scales(model.graph)
    for tensor in model.graph.initializer:
        if tensor.name in wrong:
            scale = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    relative = path.relative_to(eight_bits.path).as_posix()
    with extend_bundle(eight_bits, tmp_path / "altered", without=[relative]) as writer:
        writer.place(relative).write_bytes(model.SerializeToString())
        altered = writer.commit(eight_bits.manifest)
    assert exit_code(*GATES[gate](altered, tmp_path), "--precision", f"{graph}=int8-fp32", "-q") == code


@pytest.fixture
def engines_of(tiny_bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with trusted engines for a simulated GPU."""
    shutil.copytree(tiny_bundle("unimodal").path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    write_simulated_engines(bundle)
    trt = use_simulated(monkeypatch)
    monkeypatch.setattr(trial, "open_device", lambda: trt.device)
    monkeypatch.setattr(trial, "import_flavour", lambda _: trt)
    return bundle


def corrupted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_version(path: Path) -> None:
    bundle = Bundle.open(path.parents[1])
    path.unlink()
    write_simulated_engines(bundle, version="1.6.0.1")


def of_another_gpu(path: Path) -> None:
    from fmmt_deploy.engines.tensorrt.target import Target

    bundle = Bundle.open(path.parents[1])
    path.unlink()
    write_simulated_engines(bundle, target=Target("Another GPU", ("9.0",)))


def untrusted(path: Path) -> None:
    verdict_path(path).unlink()


@pytest.mark.parametrize(
    ("damage", "code", "code_of_self", "words"),
    [
        (lambda _: None, 0, 0, ""),
        (corrupted, 8, 8, "corrupt: SHA-256"),
        (cut_short, 8, 8, "bytes are recorded, found"),
        (of_another_version, 8, 8, "1.6.0.1, this is 1.7.1.116"),
        (of_another_gpu, 8, 8, "built for Another GPU (9.0), this is Simulated GPU"),
        (untrusted, 8, 0, "has not been held against itself yet"),
    ],
)
def test_plans(
    engines_of: Bundle,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    code: int,
    code_of_self: int,
    words: str,
) -> None:
    (path,) = (engines_of.path / "engines").glob("*.engine")
    damage(path)
    common = ("-b", str(engines_of.path), "--engine", "trt-rtx", "-q")
    assert exit_code("eval", *common, "--data", str(GOLDEN / "roberta")) == code
    assert words in capsys.readouterr().err
    assert exit_code("parity", "--self", *common) == code_of_self


def test_a_precision_that_was_not_realised(tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="fmmt build needs a TensorRT")
    build = ("build", "-b", str(tiny_bundle("unimodal").path), "--engine", "trt-rtx", "--dry-run", "-q")
    assert exit_code(*build, "--require", "fp32>=1") == 0
    assert exit_code(*build, "--require", "fp16>=0.95") == 9
    assert "0.00% of its matrix-product FLOPs in fp16; 95.00% were required" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "passes"), [(1.0, True), (0.95, True), (0.9499, False), (0.0, False)])
def test_the_requirement_itself(share: float, passes: bool) -> None:
    """What `fmmt cast` and `fmmt build` hold graphs, and the layers of engines, to."""
    requirement = requirement_from_option("fp16>=95%")
    shares = {"fp16": share, "fp32": 1 - share}
    if passes:
        check_requirement(requirement, shares, "the engine of plm")  # type: ignore[arg-type]
        return
    with pytest.raises(PrecisionError) as caught:
        check_requirement(requirement, shares, "the engine of plm")  # type: ignore[arg-type]
    assert caught.value.exit_code == 9


def test_the_faults_are_what_they_are_called(tiny_bundle: Bundles) -> None:
    """Without a reason to misbehave they answer right: else a gate would fire at something else."""
    from fmmt_deploy.bundle.selftest import read_self_test

    bundle = tiny_bundle("unimodal")
    inputs = read_self_test(bundle.path / "self_test.npz")["unimodal"].inputs
    one = {name: array[2:3] for name, array in inputs.items()}
    more = {name: np.concatenate([array, array]) for name, array in inputs.items()}
    with open_engines(bundle, "ort", threads=1) as engines:
        right, many = (engines["unimodal"].run(asked)["logits"] for asked in (one, more))
        for conduct in (larger_batches_are_wrong, places_differ, rows_leak, nan_at(6), stale_after_another_shape):
            wrong = behaving(engines, ("unimodal",), "unimodal", conduct)["unimodal"]
            np.testing.assert_array_equal(wrong.run(one)["logits"], right)
            assert not np.array_equal(wrong.run(more)["logits"], many)


@pytest.mark.parametrize("more", [("--data", "x"), ("--reference", "torch")])
def test_self_needs_nothing_to_compare_with(
    tiny_bundle: Bundles, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    assert exit_code("parity", "--self", "-b", str(tiny_bundle("unimodal").path), *more) == 2
    assert "--self compares an engine with itself" in capsys.readouterr().err


def test_self_as_json(
    tiny_bundle: Bundles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("parity", "--self", "-b", str(tiny_bundle("unimodal").path), "--json")
    assert exit_code(*arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["engine"], found["passed"]) == ("fmmt.consistency/1", "ort fp32", True)
    with misbehaving(monkeypatch, "unimodal", nan_at(6)):
        assert exit_code(*arguments) == 4
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    failed = {check["check"]: check["worst"] for check in found["checks"] if not check["passed"]}
    assert failed["finite"]["tensor"]["worst_actual"] is None  # which JSON has no word for
    assert failed["finite"]["tensor"]["nan_count"] == 7
    assert shown.err.startswith("error: ort fp32 does not agree with itself: unimodal: ")
