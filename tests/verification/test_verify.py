"""The order of things: what is skipped, what the record holds after each step, goals, and how it ends."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.goals import goals_of
from fmmt_deploy.verification.outcomes import Outcome, Result, State, Step
from fmmt_deploy.verification.settings import Settings, settings_for
from fmmt_deploy.verification.steps import engine_names, steps_of
from fmmt_deploy.verification.tables import tables_of
from fmmt_deploy.verification.verify import document_of, exit_code_of, ready_engines, verify

FULL = settings_for("full", 480, Path("nowhere"))


def _nothing(_: Context) -> Result:
    return {}


class Script:
    """Gives prepared outcomes, each of which takes some seconds of a clock."""

    def __init__(self, states: Mapping[str, State], seconds: float = 10.0) -> None:
        self.states, self.each, self.now = states, seconds, 0.0
        self.ran: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.closed = False

    def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
        self.ran[step.name] = (seconds, ready)
        self.now += self.each
        state = self.states.get(step.name, "done")
        return Outcome(step.name, state, self.each, "" if state == "done" else "so it is", 0 if state == "done" else 4)

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
    assert seen == [(0, "fmmt.verification/1"), (1, "fmmt.verification/1"), (2, "fmmt.verification/1")]
    assert [step["state"] for step in json.loads(record.read_text())["steps"]] == ["done", "failed", "done"]
    assert document_of(settings, outcomes)["exit_code"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


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

    class Slow(Script):
        def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
            self.each = seconds
            return super().run(step, seconds, ready)

    script = Slow({})
    _, outcomes = verified(tmp_path, script, steps_of(FULL))
    assert script.now <= 480
    assert {o.name for o in outcomes} == {step.name for step in steps_of(FULL)}


def test_measuring_has_its_time_when_all_goes_well(tmp_path: Path) -> None:
    script = Script({}, seconds=9)
    verified(tmp_path, script, steps_of(FULL))
    assert min(script.ran[name][0] for name in ("10 faces", "50 faces", "stages")) >= 45
    assert set(script.ran["10 faces"][1]) == set(engine_names(FULL))


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
    ready = set(script.ran["10 faces"][1])
    assert set(engine_names(FULL)) - ready == {"trt:fp16", "ort-cuda", "torch-compiled:fp16"}


def test_steps_name_each_other_rightly() -> None:
    steps = steps_of(FULL)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for number, step in enumerate(steps):
        assert set(step.needs) <= set(names[:number]), step.name
    assert set(ready_engines(steps, [Outcome(name, "done") for name in names])) == set(engine_names(FULL))
    assert {"trt:fp16", "trt-rtx", "trt-rtx:int8", "torch-cuda:fp16", "ort-cuda"} <= set(engine_names(FULL))


def way(engine: str, name: str, p50: float, per_second: float) -> dict[str, Any]:
    return {"engine": engine, "way": name, "latency": {"p50_ms": p50}, "per_second": per_second}


def measured(trt_rate: float, trt_p50: float) -> list[Outcome]:
    ways = [way("torch-cuda:fp16", "published", 50.0, 20.0), way("trt:fp16", "alone", trt_p50, 100.0)]
    faces = {"report": {"ways": ways}, "offline_utterances_per_s": {"trt:fp16": trt_rate, "torch-cuda:fp16": 9999.0}}
    rows = [
        {"engine": "trt:fp16", "graph": "plm", "precision": "fp16", "dialogues": 1, "tflops": 790.0},
        {"engine": "trt:fp16", "graph": "plm", "precision": "fp16", "dialogues": 8, "tflops": 400.0},
        {"engine": "trt-rtx:fp16", "graph": "plm", "precision": "fp16", "dialogues": 8, "tflops": 480.0},
        {"engine": "trt:fp16", "graph": "swin", "precision": "fp16", "faces": 8, "tflops": 80.0},
    ]
    return [
        Outcome("rates", "done", result={"matrix_tflops": {"fp16": 800.0, "fp32": 50.0}}),
        Outcome("10 faces", "done", result=faces),
        Outcome("stages", "done", result={"rows": rows}),
    ]


def test_goals_are_counted_by_hand() -> None:
    goals = {goal.what: goal for goal in goals_of(FULL, measured(trt_rate=400.0, trt_p50=12.5))}
    throughput, latency = (goals[f"{what} at 10 faces, × the published loop"] for what in ("throughput", "latency"))
    assert (throughput.found, throughput.verdict, throughput.engine) == (20.0, "met", "trt:fp16")
    assert (latency.found, latency.verdict) == (4.0, "missed")
    assert goals["throughput at 50 faces, × the published loop"].verdict == "not measured"
    text, face = (goals[f"{what} batches, share of the matrix rate"] for what in ("text", "face"))
    assert (text.found, text.engine, text.verdict) == (pytest.approx(0.6), "trt-rtx:fp16", "met")  # no batch of one
    assert (face.found, face.verdict) == (pytest.approx(0.1), "missed")


def test_without_the_published_loop_there_is_no_ratio() -> None:
    outcomes = measured(400.0, 12.5)
    report: Any = outcomes[1].result["report"]
    report["ways"].pop(0)
    assert {g.verdict for g in goals_of(FULL, outcomes) if "published" in g.what} == {"not measured"}


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
    ],
)
def test_how_it_ends(change: Callable[[list[Outcome]], list[Outcome]], code: int) -> None:
    one_size = settings_for("full", 480, Path("nowhere"), faces=(10,))
    assert exit_code_of(one_size, change(measured(400.0, 12.5))) == code


def test_goals_that_are_met_end_with_0() -> None:
    one_size = settings_for("full", 480, Path("nowhere"), faces=(10,))
    outcomes = measured(400.0, 9.0)
    rows: Any = outcomes[2].result["rows"]
    assert exit_code_of(one_size, outcomes) == 6
    rows[-1]["tflops"] = 121.0  # 15.1 % of 800
    assert exit_code_of(one_size, outcomes) == 0
    assert exit_code_of(FULL, outcomes) == 1  # 50 faces were not measured


def test_tables_show_what_matters() -> None:
    outcomes = [*measured(400.0, 12.5), Outcome("build trt-rtx", "unable", why="there is none", exit_code=3)]
    text = "\n".join(map(str, tables_of(FULL, outcomes)))
    assert "torch-cuda:fp16, published" in text
    assert "20.0×" in text
    assert "12.5 ms" in text
    assert "unable: there is none" in text


def test_numbers_that_json_has_no_word_for_are_null() -> None:
    outcomes = [Outcome("rates", "done", result={"matrix_tflops": {"fp16": float("nan")}, "path": Path("x")})]
    assert '"fp16": null' in json.dumps(document_of(FULL, outcomes), allow_nan=False)
