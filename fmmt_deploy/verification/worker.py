"""Where steps run: in a process that can be stopped, and whose death costs one step only; or in this one.

TensorRT, CUDA and compilers can hang or take their process with them. So a worker runs step after step, keeping its
engines open; if one passes its deadline, or the worker dies, that step is lost and a new worker goes on, without the
engine that was asked last. So it does where a step leaves a GPU that does nothing more for its process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from time import monotonic
from typing import Protocol

from fmmt_deploy.engines.tensorrt.gpu import gpu_is_broken
from fmmt_deploy.verification.context import Context
from fmmt_deploy.verification.outcomes import Outcome, State, Step, outcome_of
from fmmt_deploy.verification.settings import Settings

__all__ = ["Here", "Runner", "StepsOf", "Worker"]

StepsOf = Callable[[Settings], tuple[Step, ...]]
"""A function at the top of a module: a worker imports it by name."""

_GRACE_SECONDS = 3.0
"""A step that watches its deadline may be this much late."""


class Runner(Protocol):
    """Runs steps."""

    def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
        """Runs a step, for so many seconds at most; `ready` as in `Context`."""
        ...

    def close(self) -> None:
        """Ends what was begun."""
        ...


class Here:
    """Runs steps in this process, which nothing stops at their deadline.

    Args:
        settings: What is verified.
    """

    def __init__(self, settings: Settings) -> None:
        self._context = Context(settings)

    def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
        """See `Runner.run`."""
        self._context.ready = ready
        return outcome_of(_within(step, seconds), self._context)

    def close(self) -> None:
        """See `Runner.close`."""
        self._context.close()


class Worker:
    """Runs steps in a process of their own, begun when it is needed.

    Args:
        settings: What is verified.
        steps_of: Makes the steps, here and there.
    """

    def __init__(self, settings: Settings, steps_of: StepsOf) -> None:
        self._settings, self._steps_of = settings, steps_of
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def run(self, step: Step, seconds: float, ready: tuple[str, ...]) -> Outcome:
        """See `Runner.run`."""
        start, asked = monotonic(), (step.name, seconds, ready)
        pipe = self._begun()
        try:
            pipe.send(asked)
        except OSError:  # it died when its last step was over
            self.close()
            pipe = self._begun()
            pipe.send(asked)
        engine = ""
        try:
            while pipe.poll(max(0.0, start + seconds + _GRACE_SECONDS - monotonic())):
                match pipe.recv():
                    case str(name):
                        engine = name
                    case outcome, goes_on:
                        if not goes_on:
                            self.close()
                        assert isinstance(outcome, Outcome)
                        return outcome
        except (EOFError, OSError):  # OSError: it died before it read what it was asked
            return self._lost(step, "failed", start, f"its process died with code {self._exit_code()}", engine)
        return self._lost(step, "late", start, f"it was stopped after {seconds:.0f} s", engine)

    def close(self) -> None:
        """See `Runner.close`."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _lost(self, step: Step, state: State, start: float, why: str, engine: str) -> Outcome:
        self.close()
        blamed = f" when {engine} was asked, which no step asks again" if engine else ""
        return Outcome(step.name, state, monotonic() - start, f"{why}{blamed}", 1, asked=engine)

    def _exit_code(self) -> int | None:
        assert self._process is not None
        self._process.join()
        return self._process.exitcode

    def _begun(self) -> Connection:
        if self._process is None or self._pipe is None:
            spawn = multiprocessing.get_context("spawn")  # what CUDA needs: a forked process can't use it
            self._pipe, theirs = spawn.Pipe()
            self._process = spawn.Process(target=_serve, args=(theirs, self._settings, self._steps_of))
            self._process.start()
            theirs.close()
        return self._pipe


def _serve(pipe: Connection, settings: Settings, steps_of: StepsOf) -> None:
    context = Context(settings, asks=pipe.send)
    steps: Mapping[str, Step] = {step.name: step for step in steps_of(settings)}
    try:
        while True:
            name, seconds, context.ready = pipe.recv()
            outcome = outcome_of(_within(steps[name], seconds), context)
            pipe.send((outcome, outcome.state == "done" or not gpu_is_broken()))
    except (EOFError, OSError, KeyboardInterrupt):  # whoever asked is gone, or stops us all
        context.close()


def _within(step: Step, seconds: float) -> Step:
    return Step(step.name, seconds, step.run, step.gpu)
