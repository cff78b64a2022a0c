"""Steps in a process of their own: what hangs or dies costs one step."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmmt_deploy.errors import EnvironmentProblem, FmmtError, ParityError
from fmmt_deploy.verification import worker as worker_module
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Outcome, Result, Step
from fmmt_deploy.verification.settings import Settings, settings_for
from fmmt_deploy.verification.worker import Here, Runner, Worker


def _pid(context: Context) -> Result:
    return {"summary": ", ".join(context.ready), "pid": os.getpid(), "left": context.seconds_left}


def _hang(_: Context) -> Result:
    time.sleep(60)
    return {}


def _ask_and_hang(context: Context) -> Result:
    context.asks("ort")
    context.asks("trt:fp16")
    return _hang(context)


def _ask_and_die(context: Context) -> Result:
    context.asks("trt:fp16")
    os._exit(9)


def _ask(context: Context) -> Result:
    context.asks("trt:fp16")
    return {"summary": "asked"}


def _die(_: Context) -> Result:
    os._exit(9)


def _die_afterwards(_: Context) -> Result:
    threading.Timer(0.2, os._exit, (9,)).start()
    return {}


def _break_the_gpu(_: Context) -> Result:
    worker_module.gpu_is_broken = lambda: True
    raise FmmtError("an illegal memory access")


def _unable(_: Context) -> Result:
    raise EnvironmentProblem("there is no such thing", why="Nobody\nbrought it.")


def _wrong(_: Context) -> Result:
    raise ParityError("it answers otherwise")


def _bug(_: Context) -> Result:
    return {"summary": {}["nothing"]}


def steps_of(settings: Settings) -> tuple[Step, ...]:
    del settings
    work = {"pid": _pid, "hang": _hang, "die": _die, "unable": _unable, "wrong": _wrong, "bug": _bug}
    work |= {"ask": _ask, "ask and hang": _ask_and_hang, "ask and die": _ask_and_die}
    work |= {"die afterwards": _die_afterwards, "break the GPU": _break_the_gpu}
    return (*(Step(n, 30, w, gpu=False) for n, w in work.items()), Step("gpu", 30, _pid))


def _steps_that_fail(settings: Settings) -> tuple[Step, ...]:
    raise RuntimeError(settings.model)


STEPS = {step.name: step for step in steps_of(settings_for("tiny", 1, Path()))}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(settings_for("tiny", 60, tmp_path), steps_of)
    yield made
    made.close()


def run(runner: Runner, name: str, seconds: float = 20.0) -> Outcome:
    return runner.run(STEPS[name], seconds, ("trt:fp16",))


def test_one_process_runs_step_after_step(worker: Worker) -> None:
    first, second = run(worker, "pid"), run(worker, "pid")
    assert first.state == "done"
    assert first.result["summary"] == "trt:fp16"
    assert first.result["pid"] == second.result["pid"] != os.getpid()
    assert 15 < float(str(first.result["left"])) <= 20


def test_what_hangs_is_stopped_and_others_go_on(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmmt_deploy.verification.worker._GRACE_SECONDS", 0.0)
    before = run(worker, "pid").result["pid"]
    start = time.monotonic()
    late = run(worker, "hang", 0.5)
    assert (late.state, late.exit_code) == ("late", 1)
    assert "stopped after" in late.why
    assert time.monotonic() - start < 10
    assert run(worker, "pid").result["pid"] != before


def test_what_dies_is_told_and_others_go_on(worker: Worker) -> None:
    died = run(worker, "die")
    assert (died.state, died.why) == ("failed", "its process died with code 9")
    assert run(worker, "pid").state == "done"


@pytest.mark.parametrize(("name", "state"), [("ask and hang", "late"), ("ask and die", "failed")])
def test_the_engine_that_was_asked_last_is_blamed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    monkeypatch.setattr(worker_module, "_GRACE_SECONDS", 0.0)
    asked = run(worker, "ask")
    assert (asked.state, asked.result["summary"], asked.asked) == ("done", "asked", "")
    lost = run(worker, name, 1.0)
    assert (lost.state, lost.asked) == (state, "trt:fp16")
    assert lost.why.endswith(" when trt:fp16 was asked, which no step asks again")
    assert run(worker, "pid").state == "done"


def test_who_dies_between_steps_costs_none(worker: Worker) -> None:
    assert run(worker, "die afterwards").state == "done"
    time.sleep(0.5)
    assert run(worker, "pid").state == "done"


def test_a_worker_that_can_not_begin_is_told(tmp_path: Path) -> None:
    beginner = Worker(settings_for("tiny", 60, tmp_path), _steps_that_fail)
    try:
        failed = run(beginner, "pid")
    finally:
        beginner.close()
    assert (failed.state, failed.why) == ("failed", "its process died with code 1")


def test_a_broken_gpu_costs_one_step(worker: Worker) -> None:
    before = run(worker, "pid").result["pid"]
    run(worker, "wrong")
    assert run(worker, "pid").result["pid"] == before
    assert run(worker, "break the GPU").state == "failed"
    assert run(worker, "pid").result["pid"] != before


@pytest.mark.parametrize(
    ("name", "state", "exit_code", "why"),
    [
        ("unable", "unable", 3, "there is no such thing Nobody brought it."),
        ("wrong", "failed", 4, "it answers otherwise"),
        ("bug", "failed", 1, "a bug of ours: KeyError: 'nothing'"),
    ],
)
def test_errors_say_why(tmp_path: Path, name: str, state: str, exit_code: int, why: str) -> None:
    outcome = run(Here(settings_for("tiny", 60, tmp_path)), name)
    assert (outcome.state, outcome.exit_code) == (state, exit_code)
    assert why in outcome.why
    assert "\n" not in outcome.line
    assert name in outcome.line


def test_a_gpu_is_asked_for_only_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmmt_deploy.verification.context.current_gpu", lambda: None)
    settings = settings_for("tiny", 60, tmp_path)
    assert run(Here(settings), "pid").state == "done"
    refused = run(Here(settings), "gpu")
    assert (refused.state, refused.exit_code) == ("unable", 3)
    assert "no NVIDIA GPU" in refused.why
    assert run(Here(settings_for("tiny", 60, tmp_path, needs_gpu=False)), "gpu").state == "done"
