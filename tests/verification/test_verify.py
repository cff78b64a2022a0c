"""The order of things: what is skipped, what the record holds after each step, goals, and how it ends."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.goals import Goal, goals_of
from fmmt_deploy.verification.outcomes import Outcome, Result, State, Step
from fmmt_deploy.verification.settings import Settings, settings_for
from fmmt_deploy.verification.steps import engine_names, steps_of
from fmmt_deploy.verification.tables import tables_of
from fmmt_deploy.verification.verify import document_of, exit_code_of, ready_engines, verify

FULL = settings_for("full", 480, Path("nowhere"))
FILES = [f"{faces} faces, {scenario}" for faces in (10, 50) for scenario in ("single-stream", "offline")]


def _nothing(_: Context) -> Result:
    return {}


class Script:
    """Gives prepared outcomes, each of which takes some seconds of a clock; without a number, as many as it may."""

    def __init__(self, states: Mapping[str, State], seconds: float | None = 10.0) -> None:
        self.states, self.each, self.now = states, seconds, 0.0
        self.ran: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.closed = False

    def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
        self.ran[step.name] = (seconds, ready)
        taken = seconds if self.each is None else self.each
        self.now += taken
        state = self.states.get(step.name, "done")
        return Outcome(step.name, state, taken, "" if state == "done" else "so it is", 0 if state == "done" else 4)

    def close(self) -> None:
        self.closed = True


def verified(
    tmp_path: Path, script: Script, steps: tuple[Step, ...], seconds: float = 480.0
) -> tuple[Settings, tuple[Outcome, ...]]:
    settings = settings_for("full", seconds, tmp_path)
    outcomes = verify(settings, steps, script, tmp_path / "record.json", clock=lambda: script.now)
    assert script.closed
    return settings, outcomes


def test_the_record_is_whole_after_every_step(tmp_path: Path) -> None:
    record, seen = tmp_path / "record.json", list[tuple[int, str]]()

    class Reading(Script):
        def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
            document = json.loads(record.read_text())
            seen.append((len(document["steps"]), document["schema"]))
            return super().run(step, seconds, ready)

    steps = tuple(Step(name, 60, _nothing) for name in "abc")
    settings, outcomes = verified(tmp_path, Reading({"b": "failed"}), steps)
    assert seen == [(0, "fmmt.verification/2"), (1, "fmmt.verification/2"), (2, "fmmt.verification/2")]
    assert [step["state"] for step in json.loads(record.read_text())["steps"]] == ["done", "failed", "done"]
    assert document_of(settings, outcomes)["exit_code"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_is_told_is_recorded(tmp_path: Path) -> None:
    record, told = tmp_path / "record.json", list[list[str]]()

    def tell(_: Outcome) -> None:
        told.append([step["name"] for step in json.loads(record.read_text())["steps"]])

    verify(FULL, tuple(Step(name, 60, _nothing) for name in "ab"), Script({}), record, tell)
    assert told == [["a"], ["a", "b"]]


def test_a_record_that_was_interrupted_is_whole(tmp_path: Path) -> None:
    class Interrupted(Script):
        def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
            if step.name == "b":
                raise KeyboardInterrupt
            return super().run(step, seconds, ready)

    script = Interrupted({})
    with pytest.raises(KeyboardInterrupt):
        verified(tmp_path, script, tuple(Step(name, 60, _nothing) for name in "abc"))
    assert script.closed
    assert len(json.loads((tmp_path / "record.json").read_text())["steps"]) == 1


def test_what_needs_a_step_that_failed_is_skipped(tmp_path: Path) -> None:
    steps = (Step("a", 60, _nothing), Step("b", 60, _nothing, needs=("a",)), Step("c", 60, _nothing, needs=("b",)))
    _, outcomes = verified(tmp_path, Script({"a": "unable"}), steps)
    assert [(o.state, o.why) for o in outcomes[1:]] == [("skipped", "'a' is not done"), ("skipped", "'b' is not done")]


def test_time_that_is_short_is_left_to_what_matters(tmp_path: Path) -> None:
    steps = (
        Step("first", 60, _nothing),
        Step("extra", 60, _nothing, leaves=80),
        Step("last", 60, _nothing),
        Step("too late", 60, _nothing),
    )
    script = Script({}, seconds=45)
    _, outcomes = verified(tmp_path, script, steps, seconds=91)
    assert [o.state for o in outcomes] == ["done", "skipped", "done", "skipped"]
    assert outcomes[1].why == "no time: 46 s left"
    assert script.ran["first"][0] == 60
    assert script.ran["last"][0] == 46  # what is left, not what it might take


def test_every_deadline_fits_into_the_time_there_is(tmp_path: Path) -> None:
    """Steps that all take as long as they may never end later than asked."""

    script = Script({}, seconds=None)
    _, outcomes = verified(tmp_path, script, steps_of(FULL))
    assert script.now <= 480
    assert {o.name for o in outcomes} == {step.name for step in steps_of(FULL)}


def test_every_table_has_its_share_of_a_short_time(tmp_path: Path) -> None:
    """The first ones may take what is over, and leave 40 s to each of the others."""

    script = Script({}, seconds=None)
    verified(tmp_path, script, tuple(replace(s, needs=()) for s in steps_of(FULL) if s.name in FILES), seconds=200)
    assert {name: seconds for name, (seconds, _) in script.ran.items()} == dict(
        zip(FILES, (80, 40, 40, 40), strict=True)
    )


def test_measuring_has_its_time_when_all_goes_well(tmp_path: Path) -> None:
    script = Script({}, seconds=9)
    verified(tmp_path, script, steps_of(FULL))
    assert min(script.ran[name][0] for name in (*FILES, "stages")) >= 45
    assert set(script.ran["10 faces, offline"][1]) == set(engine_names(FULL))


def test_engines_that_compile_when_they_run_meet_their_shapes_before_they_are_measured() -> None:
    steps = {step.name: step for step in steps_of(FULL)}
    assert {name for name in steps if name.startswith("warm up")} == {
        "warm up trt-rtx:fp16",
        "warm up torch-compiled:fp16",
    }
    rtx = steps["warm up trt-rtx:fp16"]
    assert rtx.readies is None  # without it, it is measured all the same
    assert rtx.leaves >= 200


def test_only_engines_that_answer_right_are_measured(tmp_path: Path) -> None:
    script = Script(
        {"consistency trt:fp16": "failed", "parity ort-cuda": "unable", "warm up torch-compiled:fp16": "late"}
    )
    verified(tmp_path, script, steps_of(FULL), seconds=4800)
    ready = set(script.ran["10 faces, single-stream"][1])
    assert set(engine_names(FULL)) - ready == {"trt:fp16", "ort-cuda", "torch-compiled:fp16"}


def test_an_engine_with_which_a_step_was_lost_is_asked_no_more() -> None:
    steps = steps_of(FULL)
    done = [Outcome(step.name, "done") for step in steps]
    lost = [Outcome(FILES[0], "late", asked="trt:fp16")]
    assert set(ready_engines(steps, done)) - set(ready_engines(steps, done + lost)) == {"trt:fp16"}


def test_steps_name_each_other_rightly() -> None:
    steps = steps_of(FULL)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for number, step in enumerate(steps):
        assert set(step.needs) <= set(names[:number]), step.name
    assert set(ready_engines(steps, [Outcome(name, "done") for name in names])) == set(engine_names(FULL))
    assert {"trt:fp16", "trt-rtx", "trt-rtx:int8", "torch-cuda:fp16", "ort-cuda"} <= set(engine_names(FULL))


LOOP = "torch-cuda:fp16 published"
QUIET = {"valid": True, "reasons": [], "unseen": [], "facts": {}}


def row(engine: str, way: str, times: float | None, reasons: tuple[str, ...] = (), **figures: Any) -> dict[str, Any]:
    """As `Figure.to_json` has it, with what is read here."""
    ratio = None if times is None else {"median": times, "low": times - 0.5, "high": times + 0.5, "reasons": []}
    return {"engine": engine, "way": way, "ratio": ratio, "reasons": list(reasons), **figures}


def single(engine: str, way: str, p50_ms: float, times: float | None, *reasons: str) -> dict[str, Any]:
    return row(engine, way, times, reasons, latency={"p50_ms": p50_ms})


def offline(engine: str, way: str, rate: float, times: float | None, *reasons: str) -> dict[str, Any]:
    return row(engine, way, times, reasons, per_second={"median": rate})


def table(*rows: dict[str, Any], baseline: str = LOOP) -> dict[str, Any]:
    return {"baseline": baseline, "validity": QUIET, "rows": list(rows), "dropped": {}}


def measured(throughput: float, latency: float) -> list[Outcome]:
    """What there is to judge, with how many times as fast as the published loop `trt:fp16` is."""
    singles = table(
        single("torch-cuda:fp16", "published", 50.0, None),
        single("trt:fp16", "alone", 12.5, latency),
        single("trt:fp16", "cached", 6.0, 99.0),
        single("torch-cuda:fp16", "alone", 1.0, 99.0),
    )
    at_once = table(
        offline("torch-cuda:fp16", "published", 20.0, None),
        offline("trt:fp16", "batched", 400.0, throughput),
        offline("torch-cuda:fp16", "batched", 9999.0, 499.0),
    )
    rows = [
        {"engine": "trt:fp16", "graph": "plm", "precision": "fp16", "dialogues": 1, "tflops": 790.0},
        {"engine": "trt:fp16", "graph": "plm", "precision": "fp16", "dialogues": 8, "tflops": 400.0},
        {"engine": "trt-rtx:fp16", "graph": "plm", "precision": "fp16", "dialogues": 8, "tflops": 480.0},
        {"engine": "trt:fp16", "graph": "swin", "precision": "fp16", "faces": 8, "tflops": 80.0},
    ]
    return [
        Outcome("rates", "done", result={"matrix_tflops": {"fp16": 800.0, "fp32": 50.0}}),
        Outcome("10 faces, single-stream", "done", result=singles),
        Outcome("10 faces, offline", "done", result=at_once),
        Outcome("stages", "done", result={"validity": QUIET, "rows": rows, "dropped": {}}),
    ]


def rows_of(outcomes: list[Outcome], name: str) -> list[dict[str, Any]]:
    rows: Any = next(outcome.result["rows"] for outcome in outcomes if outcome.name == name)
    assert isinstance(rows, list)
    return rows


def by_name(goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
    """Throughput and latency at 10 faces, text and faces."""
    found = {goal.what: goal for goal in goals}
    ratios = tuple(found[f"{what} at 10 faces, × the published loop"] for what in ("throughput", "latency"))
    return (*ratios, *(found[f"{what} batches, share of the matrix rate"] for what in ("text", "face")))


def test_goals_are_counted_by_hand() -> None:
    goals = goals_of(FULL, measured(throughput=20.0, latency=4.0))
    throughput, latency, text, face = by_name(goals)
    assert (throughput.found, throughput.verdict, throughput.engine) == (20.0, "met", "trt:fp16")
    assert (latency.found, latency.verdict) == (4.0, "missed")
    assert {goal.verdict for goal in goals if "50 faces" in goal.what} == {"not measured"}
    assert (text.found, text.engine, text.verdict) == (pytest.approx(0.6), "trt-rtx:fp16", "met")  # no batch of one
    assert (face.found, face.verdict) == (pytest.approx(0.1), "missed")


@pytest.mark.parametrize("baseline", ["trt:fp16 alone", ""])
def test_without_the_published_loop_there_is_no_ratio(baseline: str) -> None:
    outcomes = measured(20.0, 4.0)
    for outcome in outcomes[1:3]:
        found: Any = outcome.result
        found["baseline"] = baseline
    assert {g.verdict for g in goals_of(FULL, outcomes) if "published" in g.what} == {"not measured"}


def test_a_figure_that_is_invalid_meets_and_misses_nothing() -> None:
    """Whether its own samples say so, or those of its ratio, or the stages were disturbed."""
    outcomes = measured(20.0, 4.0)
    rows_of(outcomes, "10 faces, offline")[1]["ratio"]["reasons"].append("the ratio drifted by 30%")
    rows_of(outcomes, "10 faces, single-stream")[1]["reasons"].append("Others took 50%.")
    disturbed: Any = outcomes[3].result
    disturbed["validity"] = {"valid": False, "reasons": ["The GPU's clock fell."], "unseen": [], "facts": {}}
    goals = by_name(goals_of(FULL, outcomes))
    assert [goal.verdict for goal in goals] == ["INVALID"] * 4
    assert [goal.reasons for goal in goals[:3]] == [
        ("the ratio drifted by 30%",),
        ("Others took 50%.",),
        ("The GPU's clock fell.",),
    ]
    assert goals[0].found == 20.0


def test_a_valid_figure_comes_before_a_better_one_that_is_not() -> None:
    outcomes = measured(20.0, 4.0)
    rows_of(outcomes, "10 faces, offline").append(offline("trt-rtx:fp16", "batched", 900.0, 45.0, "never settled"))
    throughput, *_ = by_name(goals_of(FULL, outcomes))
    assert (throughput.engine, throughput.found, throughput.verdict) == ("trt:fp16", 20.0, "met")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda o: o, 6),
        (lambda o: [*o, Outcome("parity trt", "failed", exit_code=4)], 4),
        (lambda o: [*o, Outcome("build trt", "failed", exit_code=8)], 1),
        (lambda o: [*o, Outcome("build trt", "unable", exit_code=3)], 6),
        (lambda _: [Outcome("rates", "unable", exit_code=3)], 3),
        (lambda _: [Outcome("rates", "unable", exit_code=3), Outcome("model", "late", exit_code=1)], 3),
        (lambda _: [], 1),  # nothing was shown
        (lambda o: o[:2], 1),
        (lambda o: [*o[:3], Outcome("stages", "done", result={**o[3].result, "validity": {"reasons": ["busy"]}})], 7),
    ],
)
def test_how_it_ends(change: Callable[[list[Outcome]], list[Outcome]], code: int) -> None:
    one_size = settings_for("full", 480, Path("nowhere"), faces=(10,))
    assert exit_code_of(one_size, change(measured(20.0, 4.0))) == code


def test_goals_that_are_met_end_with_0() -> None:
    one_size = settings_for("full", 480, Path("nowhere"), faces=(10,))
    outcomes = measured(20.0, 5.5)
    assert exit_code_of(one_size, outcomes) == 6
    rows_of(outcomes, "stages")[-1]["tflops"] = 121.0  # 15.1 % of 800
    assert exit_code_of(one_size, outcomes) == 0
    assert exit_code_of(FULL, outcomes) == 1  # 50 faces were not measured


def test_tables_show_what_matters() -> None:
    outcomes = [*measured(20.0, 4.0), Outcome("build trt-rtx", "unable", why="there is none", exit_code=3)]
    rows_of(outcomes, "10 faces, single-stream")[2]["reasons"].append("it never settled")
    found: Any = outcomes[2].result
    found["dropped"] = {"ort-cuda batched": "out of memory"}
    found["validity"] = {"valid": False, "reasons": ["Others were busy."]}
    for one in found["rows"]:
        one["reasons"].append("Others were busy.")
    text = "\n".join(map(str, tables_of(FULL, outcomes)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "10 torch-cuda:fp16, published 50.0 ms – VALID –" in lines
    assert "10 trt:fp16 12.5 ms 4.0 (3.5–4.5) VALID 6.00 ms INVALID" in lines
    assert "10 trt:fp16 400.0 20.0 (19.5–20.5) INVALID" in lines
    assert "it never settled trt:fp16 cached, 10 faces, single-stream" in lines
    assert "Others were busy. all of 10 faces, offline" in lines  # and of no row by itself
    assert "dropped: out of memory ort-cuda batched (10 faces, offline)" in lines
    assert "unable: there is none build trt-rtx" in lines
    assert "trt:fp16 50% 10% VALID" in lines


def test_rows_without_reasons_are_valid() -> None:
    single_stream, at_once = map(str, tables_of(FULL, measured(20.0, 4.0))[1:3])
    assert (single_stream.count(" VALID"), at_once.count(" VALID")) == (4, 3)
    assert "INVALID" not in single_stream + at_once


def test_numbers_that_json_has_no_word_for_are_null() -> None:
    outcomes = [Outcome("rates", "done", result={"matrix_tflops": {"fp16": float("nan")}, "path": Path("x")})]
    assert '"fp16": null' in json.dumps(document_of(FULL, outcomes), allow_nan=False)
