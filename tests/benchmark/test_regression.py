"""Regressions against a saved run: planted slowdowns, machines that drift, noise, and runs that can't be compared."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.benchmark.blocks import BlockRatio
from fmmt_deploy.benchmark.regression import regression
from fmmt_deploy.benchmark.scenarios import offline_from_seconds, single_stream_from_samples
from fmmt_deploy.benchmark.statistics import median_interval
from fmmt_deploy.errors import ArtefactError, SlowerError, UsageError

Document = dict[str, Any]
ENGINE, STREAM, OFFLINE = "engine, ort alone, swin", "files, single-stream, ort alone", "files, offline, ort batched"
SERVER = "files, server, ort batched"


def document(
    *,
    noise: float = 0.0,
    machine: float = 1.0,
    slower: float = 1.0,
    published: bool = False,
    seed: int = 0,
    rates: bool = True,
) -> Document:
    """What `fmmt bench` says of an engine that takes 100 ms an utterance, on a machine of 400 GFLOP/s.

    Args:
        noise: Of every time, as a standard deviation of its logarithm.
        machine: How many times as fast the machine is, which times and rates both show.
        slower: How many times as long the engine takes.
        published: Whether the published loop was measured beside it.
        seed: Of the noise.
        rates: Whether the machine's rate was measured.
    """
    random = np.random.default_rng(seed)
    times = 100 * slower / machine * random.lognormal(0, noise, 400)
    seconds = (20 * times[:24] / 1000).tolist()
    ratio = BlockRatio(5 / slower, 4.95 / slower, 5.05 / slower, 0.95, 40, 1.0, ()).to_json() if published else None
    stream = {**single_stream_from_samples(times).to_json(), "engine": "ort", "way": "alone", "ratio": ratio}
    offline = {**offline_from_seconds(20, seconds).to_json(), "engine": "ort", "way": "batched", "ratio": None}
    held = 8.0 * machine / slower
    server = {"engine": "ort", "way": "batched", "ratio": None, "reasons": [], "rate_per_second": held}
    middle = float(np.median(times))
    call = {"engine": "ort", "way": "alone", "part": "swin", "ms": middle, "reasons": []}
    rate = {"name": "cpu fp32", "gflops": 400 * machine, "gflops_interval": [398 * machine, 402 * machine]}
    report = {
        "workload": {"source": "MELD-shaped", "sha256": "ab" * 32},
        "rates": [rate] if rates else [],
        "device": {"rows": []},
        "engine": {"rows": [{**call, "interval_ms": list(median_interval(times, 0.95, resamples=200)[:2])}]},
        "files": {
            "single-stream": {"baseline": "torch published" if published else "ort alone", "rows": [stream]},
            "offline": {"baseline": "ort together", "rows": [offline]},
            "server": {"baseline": "", "rows": [{**server, "fails_at": 1.01 * held}]},
        },
    }
    made = {
        "schema": "fmmt.bench/2",
        "machine": {"cpu": "EPYC", "machine": "x86_64", "cores": 2, "gpus": [{"name": "H200", "driver": "1"}]},
        "settings": {"batch_size": 8, "threads": 2, "limit_ms": None, "rounds": 6},
        "workloads": [report],
    }
    return json.loads(json.dumps(made, allow_nan=False))  # type: ignore[no-any-return]  # what was made, as read


def test_the_same_run_is_within() -> None:
    found = regression(document(), document())
    assert {change.row for change in found.changes} == {ENGINE, STREAM, OFFLINE, SERVER}
    assert {change.times for change in found.changes} == {1.0}
    assert found.verdict == "within"
    assert found.problem() is None
    assert found.missing == ()


def test_a_planted_slowdown_is_named_with_its_interval() -> None:
    """12 % slower at 5 % allowed."""
    found = regression(document(noise=0.01), document(noise=0.01, slower=1.12, seed=1))
    assert {change.verdict for change in found.changes} == {"slower"}
    problem = found.problem()
    assert isinstance(problem, SlowerError)
    assert problem.exit_code == 6
    assert "Slower than before by more than 5%" in problem.what
    assert "times as long and 4 more" in problem.what  # the row of single stream has its p90 beside its time
    assert "1.12 (1." in str(problem)
    for change in found.changes:
        assert change.low is not None
        assert change.high is not None
        assert change.low < 1.12 < change.high
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["verdict"] == "slower"


@pytest.mark.parametrize("machine", [0.6, 1.7])
def test_a_machine_that_is_slower_or_faster_is_no_change(machine: float) -> None:
    """Everything takes longer, matrix products too."""
    found = regression(document(), document(machine=machine))
    assert found.verdict == "within"
    assert {change.scaled_by for change in found.changes} == {"matrix rate"}
    for change in found.changes:
        assert change.times == pytest.approx(1)


def test_a_slowdown_is_seen_on_a_machine_that_became_faster() -> None:
    """1.7 times as fast, but the engine takes 1.2 times as long: its times alone have fallen by 29 %."""
    found = regression(document(), document(machine=1.7, slower=1.2))
    assert {change.verdict for change in found.changes} == {"slower"}
    assert [round(change.times, 2) for change in found.changes] == [1.2] * 5


def test_the_speed_up_against_the_published_loop_is_taken_where_there_is_one() -> None:
    """Its machine rate is nonsense, but the ratios say 1.00 and 1.10."""
    before = document(published=True)
    for slower, verdict in ((1.0, "within"), (1.10, "slower")):
        after = document(published=True, slower=slower)
        after["workloads"][0]["rates"][0]["gflops"] = 4000.0
        (change,) = (c for c in regression(before, after).changes if c.row == STREAM and c.measure != "p90")
        assert (change.measure, change.scaled_by, change.verdict) == ("speed-up", "speed-up", verdict)
        assert change.times == pytest.approx(slower)


def test_another_way_of_ours_is_no_yardstick() -> None:
    """The first way became 10 % faster and this one did not change: its speed-up against the first fell."""
    before, after = document(), document()
    for made, median in ((before, 2.0), (after, 1.8)):
        made["workloads"][0]["files"]["single-stream"]["rows"][0]["ratio"] = BlockRatio(
            median, 0.99 * median, 1.01 * median, 0.95, 40, 1.0, ()
        ).to_json()
    assert regression(before, after).verdict == "within"


def test_noise_is_no_regression() -> None:
    """80 pairs of unchanged runs with 30 % of noise, five figures each: none is surely slower by 5 %, or hardly one."""
    pairs = [regression(document(noise=0.3, seed=i), document(noise=0.3, seed=10_000 + i)) for i in range(80)]
    assert sum(found.verdict == "slower" for found in pairs) <= 1
    assert sum(change.times > 1.05 for found in pairs for change in found.changes) > 20  # though many look slower


def test_what_is_too_uncertain_is_unsure() -> None:
    """Noise of 50 % can't show that nothing changed; and a p90 of 20 samples has no bound."""
    found = regression(document(noise=0.5), document(noise=0.5, seed=2))
    assert found.verdict == "unsure"
    assert found.problem() is None
    few = document()
    few["workloads"][0]["files"]["single-stream"]["rows"][0] |= single_stream_from_samples([100.0] * 20).to_json()
    (change,) = (c for c in regression(few, few).changes if c.measure == "p90")
    assert (change.verdict, change.low) == ("unsure", None)
    assert "too few samples" in change.reasons[-1]


def test_invalid_figures_are_unsure_unless_taken() -> None:
    before, after = document(), document(slower=1.5)
    row = after["workloads"][0]["engine"]["rows"][0]
    row["reasons"] = ["Other processes took 74% of the processors."]
    found = {c.row: c for c in regression(before, after).changes}
    assert found[ENGINE].verdict == "unsure"
    assert found[ENGINE].reasons == ("now: Other processes took 74% of the processors.",)
    assert found[OFFLINE].verdict == "slower"
    taken = {c.row: c for c in regression(before, after, take_invalid=True).changes}
    assert taken[ENGINE].verdict == "slower"


def test_a_rate_that_no_longer_holds_is_slower() -> None:
    found = regression(document(), document(slower=1.3))
    (change,) = (c for c in found.changes if c.row == SERVER)
    assert (change.measure, change.verdict) == ("rate", "slower")
    assert change.times == pytest.approx(1.3)


def test_a_rate_lies_between_what_held_and_what_failed() -> None:
    """Where 20 % lie between the two, nothing changed and yet 5 % can't be ruled out."""
    made = document()
    row = made["workloads"][0]["files"]["server"]["rows"][0]
    row["fails_at"] = 1.2 * row["rate_per_second"]
    (change,) = (c for c in regression(made, made).changes if c.row == SERVER)
    assert change.low is not None
    assert change.high is not None
    assert (change.low, change.high) == pytest.approx((1 / 1.2, 1.2), rel=0.01)
    assert change.verdict == "unsure"


def test_a_speed_ups_bounds_are_on_their_own_sides() -> None:
    """Between 4 and 5.01 times as fast as published now, and exactly 5 times before: up to 1.25 times as long."""
    made = {}
    for name, low, high in (("before", 5.0, 5.0), ("after", 4.0, 5.01)):
        made[name] = document(published=True)
        ratio = BlockRatio(5.0, low, high, 0.95, 40, 1.0, ()).to_json()
        made[name]["workloads"][0]["files"]["single-stream"]["rows"][0]["ratio"] = ratio
    (change,) = (c for c in regression(made["before"], made["after"]).changes if c.measure == "speed-up")
    assert (change.low, change.high) == pytest.approx((5 / 5.01, 1.25))
    (change,) = (c for c in regression(made["after"], made["before"]).changes if c.measure == "speed-up")
    assert (change.low, change.high) == pytest.approx((0.8, 5.01 / 5))


def test_without_a_matrix_rate_times_are_as_they_are() -> None:
    found = regression(document(rates=False), document(rates=False, slower=1.2))
    assert {change.scaled_by for change in found.changes} == {"nothing"}
    assert found.verdict == "slower"


@pytest.mark.parametrize(("allowed", "verdict"), [(0.05, "slower"), (0.15, "within"), (0.1, "unsure")])
def test_what_is_allowed_decides(allowed: float, verdict: str) -> None:
    assert regression(document(), document(slower=1.1), allowed).verdict == verdict


def test_a_row_that_is_gone_is_said() -> None:
    after = document()
    del after["workloads"][0]["files"]["offline"]
    found = regression(document(), after)
    assert found.missing == (OFFLINE,)
    assert found.verdict == "unsure"
    assert regression(after, document()).verdict == "within"


def _machine(made: Document) -> None:
    made["machine"]["cpu"] = "Xeon"


def _gpu(made: Document) -> None:
    made["machine"]["gpus"] = [{"name": "L4"}]


def _batch(made: Document) -> None:
    made["settings"]["batch_size"] = 1


def _limit(made: Document) -> None:
    made["settings"]["limit_ms"] = 250.0


def _work(made: Document) -> None:
    made["workloads"][0]["workload"]["sha256"] = "cd" * 32


def _precision(made: Document) -> None:
    rows = made["workloads"][0]["engine"]["rows"]
    files = made["workloads"][0]["files"].values()
    for row in (*rows, *(row for table in files for row in table["rows"])):
        row["engine"] = "ort:int8-fp32"


def _scenarios(made: Document) -> None:
    made["workloads"][0]["engine"]["rows"] = []
    stream = made["workloads"][0]["files"].pop("single-stream")["rows"][0]
    made["workloads"][0]["files"] = {"single-stream": {"baseline": "x", "rows": [{**stream, "way": "cached"}]}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_machine, r"another machine: processor EPYC \(x86_64\), now Xeon"),
        (_gpu, "another machine: GPUs H200, now L4"),
        (_batch, "other settings: batch_size 8, now 1"),
        (_limit, "other settings: limit_ms None, now 250.0"),
        (_work, "other work"),
        (_precision, "another engine or precision: ort, now ort:int8-fp32"),
        (_scenarios, "share no figure"),
    ],
)
def test_what_is_not_alike_is_not_compared(change: Callable[[Document], None], words: str) -> None:
    after = document()
    change(after)
    with pytest.raises(UsageError, match=words):
        regression(document(), after)


def test_other_drivers_and_rounds_are_compared() -> None:
    after = document()
    after["machine"]["gpus"][0]["driver"] = "2"
    after["settings"]["rounds"] = 60
    assert regression(document(), after).verdict == "within"


@pytest.mark.parametrize(
    "path",
    [
        ("machine",),
        ("workloads",),
        ("workloads", 0, "workload", "sha256"),
        ("workloads", 0, "rates", 0, "gflops_interval"),
        ("workloads", 0, "engine", "rows", 0, "ms"),
        ("workloads", 0, "files", "single-stream", "rows", 0, "percentiles"),
        ("workloads", 0, "files", "offline", "rows", 0, "per_second"),
    ],
    ids=str,
)
@pytest.mark.parametrize("value", [None, 0, [1, 2, 3], True])
def test_what_is_no_benchmark_is_refused(path: tuple[str | int, ...], value: object) -> None:
    broken = document()
    target: Any = broken
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = copy.deepcopy(value)
    with pytest.raises(ArtefactError, match="The earlier report is no benchmark"):
        regression(broken, document())
    del target[path[-1]]
    with pytest.raises(ArtefactError, match="The earlier report is no benchmark"):
        regression(broken, document())


def test_another_schema_is_refused() -> None:
    with pytest.raises(ArtefactError, match=r"schema fmmt.bench/2, found fmmt.bench/1"):
        regression({"schema": "fmmt.bench/1"}, document())
