"""Engines against themselves: right ones pass, and each way of being wrong is seen by the check that is for it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import nan

import numpy as np
import pytest

from fmmt_deploy.bundle.manifest import graphs_of
from fmmt_deploy.bundle.selftest import read_self_test
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.host import arrays_from_values
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, EngineKind, Engines, Value
from fmmt_deploy.engines.ranges import ShapeRanges
from fmmt_deploy.errors import ParityError
from fmmt_deploy.parity.consistency import CHECKS, FINITE, self_consistency
from fmmt_deploy.parity.consistency_report import ConsistencyReport, Finding, check_from_findings
from fmmt_deploy.parity.corners import Corners, corners_of
from fmmt_deploy.parity.metrics import compare_tensors
from fmmt_deploy.parity.probes import DIMENSIONS, probe, sizes_of
from fmmt_deploy.parity.tolerances import EXACT, Tolerance
from fmmt_deploy.types import GraphName
from tests.models import ON_CPU, TINY
from tests.parity.faults import Fault, FaultyEngine, all_nan, half_precision, nothing, one_nan, wrong_second_row
from tests.parity.misconduct import (
    Conduct,
    LateReadingEngine,
    LosesRowsEngine,
    SharedBufferEngine,
    behaving,
    larger_batches_are_wrong,
    nan_at,
    never_the_same,
    order_matters,
    padding_is_read,
    padding_leaks,
    places_differ,
    refuses_at,
    rows_leak,
    spoils,
    stale_after_another_shape,
    too_few_rows,
)

Bundles = Callable[[str], Bundle]
EVERY: tuple[GraphName, ...] = ("swin", "plm", "fusion", "unimodal")
TEXT: tuple[GraphName, ...] = ("plm", "fusion")

MISCONDUCT: list[tuple[Conduct | type, tuple[GraphName, ...], set[str]]] = [
    (places_differ, EVERY, {"identical rows", "permuted rows", "batch sizes", "profile corners"}),
    (rows_leak, EVERY, {"company", "permuted rows", "batch sizes"}),
    (larger_batches_are_wrong, EVERY, {"batch sizes", "profile corners"}),
    (order_matters, EVERY, {"permuted rows", "identical rows", "batch sizes"}),
    (padding_leaks, TEXT, {"padding"}),
    (padding_is_read, TEXT, {"padding"}),
    (stale_after_another_shape, EVERY, {"alternating shapes"}),
    (nan_at(6), EVERY, {FINITE, "profile corners"}),
    (refuses_at(6), EVERY, {"profile corners"}),
    (never_the_same(1e-3), EVERY, {"repeat", "later calls"}),
    (too_few_rows, EVERY, {"repeat", "profile corners"}),
    (SharedBufferEngine, EVERY, {"later calls"}),
    (LateReadingEngine, EVERY, {"later calls"}),
    (LosesRowsEngine, ("swin", "unimodal"), {"parts"}),
]
"""A fault, the graphs it can happen to, and checks that see it (others may as well)."""


def model_of(graph: GraphName) -> str:
    return "unimodal" if graph == "unimodal" else "roberta"


def tried(bundle: Bundle, change: Callable[[Engines], Engines] = lambda engines: engines) -> ConsistencyReport:
    stages = read_self_test(bundle.path / "self_test.npz")
    with open_engines(bundle, "ort", threads=1) as engines:
        return self_consistency(bundle.manifest.architecture, change(engines), stages)


@pytest.mark.parametrize("kind", ON_CPU)
@pytest.mark.parametrize("model", ["roberta", "bert", "unimodal"])
def test_right_engines_pass(tiny_bundle: Bundles, model: str, kind: EngineKind) -> None:
    bundle = tiny_bundle(model)
    stages = read_self_test(bundle.path / "self_test.npz")
    with open_engines(bundle, kind, threads=1) as engines:
        report = self_consistency(bundle.manifest.architecture, engines, stages)
    report.raise_unless_passed()
    assert all(report.deterministic.values())
    made = {(check.graph, check.name) for check in report.checks}
    graphs = graphs_of(bundle.manifest.architecture)
    assert made == {(g, name) for name, (_, own) in CHECKS.items() for g in own if g in graphs} | {
        (g, FINITE) for g in graphs
    }
    assert report.to_json()["schema"] == "fmmt.consistency/1"


@pytest.mark.parametrize(
    ("conduct", "graph", "checks"),
    [
        pytest.param(conduct, graph, checks, id=f"{conduct.__qualname__.split('.')[0]}-{graph}")
        for conduct, graphs, checks in MISCONDUCT
        for graph in graphs
    ],
)
def test_misconduct_is_seen(tiny_bundle: Bundles, conduct: Conduct | type, graph: GraphName, checks: set[str]) -> None:
    bundle = tiny_bundle(model_of(graph))
    graphs = graphs_of(bundle.manifest.architecture)
    report = tried(bundle, lambda engines: behaving(engines, graphs, graph, conduct))
    assert {check.graph for check in report.failed} == {graph}
    assert {check.name for check in report.failed} >= checks
    with pytest.raises(ParityError, match=rf"^ort fp32 does not agree with itself: {graph}: ") as caught:
        report.raise_unless_passed()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("graph", EVERY)
def test_spoilt_outputs_are_seen(tiny_bundle: Bundles, graph: GraphName) -> None:
    bundle = tiny_bundle(model_of(graph))
    graphs = graphs_of(bundle.manifest.architecture)
    seen_by: dict[Fault, str] = {wrong_second_row: "batch sizes", one_nan: FINITE, all_nan: FINITE, nothing: "repeat"}
    for fault, check in seen_by.items():
        report = tried(bundle, partial(behaving, graphs=graphs, graph=graph, conduct=spoils(fault)))
        assert check in {failed.name for failed in report.failed if failed.graph == graph}, fault.__name__


def test_small_noise_is_told_but_allowed(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("unimodal")
    report = tried(bundle, lambda engines: behaving(engines, ("unimodal",), "unimodal", never_the_same(1e-6)))
    assert report.passed
    assert report.deterministic == {"unimodal": False}
    assert "not the same bits in every run: unimodal" in report.summary()


def test_what_is_allowed_depends_on_the_precision(tiny_bundle: Bundles) -> None:
    """Half precision's own rounding is no fault in half precision; ten times as much is."""
    bundle = tiny_bundle("unimodal")

    def as_half(engines: Engines, conduct: Conduct) -> Engines:
        wrong = behaving(engines, ("unimodal",), "unimodal", conduct)
        return Engines("ort", {"unimodal": wrong["unimodal"]}, {"unimodal": "fp16"})

    rounded = tried(bundle, lambda engines: as_half(engines, spoils(half_precision)))
    assert rounded.passed
    assert rounded.engine == "ort fp16"
    assert tried(bundle, lambda engines: as_half(engines, never_the_same(2e-4))).passed
    assert not tried(bundle, lambda engines: as_half(engines, never_the_same(5e-2))).passed


class RangedEngine(FaultyEngine):
    """Takes 2 to 4 faces, or exactly 8; refuses all others."""

    shape_ranges: tuple[ShapeRanges, ...] = tuple(
        {"faces": ((low, 224, 224, 3), (usual, 224, 224, 3), (high, 224, 224, 3))}
        for low, usual, high in ((2, 3, 4), (8, 8, 8))
    )

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        faces = arrays_from_values(inputs)["faces"]
        if len(faces) > 8:  # parts, as TensorRT's engines make them
            parts = [self.run({"faces": faces[i : i + 8]})["face_logits"] for i in range(0, len(faces), 8)]
            return {"face_logits": np.concatenate(parts)}
        assert len(faces) in (2, 3, 4, 8), len(faces)
        self.seen.append(len(faces))
        return super().run(inputs)

    seen: list[int]


def test_an_engine_is_asked_only_what_it_takes(tiny_bundle: Bundles) -> None:
    bundle = tiny_bundle("roberta")
    seen: list[int] = []

    def ranged(engines: Engines) -> Engines:
        engine = RangedEngine(engines["swin"], lambda outputs: outputs)
        engine.seen = seen
        return Engines("ort", {"swin": engine})

    report = tried(bundle, ranged)
    report.raise_unless_passed()
    assert {check.graph for check in report.checks} == {"swin"}
    assert set(seen) == {2, 3, 4, 8}


class RepeatingEngine(RangedEngine):
    """Of more faces than it takes at once, the second part is answered as the first was."""

    def run(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        faces = arrays_from_values(inputs)["faces"]
        answers = super().run(inputs)["face_logits"]
        return {"face_logits": np.concatenate([answers[:8], answers[:-8]]) if len(faces) > 8 else answers}


def test_more_than_it_takes_at_once(tiny_bundle: Bundles) -> None:
    def repeating(engines: Engines) -> Engines:
        engine = RepeatingEngine(engines["swin"], lambda outputs: outputs)
        engine.seen = []
        return Engines("ort", {"swin": engine})

    report = tried(tiny_bundle("roberta"), repeating)
    assert {check.name for check in report.checks if not check.passed} == {"parts"}


def test_corners() -> None:
    narrow, wide = {"dialogues": (1, 1, 1), "tokens": (2, 128, 512)}, {"dialogues": (1, 8, 32), "tokens": (2, 64, 256)}
    corners = Corners("dialogues", (narrow, wide))
    assert [tuple(sizes.values()) for sizes in corners] == [
        *((1, 2), (1, 512), (1, 128)),
        *((1, 256), (32, 2), (32, 256), (8, 64)),
    ]
    assert corners.usual == {"dialogues": 8, "tokens": 64}
    assert corners.row_counts == (2, 3, 7, 8, 32)
    assert corners.fitted({"dialogues": 1, "tokens": 400}) == {"dialogues": 1, "tokens": 400}
    assert corners.fitted({"dialogues": 2, "tokens": 1}) == {"dialogues": 2, "tokens": 2}


@pytest.mark.parametrize("graph", EVERY)
def test_questions_have_the_sizes_asked_for(tiny_bundle: Bundles, graph: GraphName) -> None:
    """And a row asks the same however many there are."""
    model = model_of(graph)
    recorded = read_self_test(tiny_bundle(model).path / "self_test.npz")[graph].inputs
    with open_engines(tiny_bundle(model), "ort", threads=1) as engines:
        corners = corners_of(graph, engines[graph], TINY[model])
    for sizes in corners:
        inputs = probe(graph, recorded, sizes)
        assert sizes_of(graph, {name: array.shape for name, array in inputs.items()}) == sizes
        assert {name: array.dtype for name, array in inputs.items()} == {n: a.dtype for n, a in recorded.items()}
        rows = next(iter(DIMENSIONS[graph]))
        more = probe(graph, recorded, {**sizes, rows: sizes[rows] + 20})
        for name, array in inputs.items():
            np.testing.assert_array_equal(more[name][: len(array)], array)
        first = more[{"swin": "faces", "plm": "input_ids"}.get(graph, "vision")]
        if graph == "swin":
            assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)


def test_a_check_without_comparison_has_failed() -> None:
    check = check_from_findings("plm", "padding", [])
    assert not check.passed
    report = ConsistencyReport("trt fp16", (check,), {"plm": True})
    with pytest.raises(ParityError, match="plm: padding: nothing was compared"):
        report.raise_unless_passed()
    with pytest.raises(ParityError, match="nothing was checked"):
        replace(report, checks=()).raise_unless_passed()


def test_the_worst_finding_is_shown() -> None:
    allowed = Tolerance(1e-3, 0.0, "")
    zero = np.zeros(3, np.float32)

    def found(where: str, value: float, tolerance: Tolerance = allowed) -> Finding:
        return Finding(where, compare_tensors("logits", zero, zero + np.float32(value), tolerance))

    good = [found("a", 0), found("b", 5e-4), found("c", 1e-4)]
    assert check_from_findings("fusion", "repeat", good).worst == good[1]
    bad = [*good, found("d", 1e-2), found("e", 1e-5, EXACT), found("f", 2e-2)]
    assert not check_from_findings("fusion", "repeat", bad).passed
    check = check_from_findings("fusion", "repeat", [*bad, found("g", nan)])
    assert check.worst is not None
    assert check.worst.where in ("e", "g")  # neither has a tolerance that would do
    report = ConsistencyReport("ort fp32", (check_from_findings("fusion", "repeat", bad[:4]),), {"fusion": True})
    assert "fusion: repeat, d, logits: 3 of 3 elements differ by more than 1e-03" in report.summary()
    assert "atol 1.0e-02 would have passed" in report.summary()
    assert report.rows()[0][2:4] == (4, "d")
