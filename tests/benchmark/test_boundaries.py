"""The two boundaries of engine calls, on engines of the host and of a simulated GPU."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from fmmt_deploy.benchmark import boundaries, calls
from fmmt_deploy.benchmark.boundaries import boundary_rows, recorded_dialogues
from fmmt_deploy.benchmark.choices import choice_from_option
from fmmt_deploy.benchmark.sides import Opened
from fmmt_deploy.benchmark.turns import Effort
from fmmt_deploy.benchmark.validity import Validity
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.types import DataSet
from tests.engines.tensorrt.simulated import simulated_engines

Bundles = Callable[[str], Bundle]


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    waits = list[int]()
    monkeypatch.setattr(boundaries, "device_wait", lambda: lambda: waits.append(1))
    return waits


def shaped(bundle: Bundle, folder: Path, dialogues: int = 2) -> DataSet:
    return meld_shaped(bundle.manifest.architecture, folder, dialogues, 2)


def test_every_graph_has_a_row_for_each_boundary(
    tiny_bundle: Bundles, tmp_path: Path, no_device: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    monkeypatch.setattr(calls, "perf_counter", lambda: next(ticks) / 1000)  # so that every block settles at once
    bundle = tiny_bundle("roberta")
    dataset = meld_shaped(bundle.manifest.architecture, tmp_path, 1, 1)
    choice = choice_from_option("trt-rtx", bundle.manifest.architecture)
    with simulated_engines(bundle) as engines:
        opened = Opened(bundle, (choice,), {choice.name: engines}, None, 4, 1)
        found = tuple(recorded_dialogues(opened, dataset))
        for boundary in ("device", "engine"):
            rows, blocks = boundary_rows(opened, found, boundary, Effort(2), lambda: {"cuda fp32": 1000.0})
            assert [(r.way, r.cache, r.part) for r in rows] == [
                (way, cache, part)
                for way, cache in (("alone", False), ("batched", True))
                for part in ("swin", "plm", "fusion", "all")
            ]
            assert {row.samples for row in rows} == {2}
            assert len(blocks) == 4
            assert all(row.low_ms <= row.ms <= row.high_ms for row in rows)
            plm = rows[1]
            assert plm.gflop is not None
            assert plm.share_of_rate == pytest.approx(plm.gflop / plm.ms * 1000 / 1000.0)
            assert rows[3].gflop is None
    assert no_device


def test_work_is_that_of_the_calls(tiny_bundle: Bundles, tmp_path: Path) -> None:
    """Encoded once a dialogue, or once an utterance: the rest is the same work."""
    bundle = tiny_bundle("roberta")
    dataset = shaped(bundle, tmp_path, 1)
    choice = choice_from_option("ort", bundle.manifest.architecture)
    with open_engines(bundle, "ort", threads=1) as engines:
        opened = Opened(bundle, (choice,), {"ort": engines}, None, 4, 1)
        rows, _ = boundary_rows(opened, tuple(recorded_dialogues(opened, dataset)), "engine", Effort(1))
    gflop = {(row.way, row.part): row.gflop for row in rows}
    utterances = len(dataset.order)
    one, other = gflop["alone", "plm"], gflop["batched", "plm"]
    assert one is not None
    assert other is not None
    assert one == pytest.approx(utterances * other)
    for part in ("swin", "fusion"):
        assert gflop["alone", part] == pytest.approx(gflop["batched", part])
    by_part = {(row.way, row.part): row for row in rows}
    for way in ("alone", "batched"):  # on the host nothing overlaps
        parts = sum(by_part[way, part].ms for part in ("swin", "plm", "fusion"))
        assert by_part[way, "all"].ms == pytest.approx(parts)
    assert all(row.rate_gflops is None and row.share_of_rate is None for row in rows)


def test_a_model_of_faces_alone(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    choice = choice_from_option("ort", bundle.manifest.architecture)
    with open_engines(bundle, "ort", threads=1) as engines:
        opened = Opened(bundle, (choice,), {"ort": engines}, None, 4, 1)
        found = tuple(recorded_dialogues(opened, shaped(bundle, tmp_path)))
        rows, _ = boundary_rows(opened, found, "engine", Effort(1))
    assert [(row.way, row.cache, row.part) for row in rows] == [
        (way, None, part) for way in ("alone", "batched") for part in ("unimodal", "all")
    ]
    told = rows[0].to_json(Validity(("busy",)))
    assert (told["valid"], told["reasons"], told["part"]) == (False, ["busy"], "unimodal")


@pytest.mark.parametrize(("most_bytes", "expected"), [(2**40, 4), (1, 1)])
def test_large_workloads_are_sampled(
    tiny_bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int, expected: int
) -> None:
    """Of nine dialogues four, evenly spaced: the second, fourth, sixth and eighth; fewer where memory is short."""
    monkeypatch.setattr(boundaries, "MOST_BYTES", most_bytes)
    bundle = tiny_bundle("unimodal")
    dataset = shaped(bundle, tmp_path, 9)
    choice = choice_from_option("ort", bundle.manifest.architecture)
    with open_engines(bundle, "ort", threads=1) as engines:
        opened = Opened(bundle, (choice,), {"ort": engines}, None, 4, 1)
        found = next(iter(recorded_dialogues(opened, dataset)))
    counts = [len(dataset.dialogues[i].utterances) for i in (1, 3, 5, 7)]
    assert [count for count, _ in found.dialogues] == counts[:expected]
