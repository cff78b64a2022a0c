"""A run is valid only if each of its parts is: one that is not, wherever it is, makes the whole INVALID."""

from dataclasses import replace
from typing import Any

import pytest

from fmmt_deploy.benchmark.blocks import BlockRatio
from fmmt_deploy.benchmark.boundaries import BoundaryRow
from fmmt_deploy.benchmark.cold_start import ColdStart, Start
from fmmt_deploy.benchmark.document import (
    Bench,
    BoundaryTable,
    ColdStarts,
    FilesTable,
    StageTable,
    Workload,
    WorkloadReport,
)
from fmmt_deploy.benchmark.files import Figure
from fmmt_deploy.benchmark.scenarios import offline_from_seconds
from fmmt_deploy.benchmark.validity import Validity

BAD = Validity(("bad",), ("unseen",))
FINE = Validity()


def bench(**bad: Validity) -> Bench:
    """A run in which what is named is as given, and all else is fine."""

    def of(name: str) -> Validity:
        return bad.get(name, FINE)

    ratio = BlockRatio(2.0, 1.9, 2.1, 0.95, 6, 1.0, of("ratio").reasons)
    figure = Figure("ort", "batched", True, offline_from_seconds(9, [1.0, 1.0, 1.0]), ratio, of("figure"))
    values: dict[str, Any] = dict.fromkeys(BoundaryRow.__dataclass_fields__, 1.0)
    row = BoundaryRow(**{**values, "part": "plm", "precision": "fp32", "validity": of("row")})
    report = WorkloadReport(
        Workload("made", 1, 9, 100, 50, "0" * 64),
        (),
        None,
        BoundaryTable("device", (row,), {}, of("device")),
        BoundaryTable("engine", (replace(row, validity=FINE),), {}, of("engine")),
        (FilesTable("offline", (figure,), "torch published", of("files")),),
        StageTable((), of("stages")),
    )
    starts = ColdStarts((ColdStart("ort", (Start(1, 1, 1, 1, None),)),), of("cold_starts"))
    return Bench("tiny", {}, {}, {}, (report,), starts)


def test_without_anything_against_it_a_run_is_valid() -> None:
    document = bench().to_json()
    assert (document["valid"], document["reasons"], document["unseen"]) == (True, [], [])


@pytest.mark.parametrize("part", ["device", "engine", "row", "files", "figure", "ratio", "stages", "cold_starts"])
def test_one_part_is_enough(part: str) -> None:
    document = bench(**{part: BAD}).to_json()
    assert (document["valid"], document["reasons"]) == (False, ["bad"])


def test_what_is_of_a_table_is_of_its_rows() -> None:
    document: Any = bench(files=BAD).to_json()
    files = document["workloads"][0]["files"]["offline"]
    assert (files["rows"][0]["valid"], files["rows"][0]["reasons"]) == (False, ["bad"])
    assert document["workloads"][0]["engine"]["rows"][0]["valid"]
    document = bench(ratio=BAD).to_json()
    row = document["workloads"][0]["files"]["offline"]["rows"][0]
    assert (row["valid"], row["ratio"]["valid"]) == (True, False)  # the throughput itself is fine
