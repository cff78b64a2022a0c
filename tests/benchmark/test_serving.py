"""The server scenario over a side of known speed, on a clock of our own."""

from pathlib import Path

import pytest

from fmmt_deploy.benchmark.queries import Query, queries_of
from fmmt_deploy.benchmark.rate_search import Server, queries_for
from fmmt_deploy.benchmark.serving import ServerSettings, server_figures
from fmmt_deploy.benchmark.workload import meld_shaped
from fmmt_deploy.reference.presets import PRESETS
from tests.benchmark.fake_clock import FakeClock
from tests.benchmark.sides import Taking, side


@pytest.fixture
def queries(tmp_path: Path) -> tuple[Query, ...]:
    return queries_of(meld_shaped(PRESETS["tiny"], tmp_path, 2, 1))


def test_the_largest_rate_is_below_that_of_the_service(queries: tuple[Query, ...]) -> None:
    """10 ms an answer: no more than 100 a second; with a generous limit not much less."""
    clock = FakeClock()
    one = side(clock, "ort", 0.010, "cached")
    looked = list[int]()
    settings = ServerSettings(limit_ms=200, batch_size=1, run_seconds=5, search_seconds=1e6)
    (figure,) = server_figures([one], queries, settings, lambda: looked.append(1), clock)
    assert isinstance(figure.result, Server)
    assert figure.result.rate is not None
    assert 70 < figure.result.rate < 100
    assert figure.validity.valid
    assert (figure.engine, figure.way, figure.cache, figure.ratio) == ("ort", "cached", True, None)
    assert len(looked) >= len(figure.result.runs)
    assert isinstance(one.answering, Taking)
    assert one.answering.readied == len(queries) + 8  # all beforehand, and those that the first rate is guessed from
    told = figure.to_json(figure.validity)
    assert (told["scenario"], told["rate_per_second"], told["valid"]) == ("server", figure.result.rate, True)


def test_without_time_for_a_run_it_is_said(queries: tuple[Query, ...]) -> None:
    clock = FakeClock()
    settings = ServerSettings(limit_ms=2000, batch_size=1, run_seconds=5, search_seconds=60)
    (figure,) = server_figures([side(clock, "ort", 1.0)], queries, settings, clock=clock)
    assert isinstance(figure.result, Server)
    assert figure.result.rate is None
    seconds = queries_for(0.5, limit_ms=2000, seconds=5) / 0.5
    assert figure.validity.reasons == (f"a run at 0.5 a second takes {seconds:.0f} s, and the search 60 s at most",)


def test_a_rate_that_there_is_no_time_to_judge_is_no_limit(queries: tuple[Query, ...]) -> None:
    """Under load late answers come in bunches, and take more of them; without time for those it is said."""
    clock = FakeClock()
    settings = ServerSettings(limit_ms=200, batch_size=1, run_seconds=5, search_seconds=400)
    (figure,) = server_figures([side(clock, "ort", 0.010)], queries, settings, clock=clock)
    assert isinstance(figure.result, Server)
    assert figure.result.rate is not None
    assert figure.result.rate < 70
    assert any("may be larger" in reason for reason in figure.validity.reasons)
