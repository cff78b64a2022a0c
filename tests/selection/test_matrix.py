"""The matrix of a small bundle with graphs in every precision, some of them spoilt."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fmmt_deploy.bundle.manifest import PRECISIONS
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Engines
from fmmt_deploy.selection import matrix
from fmmt_deploy.selection.judge import Judge, judge_from_bundle
from fmmt_deploy.selection.matrix import Row, judged_matrix, rule_for
from fmmt_deploy.selection.rules import EQUIVALENCE_RULES
from fmmt_deploy.selection.timing import FEWEST
from fmmt_deploy.types import DataSet
from tests.parity.faults import FaultyEngine, all_nan, turned
from tests.pipeline.conversations import conversations, dataset
from tests.selection.lowered import lowered_bundle
from tests.selection.test_judge import unimodal_data

Bundles = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return dataset(conversations(tmp_path_factory.mktemp("faces"))[:3])


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`plm` in all precisions; the others in less."""
    wanted = {"swin": ("fp16",), "plm": PRECISIONS[1:], "fusion": ("fp16", "int8-fp32")}
    return lowered_bundle(tiny_bundle("roberta"), tmp_path_factory.mktemp("lowered") / "bundle", wanted)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Iterator[Engines]:
    with open_engines(bundle, "torch", threads=1) as engines:
        yield engines


@pytest.fixture(scope="module")
def judge(bundle: Bundle, data: DataSet, reference: Engines) -> Judge:
    return judge_from_bundle(bundle, data, reference)


@pytest.fixture(scope="module")
def rows(bundle: Bundle, judge: Judge) -> tuple[Row, ...]:
    return judged_matrix(bundle, judge, threads=1, timing_seconds=0)


def one(rows: tuple[Row, ...], part: str, precision: str) -> Row:
    (found,) = [row for row in rows if (row.part, row.precision) == (part, precision)]
    return found


def test_every_part_in_every_precision(rows: tuple[Row, ...]) -> None:
    expected = [(part, precision) for part in ("swin", "plm", "fusion") for precision in PRECISIONS]
    assert [(row.part, row.precision) for row in rows] == [*expected, ("all", "fp32"), ("all", "fp16")]
    missing = {(row.part, row.precision) for row in rows if row.missing}
    assert missing == {
        *(("swin", p) for p in ("bf16", "int8-fp32", "int8", "fp8")),
        *(("fusion", p) for p in ("bf16", "int8", "fp8")),
    }
    for row in rows:
        assert (row.judgement is None) == (row.mark is None) == row.missing
        assert not row.note


def test_each_row_is_of_its_own_graph(rows: tuple[Row, ...]) -> None:
    """More bits, less noise; and what is judged together is noisier than each of its parts."""
    noise = {p: one(rows, "plm", p).judgement.sqnr_db for p in PRECISIONS}  # type: ignore[union-attr]
    assert noise["fp32"] > noise["fp16"] > noise["bf16"] > 10
    assert noise["fp32"] > noise["int8-fp32"] > noise["fp8"] > 10
    assert noise["fp16"] > noise["int8"] > noise["fp8"]
    parts = [one(rows, part, "fp16").judgement for part in ("swin", "plm", "fusion")]
    whole = one(rows, "all", "fp16").judgement
    assert whole is not None
    assert all(part is not None and part.sqnr_db > whole.sqnr_db for part in parts)
    assert whole.graphs == ("swin", "plm", "fusion")
    assert one(rows, "plm", "int8").judgement.graphs == ("plm",)  # type: ignore[union-attr]


def test_sizes_are_those_of_the_files(rows: tuple[Row, ...], bundle: Bundle) -> None:
    """At least the file of weights, at most with the graph's own file, in which small constants lie."""
    for row in rows:
        if row.part != "all" and not row.missing:
            graph = bundle.graph(row.part, row.precision)
            weights = graph.with_suffix(".safetensors").stat().st_size
            assert 0.98 * weights < row.weight_bytes < weights + graph.stat().st_size
            assert row.bytes_share == row.weight_bytes / one(rows, row.part, "fp32").weight_bytes
    whole = one(rows, "all", "fp16")
    parts = [one(rows, graph, "fp16").weight_bytes for graph in ("swin", "plm", "fusion")]
    assert whole.weight_bytes == sum(parts)
    assert whole.bytes_share == sum(parts) / one(rows, "all", "fp32").weight_bytes


def test_products_are_counted_by_precision(rows: tuple[Row, ...]) -> None:
    shares = one(rows, "plm", "int8").flops
    assert shares is not None
    assert set(shares) == {"int8", "fp16"}
    assert shares["int8"] > shares["fp16"]  # attention's own products are not quantised
    totals = {sum((one(rows, "plm", p).flops or {}).values()) for p in PRECISIONS}
    assert len(totals) == 1


def test_only_what_computes_in_its_precision_is_timed(rows: tuple[Row, ...]) -> None:
    timed = [(row.part, row.precision) for row in rows if row.timing is not None]
    assert timed == [("plm", "int8-fp32"), ("fusion", "int8-fp32")]
    timing = one(rows, "plm", "int8-fp32").timing
    assert timing is not None
    assert (timing.by, len(timing.ms)) == ("ort", FEWEST)
    mark = one(rows, "plm", "int8-fp32").mark
    assert mark is not None
    assert mark.name == "dominated" or "measured" in mark.reason
    unmeasured = one(rows, "plm", "int8").mark
    assert unmeasured is not None
    assert "not measured here" in unmeasured.reason


def test_rules_and_marks(bundle: Bundle, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spoilt graph is harmful, by the rule of its precision and by --max-f1-drop; NaN with its reason."""
    opened = matrix._Opener.__call__

    def spoilt(self: matrix._Opener, precisions: dict[str, str], kind: str | None = None) -> Engines:
        engines = opened(self, precisions, kind)  # type: ignore[arg-type]
        fault = {"fp16": turned, "int8-fp32": all_nan}.get(precisions.get("fusion", ""))
        if fault is None:
            return engines
        return Engines(
            "spoilt", {g: FaultyEngine(engines[g], fault) if g == "fusion" else engines[g] for g in precisions}
        )  # type: ignore[arg-type, misc]

    monkeypatch.setattr(matrix._Opener, "__call__", spoilt)
    rows = judged_matrix(bundle, judge, threads=1, timing_seconds=None)
    mark = one(rows, "fusion", "fp16").mark
    assert mark is not None
    assert mark.name == "harmful"
    assert "decisions changed (100.00% > 0.50%)" in mark.reason
    broken = one(rows, "fusion", "int8-fp32").mark
    assert broken is not None
    assert (broken.name, "NaN" in broken.reason) == ("harmful", True)
    assert one(rows, "plm", "fp16").mark.name == "worth it"  # type: ignore[union-attr]
    assert all(row.timing is None for row in rows)
    lenient = judged_matrix(bundle, judge, threads=1, timing_seconds=None, max_f1_drop=1.0)
    assert one(lenient, "fusion", "fp16").mark.name == "worth it"  # type: ignore[union-attr]
    assert one(lenient, "fusion", "int8-fp32").mark.name == "harmful"  # type: ignore[union-attr]


def test_the_rule_is_each_precisions_own_or_the_one_given() -> None:
    assert all(rule_for(precision) is EQUIVALENCE_RULES[precision] for precision in PRECISIONS)
    assert (rule_for("fp16", 0.005).max_changed_share, rule_for("fp16", 0.005).max_f1_drop) == (1.0, 0.005)


def test_what_an_engine_refuses_is_told_in_its_row(bundle: Bundle, judge: Judge) -> None:
    """ONNX Runtime on the CPU has no bfloat16, no FP8 and no int8 with float16 around it."""
    rows = judged_matrix(bundle, judge, "ort", threads=1, timing_seconds=None)
    refused = {(row.part, row.precision): row.note for row in rows if row.note}
    assert set(refused) == {("plm", "bf16"), ("plm", "int8"), ("plm", "fp8")}
    assert all("plm" in note for note in refused.values())
    assert all(one(rows, *place).mark is None for place in refused)
    assert one(rows, "plm", "int8-fp32").judgement is not None


def test_data_without_faces_say_nothing_about_swin(bundle: Bundle, data: DataSet, reference: Engines) -> None:
    bare = [
        replace(d, utterances=tuple(u for u in d.utterances if u.vision_length == 0))
        for d in data.dialogues
        if any(u.vision_length == 0 for u in d.utterances)
    ]
    judge = judge_from_bundle(bundle, dataset(bare), reference)
    rows = judged_matrix(bundle, judge, threads=1, timing_seconds=None)
    assert one(rows, "swin", "fp16").note == "the data have no faces"
    assert one(rows, "swin", "fp16").mark is None
    assert one(rows, "plm", "fp16").mark is not None


def test_a_unimodal_model_has_one_part(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = lowered_bundle(tiny_bundle("unimodal"), tmp_path / "bundle", {"unimodal": ("fp16", "bf16")})
    with open_engines(bundle, "torch", threads=1) as reference:
        judge = judge_from_bundle(bundle, unimodal_data(bundle, tmp_path), reference)
        rows = judged_matrix(bundle, judge, threads=1, timing_seconds=None)
    assert [row.precision for row in rows if not row.missing] == ["fp32", "fp16", "bf16"]
    assert {row.part for row in rows} == {"unimodal"}
    assert [row.mark.name for row in rows if row.mark is not None] == ["no gain", "worth it", "dominated"]
