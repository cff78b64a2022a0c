"""What observers are shown of cases that share their text, as the batches of a long dialogue do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from fmmt_deploy.bundle.selftest import self_test_of
from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.calibration.collecting import GraphStatistics
from fmmt_deploy.calibration.decisions import GraphView
from fmmt_deploy.calibration.observing import CaseInputs, observe_graphs
from fmmt_deploy.calibration.sites import sites_of
from fmmt_deploy.parity.run import cases_from_self_test
from fmmt_deploy.types import GraphName

Bundles = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def cases(tiny_bundle: Bundles) -> list[CaseInputs]:
    """Two texts; the first is read by three batches, each with arrays of its own."""
    (case,) = cases_from_self_test(self_test_of(tiny_bundle("roberta")))
    assert case.plm is not None
    other = replace(case, plm={**case.plm, "input_ids": case.plm["input_ids"][::-1].copy()})
    assert not np.array_equal(case.plm["input_ids"], other.plm["input_ids"])  # type: ignore[index]
    again = [replace(case, plm={name: array.copy() for name, array in case.plm.items()}) for _ in range(2)]
    return [one.by_graph() for one in (case, *again, other)]


def statistics_of(bundle: Bundle, graph: GraphName) -> GraphStatistics:
    return GraphStatistics(graph, sites_of(GraphView(onnx.load(bundle.graph(graph), load_external_data=False))))


def same(one: GraphStatistics, other: GraphStatistics) -> bool:
    mine, its = one.arrays(), other.arrays()
    return mine.keys() == its.keys() and all(np.array_equal(mine[name], its[name]) for name in mine)


def test_a_text_counts_once_however_many_batches_read_it(tiny_bundle: Bundles, cases: list[CaseInputs]) -> None:
    bundle = tiny_bundle("roberta")
    text, once, fusion = statistics_of(bundle, "plm"), statistics_of(bundle, "plm"), statistics_of(bundle, "fusion")
    observe_graphs(bundle, {"plm": text, "fusion": fusion}, cases, 1)
    observe_graphs(bundle, {"plm": once}, [cases[0], cases[3]], 1)
    assert same(text, once)
    assert (text.cases, fusion.cases) == (2, 4)


def test_an_interrupted_collection_goes_on_amid_a_dialogue(tiny_bundle: Bundles, cases: list[CaseInputs]) -> None:
    bundle = tiny_bundle("roberta")
    whole, begun, resumed = (statistics_of(bundle, "plm") for _ in range(3))
    observe_graphs(bundle, {"plm": whole}, cases, 1)
    observe_graphs(bundle, {"plm": begun}, cases[:2], 1)
    resumed.load(begun.arrays())
    observe_graphs(bundle, {"plm": resumed}, cases[2:], 1)
    assert same(whole, resumed)
