"""What became of a step."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from fmmt_deploy.errors import EnvironmentProblem, FmmtError
from fmmt_deploy.verification.context import Context, check_gpu

__all__ = ["Outcome", "State", "Step", "outcome_of"]

State = Literal["done", "failed", "unable", "late", "skipped"]
"""`unable`: this machine lacks something; `late`: stopped at its deadline; `skipped`: not begun."""

Result = Mapping[str, object]


@dataclass(frozen=True)
class Step:
    """One part of a verification.

    Attributes:
        name: What it is called, and by which others need it.
        seconds: How long it may take.
        run: Does it; returns what it found out, under `summary` in one line for people.
        gpu: Whether it needs a GPU.
        needs: Steps that must be done before.
        leaves: Seconds that must be left for others, or it is not begun.
        readies: The engine that has been shown to answer right once this and all others that ready it are done.
    """

    name: str
    seconds: float
    run: Callable[[Context], Result]
    gpu: bool = True
    needs: tuple[str, ...] = ()
    leaves: float = 0.0
    readies: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: The step's.
        state: See `State`.
        seconds: How long it took.
        why: Why it is not done; empty if it is.
        exit_code: What the error would end a command with; 0 if there was none.
        result: What it found out.
        asked: The engine that was to answer when its process was stopped or died; empty where none was, or that is not
            what became of it.
    """

    name: str
    state: State
    seconds: float = 0.0
    why: str = ""
    exit_code: int = 0
    result: Result = field(default_factory=dict)
    asked: str = ""

    @property
    def line(self) -> str:
        """One line for people."""
        said = self.result.get("summary", "") if self.state == "done" else self.why
        return f"{self.seconds:6.1f} s  {self.state:8}{self.name}{': ' if said else ''}{said}"


def outcome_of(step: Step, context: Context) -> Outcome:
    """Runs a step in this process, whatever happens in it."""
    start = monotonic()
    context.deadline = start + step.seconds
    try:
        if step.gpu and context.settings.needs_gpu:
            check_gpu()
        result = step.run(context)
    except FmmtError as error:
        state: State = "unable" if isinstance(error, EnvironmentProblem) else "failed"
        why = " ".join(part for part in (error.what, error.why) if part).replace("\n", " ")
        return Outcome(step.name, state, monotonic() - start, why, error.exit_code)
    except Exception as error:  # a bug of ours must not cost the steps that follow; it is told with its place
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"a bug of ours: {type(error).__name__}: {error} ({place.filename}:{place.lineno})".replace("\n", " ")
        return Outcome(step.name, "failed", monotonic() - start, why, FmmtError.exit_code)
    return Outcome(step.name, "done", monotonic() - start, result=result)
